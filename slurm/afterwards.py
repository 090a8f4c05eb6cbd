"""What the batch script of a job does when its processes have ended badly: queue it again, or give it up.

    python -m slurm.afterwards FOLDER STATUS SECONDS      in the job's environment; FOLDER is submitit's

A warning (time limit, preemption), a killed process, a node that failed to start it: as long as the work gets on
between two ends, the job is queued again, however often. Three ends without progress, and what it was at is marked as
failed; the rest goes on. A preemption is nobody's fault and does not count.
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
"""In a row without progress, after which the work is given up."""

WARNED = tuple(128 + number for number in WARNINGS)
"""The exit statuses of processes that a warning has ended."""

AHEAD = 60.0
"""Seconds by which Slurm's warning before the time limit may come too early."""

PAUSE = 5.0
"""Seconds between two questions to a controller that does not answer."""

PATIENCE = 60.0
"""Seconds for which a controller that does not answer is asked again."""


def afterwards(folder: Path, status: int, seconds: float, minutes: float) -> int:
    """Queues this job again, gives up, or lets it end; the exit status of the batch script.

    `status`: that of srun; `seconds`: how long the job ran; `minutes`: its time limit.
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
        _say(f"ended by a warning of Slurm's after {seconds:.0f} s: preempted, or its node is taken out of service")
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
    return _queue_again(status)


def _near_the_limit(seconds: float, minutes: float) -> bool:
    """Whether a warning that ended a job after so many seconds was that of its time limit; else it was preempted."""
    return seconds >= 60 * minutes - warning_seconds(minutes) - AHEAD


def _ends_before(path: Path, left: str) -> int:
    """Ends in a row at which just this was left to do."""
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError):
        return 0
    return before["count"] if before["left"] == left else 0


def _why(status: int, seconds: float, minutes: float) -> str:
    if _near_the_limit(seconds, minutes):
        return f"the last time near the time limit of {minutes:g} minutes: more minutes are needed"
    if status == 128 + signal.SIGKILL:
        return "the last time killed, often for memory"
    return f"the last time with exit status {status}"


def last_line(log: Path) -> str:
    """The last line of a log that says something of its own, not Slurm's or submitit's echo of it."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    echo = re.compile(r"srun: |slurmstepd: |submitit |attention-bench: ")
    telling = [line.strip() for line in lines[-200:] if line.strip() and not echo.match(line)]
    return telling[-1] if telling else ""


def _queue_again(status: int) -> int:
    """Asks Slurm to queue this job again, which ends this process too, unless it has done so by itself."""
    job = str(this_job().id)
    end = time.monotonic() + PATIENCE
    while True:
        try:
            found = re.search(r"\bRestarts=(\d+)", output("scontrol", "show", "job", job))
            if found is not None and int(found[1]) != this_job().restarts:
                _say("Slurm has queued this job again already; this copy ends")
                return status
            output("scontrol", "requeue", job)
            _say("queued again")
            return status
        except SlurmUnreachable as problem:
            if time.monotonic() > end:
                _say(f"Slurm does not queue it again ({problem}); attention-bench resume submits it anew")
                return status
        time.sleep(PAUSE)


def _say(text: str) -> None:
    print(f"attention-bench: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(afterwards(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
