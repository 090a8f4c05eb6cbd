"""Slurm's states, reasons and exit codes in words: what happened to a job, and what its user can do."""

import os
import pwd
import re
import signal

from slurm.queue import JobInfo

WAITS = {
    "None": "waits for the scheduler to look at it",
    "Priority": "waits for jobs of higher priority",
    "Resources": "waits until enough nodes or GPUs are free",
    "Dependency": "waits for the jobs that it depends on",
    "JobArrayTaskLimit": "waits for other tasks of its array: the throttle lets no more run at a time",
    "ReqNodeNotAvail": "waits for nodes that are down, drained or kept for maintenance; a shorter one may fit in",
    "Nodes required for job are DOWN": "waits for nodes that are down, drained or kept for jobs of other partitions",
    "NodeDown": "waits for a node that is down",
    "Reservation": "waits for its reservation to begin",
    "Licenses": "waits for licences that other jobs use",
    "Cleaning": "waits until its last run is cleaned up",
    "PartitionDown": "waits until an administrator opens partition {job.partition} again",
    "PartitionInactive": "waits until an administrator opens partition {job.partition} again",
}
"""Reasons to wait that clear by themselves, or by what is done for all jobs."""

STUCK = {
    "DependencyNeverSatisfied": "never starts, as a job that it depends on failed: cancel it, and submit both again",
    "PartitionConfig": "never starts, as partition {job.partition} has less than it asks for: cancel it; ask for less",
    "PartitionNodeLimit": "never starts, as partition {job.partition} gives no job so many nodes (or so few): "
    "cancel it, and ask for another number",
    "PartitionTimeLimit": "never starts, as partition {job.partition} allows less time: cancel it, and ask for less",
    "BadConstraints": "never starts, as no node has what it asks for: cancel it, and look at features, GPUs and memory",
    "InvalidAccount": "never starts, as its account is not valid: cancel it, and name another",
    "InvalidQOS": "never starts, as its QOS is not valid: cancel it, and name another",
    "AccountNotAllowed": "never starts, as its account may not use {job.partition}: cancel it, and name another",
    "QOSNotAllowed": "never starts, as its QOS may not be used here: cancel it, and name another",
    "ReservationDeleted": "never starts, as its reservation is gone: cancel it, and submit it without",
    "JobHeldUser": "held: `scontrol release {job.id}` lets it go",
    "JobHeldAdmin": "held by Slurm or an administrator: ask them, or try `scontrol release {job.id}`",
}
"""Reasons to wait that do not clear unless something is done about this very job."""

HELD = {
    "job requeued in held state": "queued again, but held by Slurm",
    "launch failed requeued held": "held by Slurm, as its node could not start it",
    "JobHoldMaxRequeue": "held by Slurm, as it was queued again too often: see its log",
}
"""Reasons why Slurm itself holds a job that it queued again; `slurm.release` lets it go."""

ENDS = {
    "COMPLETED": "completed",
    "TIMEOUT": "reached its time limit: allow more time, or submit it again if it goes on from where it was",
    "OUT_OF_MEMORY": "was killed for using more memory than it asked for: ask for more",
    "NODE_FAIL": "lost its node, and Slurm did not queue it again: submit it again",
    "BOOT_FAIL": "lost its node, which did not boot: submit it again",
    "PREEMPTED": "gave way to a job of higher priority, and Slurm did not queue it again: submit it again",
    "DEADLINE": "could not end before its deadline",
    "REVOKED": "runs on another cluster of the federation",
}

RUNS = {
    "RUNNING": "runs on {job.nodes}",
    "CONFIGURING": "has its nodes, which are being made ready",
    "COMPLETING": "ends: its nodes are being cleaned up",
    "STAGE_OUT": "ends: its data is being moved",
    "SUSPENDED": "suspended by Slurm or an administrator: goes on when they say so",
    "STOPPED": "stopped by Slurm or an administrator: goes on when they say so",
}

# Of the QOS or of the association (account and user): QOSMaxWallDurationPerJobLimit, AssocGrpCPUMinutesLimit, ...
_A_LIMIT = r"(QOS|Assoc)?(Grp|Max|Min)\w+|(QOS|Association)(Job|Resource|Time)Limit|QOSUsageThreshold"
_ON_ONE_JOB = r"\w*(PerJob|PerNode|WallDuration)\w*|QOSMin\w+|\w+TimeLimit"
_A_BUDGET = r"(QOS|Assoc)?Grp(?!\w*Run)\w*(Minutes|Wall)\w*|QOSUsageThreshold"


HELD_STATES = ("REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
"""States of a job that was queued again and is held, whatever the reason."""


def is_held(job: JobInfo) -> bool:
    """Whether Slurm itself holds it, having queued it again; not what a user or an administrator holds."""
    return job.pending and (job.state in HELD_STATES or _plain(job.reason) in HELD)


def describe(job: JobInfo) -> str:
    """What a job does, waits for, or ended of, and what its user can do: one line, whose subject is the job.

    What is not known here is shown as Slurm has it.
    """
    if job.pending:
        return _waiting(job)
    if job.state in RUNS:
        return RUNS[job.state].format(job=job)
    if job.state == "CANCELLED":
        return f"cancelled{_by(job.reason)}"
    if job.state == "FAILED":
        return _failed(job)
    return ENDS.get(job.state, job.state)


def _asks_what_no_job_may(reason: str) -> bool:
    return bool(re.fullmatch(_A_LIMIT, reason) and re.fullmatch(_ON_ONE_JOB, reason))


def _plain(reason: str) -> str:
    """Without what follows a comma ("ReqNodeNotAvail, UnavailableNodes:n1"); some versions write underscores."""
    return reason.partition(",")[0].replace("_", " ")


def _waiting(job: JobInfo) -> str:
    reason = _plain(job.reason)
    if reason == "BeginTime":
        again = "queued again, and waits" if job.restarts else "waits"
        return f"{again} until {job.start:%d %b %H:%M}" if job.start else f"{again} for its time to begin"
    if _asks_what_no_job_may(reason):
        return f"never starts, as it asks for more or less than a job may ({reason}): cancel it, and change that"
    if re.fullmatch(_A_BUDGET, reason):
        return f"waits, as the account's budget is used up ({reason}): an administrator can tell when it is renewed"
    if re.fullmatch(_A_LIMIT, reason):
        return f"waits for other jobs of the account or the user, which use all they may at a time ({reason})"
    if job.state in HELD_STATES and reason not in HELD:
        reason = "job requeued in held state"
    text = STUCK.get(reason) or HELD.get(reason) or WAITS.get(reason)
    return text.format(job=job) if text else f"waits: {job.reason}"


def _by(reason: str) -> str:
    """Who cancelled, from sacct's "by 1000"."""
    number = reason.removeprefix("by ")
    if not number.isdecimal():
        return ""
    if int(number) == os.getuid():
        return " by you"
    try:
        return f" by {pwd.getpwuid(int(number)).pw_name}"
    except KeyError:
        return f" by user {number}"


def _failed(job: JobInfo) -> str:
    if job.reason == "BadConstraints":
        return "failed, as no node has what it asks for: look at features, GPUs and memory"
    found = re.fullmatch(r"(\d+):(\d+)", job.exit_code or "")
    if not found:
        return "failed: its log says why"
    code, number = int(found[1]), int(found[2])
    if (code, number) == (0, 53):
        return "failed, as Slurm could not write its log: is the output folder on a file system that all nodes share?"
    # A shell adds 128 to the signal that ended its last command; sacct takes it off again.
    number = number or (code - 128 if code > 128 else code if code in (signal.SIGKILL, signal.SIGUSR2) else 0)
    if number == signal.SIGKILL:
        return f"was killed ({job.exit_code}), often for using too much memory: ask for more"
    if number == signal.SIGUSR2:
        return f"was ended by Slurm's warning signal ({job.exit_code}) before it listened: allow more time"
    if number in signal.Signals.__members__.values():
        return f"was ended by {signal.Signals(number).name} ({job.exit_code}): its log may say why"
    return f"failed with exit code {code}: its log says why"
