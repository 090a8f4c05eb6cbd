"""Processes of this machine, through submitit's local executor: one isolated call, and jobs without Slurm."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import submitit

from slurm import queue
from slurm.inside import Job, Work
from slurm.submission import LOGS, python, share

Result = TypeVar("Result")

DAYS = 24 * 60
"""Minutes. submitit ends a local job after five unless told otherwise."""


class JobDied(RuntimeError):
    """The process ended without a result: the function raised, or it was killed, or it crashed below Python."""


def call_apart(function: Callable[[], Result], folder: Path, variables: Mapping[str, str] | None = None) -> Result:
    """Call a picklable function in a new process and return its result; its logs go to `folder`.

    `variables`: of its environment, beside those of this process.

    KeyboardInterrupt ends the process.

    Raises:
        JobDied: if the function raised, or the process ended without a result; the text says what is known of why.
    """
    executor = submitit.LocalExecutor(folder=folder)
    executor.update_parameters(timeout_min=365 * DAYS)
    with submitit.core.utils.environment_variables(**(variables or {})), _errors_to(folder / "submitit.err"):
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


def submit_local(
    works: Sequence[Work],
    *,
    folder: Path,
    code: Path,
    cpus: int,
    gpus: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
) -> str:
    """Start a process that runs these in sequence, with that many cores and these GPUs.

    `gpus`: as CUDA_VISIBLE_DEVICES names them. `variables`: of its environment, beside those of this process. The
    process keeps running when the submitting shell is gone. Returns its id, the number of submitit's process, by which
    `local_job` finds it.
    """
    share(folder)
    # submitit itself accepts only numbers, and counts from 0 whatever this process may use.
    visible = f"env CUDA_VISIBLE_DEVICES={shlex.quote(','.join(gpus))}"
    executor = submitit.LocalExecutor(folder / LOGS, python=f"{visible} {python(None)}")
    executor.update_parameters(timeout_min=365 * DAYS, stderr_to_stdout=True)
    path = os.environ.get("PYTHONPATH")
    own = {
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": f"{code}:{path}" if path else str(code),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(cpus)),
    }
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does: children ignore it as well
    try:
        with submitit.core.utils.environment_variables(**(variables or {}), **own), _errors_to(folder / "submitit.err"):
            job = executor.submit(Job(OneAfterTheOther(tuple(works)), folder / "meetings"))
    finally:
        signal.signal(signal.SIGHUP, ignored)
    # A process that has just been started has no command line yet.
    while not job.done() and local_job("", 0, job.job_id) is None:
        time.sleep(0.01)
    return job.job_id


@dataclass(frozen=True)
class OneAfterTheOther:
    """Works that one job runs in sequence."""

    works: tuple[Work, ...]

    def __call__(self) -> None:
        for work in self.works:
            work()

    def left(self) -> str | None:
        return "; ".join(filter(None, (work.left() for work in self.works))) or None

    def gave_up(self, reason: str) -> None:
        next(work for work in self.works if work.left() is not None).gave_up(reason)


def local_job(name: str, index: int, id: str | None) -> queue.JobInfo | None:
    """Return what is known of a job that `submit_local` started; None if its first process is gone or is not ours."""
    try:
        command = Path(f"/proc/{id}/cmdline").read_bytes()
    except OSError:
        return None
    if b"submitit" not in command:  # another process has that number now
        return None
    return queue.JobInfo(str(id), name, index, "RUNNING", "", socket.gethostname(), 0, None, None, None, None, "")


def cancel_local(ids: Iterable[str]) -> None:
    """Ask jobs that `submit_local` started to end; those that have ended are skipped."""
    for id in ids:
        if local_job("", 0, id) is not None:
            with suppress(ProcessLookupError):
                os.kill(int(id), signal.SIGTERM)


@contextmanager
def _errors_to(path: Path) -> Iterator[None]:
    """Redirect standard error of the processes started in the block to this file.

    Ctrl-C on a terminal also reaches submitit's own helper process, which prints a traceback.
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
