"""What the processes of a job do first, and what they know of their job.

Of submitit's own ways inside a job only the start is used: its handlers checkpoint and queue again by guessing from the
clock, in every process that hears the signal. Here a job is a callable that saves its state as it goes; a warning only
ends it, and `slurm.afterwards` decides on the batch host what comes next.
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
"""What Slurm sends before it takes nodes back: USR2 as asked for with --signal, TERM otherwise."""


PATIENCE = 300.0
"""Seconds that the processes of a job wait for their first one: a shared file system may show a file late."""


def warning_seconds(minutes: float) -> int:
    """How long before its limit a job is warned: a tenth of it, between 15 seconds and 5 minutes."""
    return int(min(300, max(15, 6 * minutes)))


class Work(Protocol):
    """What a job does: a picklable callable that keeps its progress in files."""

    def __call__(self) -> None:
        """Does what is left to do. Called by every process of the job."""

    def left(self) -> str | None:
        """None if all is done; otherwise a text that is another one after any progress."""

    def gave_up(self, reason: str) -> None:
        """Marks as failed what was being done: it ended time and again without progress."""


@dataclass(frozen=True)
class Job:
    """What submitit pickles: the work, behind what every process of a job has to do before it."""

    work: Work
    folder: Path  # where the processes of the job find each other

    def __call__(self) -> None:
        guard()
        look_at_cores()
        join(self.folder)
        self.work()


class ThisJob(NamedTuple):
    """The job that this process belongs to, if any."""

    id: str | None  # "123", "123_4" of an array
    restarts: int = 0
    node: str | None = None


def this_job() -> ThisJob:
    """The job of Slurm, or of submitit on this machine, that this process belongs to."""
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
    """Makes a warning end this process with 128 + signal, and leaves the processes that it forks deaf to it.

    Where Slurm signals all processes of a job and not the tasks alone, data loaders' workers hear the warning too; they
    have inherited the handler, and are ended by their parent.
    """
    for number in WARNINGS:
        signal.signal(number, _leave)
    os.register_at_fork(after_in_child=_deaf)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _deaf() -> None:
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # this is how a data loader ends its workers


def look_at_cores() -> None:
    """Says so where the process may use fewer cores than its job has asked for: data loaders then starve its GPU."""
    asked, seen = int(os.environ.get("SLURM_CPUS_PER_TASK", "1")), len(os.sched_getaffinity(0))
    if seen < asked:
        print(
            f"attention-bench: warning: this process may use {seen} of the {asked} cores that its job asked for: "
            "some sites bind processes too tightly; `export SLURM_CPU_BIND=none` in the cluster's setup may help",
            flush=True,
        )


def join(folder: Path) -> None:
    """Tells this process who it is among those of the job, in the variables that torch.distributed reads.

    The first process looks for a free port and writes it into the shared `folder`. CUDA_VISIBLE_DEVICES stays as Slurm
    has set it: a process takes its own from what it sees.

    Raises RuntimeError if nothing of the first process is seen in time.
    """
    env = submitit.JobEnvironment()
    if env.num_tasks == 1:
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
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            return path.read_text()
        except FileNotFoundError:
            time.sleep(0.1)
    raise RuntimeError(
        f"process {os.environ['RANK']} on {socket.gethostname()} does not see {path}, which the first process of the "
        f"job writes, after {PATIENCE:.0f} s: is the folder on a file system that all nodes share?"
    )


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return listener.getsockname()[1]
