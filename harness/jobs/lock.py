"""The lock that keeps two shells from submitting or cancelling in one output folder at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from harness.jobs.submissions import FOLDER


@contextmanager
def submission_lock(out: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of an output folder; while another process holds it, wait, after a line to `warn`.

    The operating system releases it if this process dies. Raises ValueError, in one line, if the folder cannot be
    written.
    """
    folder = out / FOLDER
    # A marker file in place of a lock would outlive a process that is killed.
    lock = FileLock(folder / ".lock", fallback_to_soft=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            warn(f"another command is submitting or cancelling in {out}: this one continues when it ends")
            lock.acquire()
    except OSError as problem:
        raise ValueError(f"cannot write to the output folder {out}: {problem.strerror}") from problem
    try:
        yield
    finally:
        lock.release()
