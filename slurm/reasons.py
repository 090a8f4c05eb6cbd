"""Slurm's states, reasons and exit codes in words: what happened to a job, and what the user can do."""

import os
import pwd
import re
import signal

from slurm.queue import JobInfo

WAITS = {
    "None": "waits for the scheduler",
    "SchedDefer": "waits for the scheduler",
    "Prolog": "waits until its nodes are prepared",
    "Priority": "waits for jobs of higher priority",
    "Resources": "waits until enough nodes or GPUs are free",
    "Dependency": "waits for the jobs that it depends on",
    "JobArrayTaskLimit": "waits for other tasks of its array: the throttle limits how many run at the same time",
    "ReqNodeNotAvail": "waits for nodes that are down, drained or kept for maintenance; a shorter job may fit in",
    "Nodes required for job are DOWN": "waits for nodes that are down, drained or kept for jobs of other partitions",
    "NodeDown": "waits for a node that is down",
    "Reservation": "waits for its reservation to begin",
    "Licenses": "waits for licences that other jobs use",
    "Constraints": "waits for nodes that have what it asks for, of which there are none at present",
    "FrontEndDown": "waits for a front end node that is down",
    "FedJobLock": "waits for the other clusters of its federation",
    "MpiPortsBusy": "waits for ports that other jobs use",
    "MaxPoweredUpNodes": "waits for other jobs, as no more nodes may be powered up at a time",
    "PowerNotAvail": "waits for electric power that other jobs use",
    "PowerReserved": "waits for electric power that is reserved",
    "BurstBufferResources": "waits for room in the burst buffer",
    "BurstBufferStageIn": "waits until its data is in the burst buffer",
    "Cleaning": "waits until its previous run is cleaned up",
    "PartitionDown": "waits until an administrator opens partition {job.partition} again",
    "PartitionInactive": "waits until an administrator opens partition {job.partition} again",
}
"""Reasons to wait that clear by themselves, or by an action for all jobs."""

STUCK = {
    "DependencyNeverSatisfied": "never starts, as a job that it depends on failed: cancel it, and submit both again",
    "PartitionConfig": "never starts, as it asks for more than partition {job.partition} has: cancel it; ask for less",
    "PartitionNodeLimit": "never starts, as partition {job.partition} does not allow so many (or few) nodes: "
    "cancel it, and ask for another number",
    "PartitionTimeLimit": "never starts, as partition {job.partition} allows less time: cancel it, and ask for less",
    "MaxMemPerLimit": "never starts, as it asks for more memory than a job in partition {job.partition} may have "
    "(MaxMemPerNode, MaxMemPerCPU): cancel it, and ask for less",
    "BadConstraints": "never starts, as no node has what it asks for: cancel it; check features, GPUs and memory",
    "InvalidAccount": "never starts, as its account is not valid: cancel it, and give another",
    "InvalidQOS": "never starts, as its QOS is not valid: cancel it, and give another",
    "AccountNotAllowed": "never starts, as its account may not use {job.partition}: cancel it, and give another",
    "QOSNotAllowed": "never starts, as its QOS may not be used here: cancel it, and give another",
    "ReservationDeleted": "never starts, as its reservation is gone: cancel it, and submit it without one",
    "ReservationInvalid": "never starts, as its reservation is not valid: cancel it, and submit it without one",
    "BurstBufferOperation": "held, as its data could not be moved: `scontrol release {job.id}` tries again",
    "JobHeldUser": "held by its user: `scontrol release {job.id}` releases it",
    "JobHeldAdmin": "held by Slurm or an administrator: ask them, or try `scontrol release {job.id}`",
}
"""Reasons to wait that do not clear without an action for this very job."""

HELD = {
    "job requeued in held state": "requeued, but held by Slurm",
    "launch failed requeued held": "held by Slurm, as its node could not start it",
    "user env retrieval failed requeued held": "held by Slurm, as its node could not read the user's environment",
    "JobHoldMaxRequeue": "held by Slurm, as it was requeued too often: see its log",
}
"""Reasons for which Slurm itself holds a job that it requeued; `slurm.release` releases it. There are others alike."""

ENDS = {
    "COMPLETED": "completed",
    "TIMEOUT": "reached its time limit: allow more time, or submit it again if it can continue where it was",
    "OUT_OF_MEMORY": "was killed for using more memory than it asked for: ask for more",
    "NODE_FAIL": "lost its node, and Slurm did not requeue it: submit it again",
    "BOOT_FAIL": "lost its node, which did not boot: submit it again",
    "PREEMPTED": "was preempted by a job of higher priority, and Slurm did not requeue it: submit it again",
    "DEADLINE": "could not end before its deadline",
    "REVOKED": "runs on another cluster of the federation",
}

RUNS = {
    "RUNNING": "runs on {job.nodes}",
    "CONFIGURING": "has its nodes, which are being prepared",
    "COMPLETING": "is ending: its nodes are being cleaned up",
    "STAGE_OUT": "is ending: its data is being moved",
    "SUSPENDED": "suspended by Slurm or an administrator, until they resume it",
    "STOPPED": "stopped by Slurm or an administrator, until they resume it",
}

# Of the QOS or of the association (account and user): QOSMaxWallDurationPerJobLimit, AssocGrpCPUMinutesLimit, ...
_A_LIMIT = r"(QOS|Assoc)?(Grp|Max|Min)\w+|(QOS|Association)(Job|Resource|Time)Limit|QOSUsageThreshold|AccountingPolicy"
_ON_ONE_JOB = r"\w*(PerJob|PerNode|WallDuration)\w*|QOSMin\w+|\w+TimeLimit"
_A_BUDGET = r"(QOS|Assoc)?Grp(?!\w*Run)\w*(Minutes|Wall)\w*|QOSUsageThreshold"


_ENDING = {
    *(signal.SIGILL, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGKILL, signal.SIGUSR1, signal.SIGSEGV),
    *(signal.SIGUSR2, signal.SIGPIPE, signal.SIGALRM, signal.SIGTERM, signal.SIGXCPU, signal.SIGXFSZ, signal.SIGSYS),
}
"""Signals that end programs. sacct takes 128 off exit codes from 128 on: its 15 is 143, as programs do not end with 15
by themselves, but 1 and 2 are what they are."""

HELD_STATES = ("REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
"""States of a job that was requeued and is held, whatever the reason."""


def is_held(job: JobInfo) -> bool:
    """Whether Slurm itself holds the job after requeueing it; false if a user or an administrator holds it."""
    return job.pending and (job.state in HELD_STATES or _held(_plain(job.reason)) is not None)


def describe(job: JobInfo) -> str:
    """Say in one line, of which the job is the subject, what it does, waits for or ended of, and what the user can do.

    States and reasons unknown here are shown in Slurm's words.
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
    """Remove what follows a comma ("ReqNodeNotAvail, UnavailableNodes:n1"), and the underscores of some versions."""
    return reason.partition(",")[0].replace("_", " ")


def _waiting(job: JobInfo) -> str:
    reason = _plain(job.reason)
    if reason == "BeginTime":
        again = "requeued, and waits" if job.restarts else "waits"
        return f"{again} until {job.start:%d %b %H:%M}" if job.start else f"{again} for its begin time"
    known = STUCK.get(reason) or WAITS.get(reason)
    if known and job.state not in HELD_STATES:
        return known.format(job=job)
    if held := _held(reason) or (HELD["job requeued in held state"] if job.state in HELD_STATES else None):
        return held
    if _asks_what_no_job_may(reason):
        return f"never starts, as it asks for more or less than a job may have ({reason}): cancel it, and change that"
    if re.fullmatch(_A_BUDGET, reason):
        return f"waits, as the account's budget is used up ({reason}): an administrator knows when it is renewed"
    if re.fullmatch(_A_LIMIT, reason):
        return f"waits for other jobs of the account or the user, which use all that is allowed at a time ({reason})"
    return f"waits: {job.reason}"


def _held(reason: str) -> str | None:
    """Say why Slurm itself holds a job that it requeued; None if the reason is another."""
    if reason in HELD:
        return HELD[reason]
    why = re.fullmatch(r"(.*?),? *requeued (and )?held( .*)?", reason)
    return f"held by Slurm: {why[1]}" if why else None


def _by(reason: str) -> str:
    """Say who cancelled, from sacct's "by 1000"."""
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
        return "failed, as no node has what it asks for: check features, GPUs and memory"
    found = re.fullmatch(r"(\d+):(\d+)", job.exit_code or "")
    if not found:
        return "failed: its log says why"
    code, number = int(found[1]), int(found[2])
    if (code, number) == (0, 53):
        return "failed, as Slurm could not write its log: is the output folder on a file system that all nodes share?"
    # A shell adds 128 to the signal that ended its last command.
    number = number or (code - 128 if code > 128 else code if code in (signal.SIGKILL, signal.SIGUSR2) else 0)
    if job.only_recorded and code in _ENDING:
        number = code
    if number == signal.SIGKILL:
        return f"was killed ({job.exit_code}), often for using too much memory: ask for more"
    if number == signal.SIGUSR2:
        return f"was ended by Slurm's warning signal ({job.exit_code}) before it could handle that: allow more time"
    if number in signal.Signals.__members__.values():
        return f"was ended by {signal.Signals(number).name} ({job.exit_code}): its log may say why"
    if job.only_recorded and code == 127:
        return "failed with exit code 127 or 255, which sacct does not tell apart: its log says why"
    return f"failed with exit code {code}: its log says why"
