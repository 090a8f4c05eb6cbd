"""What the batch script of a job does when its processes have ended with an error: requeue the job, or give up.

    python -m slurm.afterwards FOLDER STATUS SECONDS MINUTES    in the job's environment; FOLDER is submitit's

A warning (time limit, preemption), a killed process, a node that failed to start it: as long as there is progress
between two ends, the job is requeued, however often. After three ends in a row without progress, what was running is
marked as failed, and the rest is run. A preemption is nobody's fault and does not count.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import submitit

from slurm.commands import SlurmUnreachable, output
from slurm.inside import WARNINGS, Job, this_job, warning_seconds

ENDS = 3
"""Ends in a row without progress, after which the work is given up."""

WARNED = tuple(128 + number for number in WARNINGS)
"""Exit statuses of processes that a warning has ended."""

AHEAD = 60.0
"""Seconds by which Slurm's warning before the time limit may be early."""

PAUSE = 5.0
"""Seconds between two questions to a controller that does not answer."""

PATIENCE = 60.0
"""Seconds for which a controller that does not answer is asked again."""


def afterwards(folder: Path, status: int, seconds: float, minutes: float) -> int:
    """Requeue this job, give up, or let it end; return the exit status of the batch script.

    `status`: exit status of srun; `seconds`: how long the job ran; `minutes`: its time limit.
    """
    os.environ["SUBMITIT_FOLDER"] = str(folder)
    paths = submitit.JobEnvironment().paths
    job = submitit.core.utils.DelayedSubmission.load(paths.submitted_pickle).function
    assert isinstance(job, Job)
    left = job.work.left()
    if left is None:
        return 0
    ends = folder / f"{this_job().id}_ends.json"
    if status in WARNED and not _near_the_limit(seconds, minutes):
        _say(
            f"ended after {seconds:.0f} s by a warning from Slurm: preempted, or its node is being taken out of service"
        )
    else:
        count = 1 + _ends_before(ends, left)
        if count >= ENDS:
            reason = f"ended {count} times without progress, {_why(status, seconds, minutes)}"
            last = last_line(paths.stdout)
            _say(f"given up: {reason}")
            job.work.gave_up(f"{reason}{f'; the log ends with: {last}' if last else ''}")
            left, count = job.work.left(), 0
            if left is None:
                return 0
        ends.write_text(json.dumps({"left": left, "count": count}))
        _say(f"ended with exit status {status} after {seconds:.0f} s; what is left to do: {left}")
    return _requeue(status)


def _near_the_limit(seconds: float, minutes: float) -> bool:
    """Whether a warning after that many seconds was for the time limit; if not, the job was preempted."""
    return seconds >= 60 * minutes - warning_seconds(minutes) - AHEAD


def _ends_before(path: Path, left: str) -> int:
    """Return how many ends in a row left exactly this to do."""
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError):
        return 0
    return before["count"] if before["left"] == left else 0


def _why(status: int, seconds: float, minutes: float) -> str:
    if _near_the_limit(seconds, minutes):
        return f"the last time near the time limit of {minutes:g} minutes: give it more minutes"
    if status == 128 + signal.SIGKILL:
        return "the last time killed, often for memory"
    return f"the last time with exit status {status}"


def last_line(log: Path) -> str:
    """Return the last line of a log that is not Slurm's or submitit's report on it."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    echo = re.compile(r"srun: |slurmstepd: |submitit |attention-bench: ")
    telling = [line.strip() for line in lines[-200:] if line.strip() and not echo.match(line)]
    return telling[-1] if telling else ""


def _requeue(status: int) -> int:
    """Ask Slurm to requeue this job, unless it already has; requeueing ends this process too."""
    job = str(this_job().id)
    end = time.monotonic() + PATIENCE
    while True:
        try:
            found = re.search(r"\bRestarts=(\d+)", output("scontrol", "show", "job", job))
            if found is not None and int(found[1]) != this_job().restarts:
                _say("Slurm has already requeued this job; this copy ends")
                return status
            output("scontrol", "requeue", job)
            _say("requeued")
            return status
        except SlurmUnreachable as problem:
            if time.monotonic() > end:
                _say(f"Slurm does not requeue it ({problem}); attention-bench resume submits it again")
                return status
        time.sleep(PAUSE)


def _say(text: str) -> None:
    print(f"attention-bench: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(afterwards(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
