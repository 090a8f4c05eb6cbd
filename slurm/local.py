"""Processes of this machine, through submitit's local executor: a callable apart, and jobs without a Slurm."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import submitit

from slurm.queue import Job

Result = TypeVar("Result")

DAYS = 24 * 60
"""Minutes. submitit ends a local job after five unless told otherwise."""


class JobDied(RuntimeError):
    """The process ended without a result: the function raised, or it was killed, or it crashed below Python."""


def call_apart(function: Callable[[], Result], folder: Path) -> Result:
    """Call a picklable function in a new process and return its result; its logs go to `folder`.

    KeyboardInterrupt ends the process.

    Raises:
        JobDied: if the function raised, or the process ended without a result; the text says what is known of why.
    """
    executor = submitit.LocalExecutor(folder=folder)
    executor.update_parameters(timeout_min=365 * DAYS)
    with _errors_to(folder / "submitit.err"):
        job = executor.submit(function)
    try:
        return job.result()
    except submitit.core.utils.FailedJobError as problem:
        raise JobDied(str(problem)) from None
    except submitit.core.utils.UncompletedJobError:
        lines = (job.stderr() or "").strip().splitlines()
        last = f": {lines[-1]}" if lines else ""
        raise JobDied(f"the process ended without a result{last} (log: {job.paths.stderr})") from None
    except KeyboardInterrupt:
        job.cancel(check=False)
        raise


def local_job(name: str, index: int, id: str | None) -> Job | None:
    """What is known of a job that `submit_local` started; None where its first process is gone, or was none of ours."""
    try:
        command = Path(f"/proc/{id}/cmdline").read_bytes()
    except OSError:
        return None
    if b"submitit" not in command:  # the number has been given to another process since
        return None
    return Job(str(id), name, index, "RUNNING", "", socket.gethostname(), 0, None, None, None, None, "")


def cancel_local(ids: Iterable[str]) -> None:
    """Asks jobs that `submit_local` started to end; those that have ended are passed over."""
    for id in ids:
        if local_job("", 0, id) is not None:
            with suppress(ProcessLookupError):
                os.kill(int(id), signal.SIGTERM)


@contextmanager
def _errors_to(path: Path) -> Iterator[None]:
    """Give processes that are started meanwhile this file for standard error.

    Ctrl-C on a terminal reaches submitit's own helper process too, which says so with a traceback.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = os.dup(2)
    try:
        with open(path, "ab") as log:
            os.dup2(log.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
