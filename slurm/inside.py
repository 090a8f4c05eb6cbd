"""What the processes of a job do first, and what they know about their job.

Only the start of a job is left to submitit: its signal handlers guess from the clock whether to save and requeue, in
every process that gets the signal. Here a job is a callable that saves its state as it runs; a warning only ends it,
and `slurm.afterwards` decides on the batch host what to do next.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NamedTuple, Protocol

import submitit

WARNINGS = (signal.SIGUSR2, signal.SIGTERM)
"""What Slurm sends before it takes nodes back: USR2 as requested by --signal, otherwise TERM."""

PATIENCE = 300.0
"""Seconds that the processes of a job wait for rank 0: a shared file system may show a file late."""

SILENCE = 5.0
"""Seconds of waiting after which it is said for what."""


def warning_seconds(minutes: float) -> int:
    """Return how long before its time limit a job is warned: a tenth of it, between 15 seconds and 5 minutes."""
    return int(min(300, max(15, 6 * minutes)))


class Work(Protocol):
    """What a job runs: a picklable callable that keeps its progress in files."""

    def __call__(self) -> None:
        """Do what is left to do. Called by every process of the job."""

    def left(self) -> str | None:
        """Return None if all is done; otherwise a text that changes whenever progress is made."""

    def gave_up(self, reason: str) -> None:
        """Mark as failed what was running, as it ended repeatedly without progress."""


@dataclass(frozen=True)
class Job:
    """What submitit pickles: the work, and what every process of a job does before it."""

    work: Work
    folder: Path  # where the processes of the job meet

    def __call__(self) -> None:
        guard()
        check_cores()
        join(self.folder)
        self.work()


class ThisJob(NamedTuple):
    """The job of this process, if any."""

    id: str | None  # "123", or "123_4" in an array
    restarts: int = 0
    node: str | None = None


def this_job() -> ThisJob:
    """Return the job of this process: Slurm's, or submitit's on this machine."""
    variables = os.environ
    if "SUBMITIT_LOCAL_JOB_ID" in variables:
        return ThisJob(variables["SUBMITIT_LOCAL_JOB_ID"])
    if "SLURM_JOB_ID" not in variables:
        return ThisJob(None)
    array, task = variables.get("SLURM_ARRAY_JOB_ID"), variables.get("SLURM_ARRAY_TASK_ID")
    return ThisJob(
        variables["SLURM_JOB_ID"] if array is None or task is None else f"{array}_{task}",
        int(variables.get("SLURM_RESTART_COUNT", "0")),
        variables.get("SLURMD_NODENAME"),
    )


def guard() -> None:
    """Make a warning end this process with 128 + signal, but not the processes that it forks.

    Where Slurm signals all processes of a job rather than only its tasks, data loaders' workers get the warning too;
    they would have inherited the handler, but their parent is to end them.
    """
    for number in WARNINGS:
        signal.signal(number, _leave)
    os.register_at_fork(after_in_child=_ignore_warnings)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _ignore_warnings() -> None:
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # by which a data loader ends its workers


def check_cores() -> None:
    """Warn if this process may use fewer cores than its job asked for: data loaders would then starve its GPU."""
    asked, seen = int(os.environ.get("SLURM_CPUS_PER_TASK", "1")), len(os.sched_getaffinity(0))
    if seen < asked:
        print(
            f"attention-bench: warning: this process may use {seen} of the {asked} cores that its job asked for: "
            "some sites bind processes too tightly; `export SLURM_CPU_BIND=none` in the cluster's setup may help",
            flush=True,
        )


def join(folder: Path) -> None:
    """Set the variables from which torch.distributed reads this process's rank and where the ranks meet.

    Rank 0 looks for a free port and writes it to the shared `folder`. CUDA_VISIBLE_DEVICES stays as Slurm has set it:
    each process picks its own device from it.

    Raises RuntimeError if the file of rank 0 does not appear in time.
    """
    env = submitit.JobEnvironment()
    if env.num_tasks == 1:
        # The shell that submitted may have been a process of another job.
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)
        return
    os.environ |= {
        "RANK": str(env.global_rank),
        "WORLD_SIZE": str(env.num_tasks),
        "LOCAL_RANK": str(env.local_rank),
        "LOCAL_WORLD_SIZE": str(env.num_tasks // env.num_nodes),
        "MASTER_ADDR": env.hostnames[0] if env.num_nodes > 1 else "127.0.0.1",
    }
    job = this_job()
    step = os.environ.get("SLURM_STEP_ID", str(os.getppid()))
    meeting = folder / f"meeting-{job.id}-{job.restarts}-{step}"
    if env.global_rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        partial = meeting.with_suffix(".partial")
        partial.write_text(str(free_port()))
        partial.replace(meeting)
    os.environ["MASTER_PORT"] = _seen(meeting)


def _seen(path: Path) -> str:
    start = time.monotonic()
    said = False
    who = f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']} on {socket.gethostname()}"
    what = f"{path}, which rank 0 of the job writes"
    while (waited := time.monotonic() - start) < PATIENCE:
        try:
            return path.read_text()
        except FileNotFoundError:
            if waited > SILENCE and not said:
                said = True
                print(f"attention-bench: {who} waits for {what}", flush=True)
            time.sleep(0.1)
    raise RuntimeError(
        f"{who} does not see {what}, after {PATIENCE:.0f} s: is the folder on a file system that all nodes share?"
    )


def free_port() -> int:
    """Return a port of this machine on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return listener.getsockname()[1]
