"""What Slurm knows of our jobs: two squeues at most, and if necessary one sacct, for all of them together.

Jobs are found by their names, which are unique: a shell that dies between sbatch and writing the id down loses the id,
but never the name. `slurm.reasons` says what a state means.
"""

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from slurm.commands import SlurmUnreachable, output

WAITING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
ENDED = {
    *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE"),
    *("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REVOKED"),
}
"""Final states. A job that Slurm requeues passes from COMPLETING to PENDING: squeue shows NODE_FAIL or PREEMPTED only
of jobs that are not requeued, whereas sacct shows it of the others too, until they start."""

DAYS = 30
"""How many days sacct looks back."""

_QUEUED = "JobArrayID,State,Reason,NodeList,TimeUsed,TimeLeft,StartTime,restartcnt,exit_code,Partition,Name"
_RECORDED = "JobID,State,ExitCode,ElapsedRaw,Start,Partition,NodeList,JobName"

# Linux limits an argument to 128 KiB; beyond this length, sacct is asked for all jobs of the user.
_LONGEST_ARGUMENT = 100_000
# How many jobs and arrays one scancel gets.
_AT_ONCE = 100

# Clusters (by SLURM_CONF) without accounting, which are not asked again.
_no_accounting: set[str | None] = set()


@dataclass(frozen=True, slots=True)
class JobInfo:
    """What Slurm knows of a single job, or of one task of an array.

    `id` is "123", or "123_4" for task 4, whose `index` is 4 (0 for a single job). `state` and `reason` are Slurm's own;
    for a cancelled job from sacct, the reason is "by UID". `nodes` is a list as Slurm writes it, "" before the start.
    `start` is the expected time while the job waits. `elapsed_s` and `left_s` are seconds of this run; `restarts` and
    `left_s` are None if only sacct knows the job. `exit_code` is "code:signal", None before the end; where only sacct
    knows it, a code of 128 and more lacks 128: 143 is "15:0".
    """

    id: str
    name: str
    index: int
    state: str
    reason: str
    nodes: str
    elapsed_s: int
    left_s: int | None
    start: datetime | None
    restarts: int | None
    exit_code: str | None
    partition: str

    @property
    def only_recorded(self) -> bool:
        """Whether squeue no longer lists it, and sacct alone knows how it ended."""
        return not self.alive and self.restarts is None

    @property
    def alive(self) -> bool:
        """Whether it runs or will run, so that no second copy may be submitted; true for states unknown here."""
        return self.state not in ENDED

    @property
    def pending(self) -> bool:
        """Whether it waits, for the first time or again."""
        return self.state in WAITING

    @property
    def running(self) -> bool:
        """Whether it holds nodes, also while it starts and ends."""
        return self.alive and not self.pending


@dataclass(frozen=True, slots=True)
class Queue:
    """Jobs by name, then by index; a task that Slurm does not know is absent.

    `unreachable` says in one line why squeue did not answer; then there are no jobs. `unaccounted` says why sacct did
    not answer; then jobs that ended some minutes ago may be absent.
    """

    jobs: Mapping[str, Mapping[int, JobInfo]] = field(default_factory=dict)
    unreachable: str | None = None
    unaccounted: str | None = None


def ask(names: Collection[str] | Mapping[str, Collection[int]]) -> Queue:
    """Ask Slurm about the jobs with these names, by at most two squeues and one sacct; never raises.

    `names` may map each name to the indexes that matter: then no more is asked once all of these are listed. Names
    alone do not say how many tasks an array has.
    """
    if not names:
        return Queue()
    jobs: dict[str, dict[int, JobInfo]] = {}
    try:
        # The first knows the reason of each single task, the second all tasks: it shows those that wait as one, with
        # the reasons of all. The first leaves out the last one of 0-12:2 (Slurm 22.05).
        for form in (["-r"], []):
            _add(jobs, queued(_squeue(*form), names))
            if _all_listed(names, jobs):
                return Queue(jobs)
    except SlurmUnreachable as problem:
        return Queue(unreachable=str(problem))
    try:
        _add(jobs, recorded(_sacct(names), names))
    except SlurmUnreachable as problem:
        return Queue(jobs, unaccounted=str(problem))
    return Queue(jobs)


def find(name: str) -> str | None:
    """Return the id of the job or array of that name that waits, runs, or ran some minutes ago; None if there is none.

    Raises SlurmUnreachable if squeue does not answer.
    """
    for job in queued(_squeue(), [name]):
        # Slurm also keeps jobs that it refused, as failed before they had a node.
        if job.alive or job.nodes:
            return job.id.partition("_")[0]
    return None


def cancel(ids: Iterable[str]) -> None:
    """Cancel jobs ("123", with all of its tasks) and tasks ("123_4"); those that have ended are skipped.

    Raises SlurmUnreachable if Slurm does not answer or refuses.
    """
    chosen = _by_array(ids)
    for first in range(0, len(chosen), _AT_ONCE):
        _unless_ended("scancel", "-Q", *chosen[first : first + _AT_ONCE])


def release(ids: Iterable[str]) -> None:
    """Release held jobs or tasks; those that are not held, or have ended, are skipped.

    Raises SlurmUnreachable if Slurm does not answer or refuses.
    """
    for job in _by_array(ids):
        _unless_ended("scontrol", "release", job)


def _by_array(ids: Iterable[str]) -> list[str]:
    """Return the same jobs with one text per array ("123_[0,4]") rather than one per task."""
    tasks: dict[str, set[int]] = {}
    whole = set()
    for job in ids:
        array, _, index = job.partition("_")
        if index:
            tasks.setdefault(array, set()).add(int(index))
        else:
            whole.add(job)
    some = [f"{array}_[{','.join(map(str, sorted(indexes)))}]" for array, indexes in tasks.items()]
    return [*sorted(whole), *some]


def _unless_ended(*command: str) -> None:
    try:
        output(*command)
    except SlurmUnreachable as problem:
        # Slurm forgets ended jobs after some minutes; whether that is an error depends on its version. There is a line
        # for each job: another problem of one of them must not be lost among those that have ended.
        ended = re.compile("invalid job id|already complet", re.IGNORECASE)
        if not all(map(ended.search, problem.said or [str(problem)])):
            raise


def _squeue(*form: str) -> str:
    # Not -n: names would be split at commas, and the list may be long.
    columns = ",".join(f"{name}:|" for name in _QUEUED.split(","))
    return output("squeue", "--me", "-h", *form, "-t", "all", "-O", columns)


def queued(text: str, names: Collection[str]) -> Iterator[JobInfo]:
    """Yield the jobs with these names in squeue's output.

    Raises SlurmUnreachable if it does not name all tasks of one of them.
    """
    for line in text.splitlines():
        # The name comes last, as the name of a job that is not ours may contain anything.
        values = line.removesuffix("|").split("|", _QUEUED.count(","))
        if len(values) <= _QUEUED.count(","):
            continue
        id, state, reason, nodes, elapsed, left, start, restarts, exit_code, partition, name = values
        if name not in names:
            continue
        for task, index in _tasks(id):
            yield JobInfo(
                task,
                name,
                index,
                state,
                reason,
                nodes,
                _seconds(elapsed) or 0,
                _seconds(left),
                _time(start),
                int(restarts) if restarts.isdecimal() else None,
                _exit_code(exit_code) if state in ENDED else None,
                partition,
            )


def recorded(text: str, names: Collection[str]) -> Iterator[JobInfo]:
    """Yield the ended jobs with these names in sacct's output.

    Jobs that sacct believes alive are skipped: squeue lists every live job, so the record is late or was never closed.

    Raises SlurmUnreachable if it does not name all tasks of one of them.
    """
    for line in text.splitlines():
        values = line.split("|", _RECORDED.count(","))
        if len(values) <= _RECORDED.count(","):
            continue
        id, words, exit_code, elapsed, start, partition, nodes, name = values
        # "CANCELLED by 0"
        state, _, reason = words.partition(" ")
        if state not in ENDED or name not in names:
            continue
        nodes = "" if nodes == "None assigned" else nodes
        seconds = int(elapsed) if elapsed.isdecimal() else 0
        for task, index in _tasks(id):
            yield JobInfo(
                task, name, index, state, reason, nodes, seconds, None, _time(start), None, exit_code, partition
            )


def _sacct(names: Collection[str]) -> str:
    cluster = os.environ.get("SLURM_CONF")
    if cluster in _no_accounting:
        raise SlurmUnreachable("sacct: Slurm accounting storage is disabled")
    listed = ",".join(sorted(names))
    chosen = [f"--name={listed}"] if len(listed) < _LONGEST_ARGUMENT else []
    try:
        return output("sacct", "-X", "-P", "-n", "-S", f"now-{DAYS}days", "-o", _RECORDED, *chosen)
    except SlurmUnreachable as problem:
        if "accounting storage is disabled" in str(problem):
            _no_accounting.add(cluster)
        raise


def _add(jobs: dict[str, dict[int, JobInfo]], found: Iterable[JobInfo]) -> None:
    """Add the jobs that are not there yet: what is asked first knows more, and sooner."""
    # Tasks first: of an array whose waiting tasks were cancelled one by one, a single job is left behind as well.
    for job in sorted(found, key=lambda job: "_" not in job.id):
        jobs.setdefault(job.name, {}).setdefault(job.index, job)


def _all_listed(names: Collection[str] | Mapping[str, Collection[int]], jobs: dict[str, dict[int, JobInfo]]) -> bool:
    return isinstance(names, Mapping) and all(jobs.get(name, {}).keys() >= set(names[name]) for name in names)


def _tasks(id: str) -> Iterator[tuple[str, int]]:
    """Yield ids and indexes of "123", "123_4" or "123_[3-9%2]"; none for other kinds of jobs, which are not ours."""
    array, separator, indexes = id.partition("_")
    if not array.isdecimal():
        return
    if not separator:
        yield array, 0
    elif indexes.isdecimal():
        yield id, int(indexes)
    else:
        for index in task_indexes(indexes):
            yield f"{array}_{index}", index


def task_indexes(text: str) -> list[int]:
    """Return the indexes in Slurm's list of tasks: [0,2] of "[0,2]", "[0-2:2]", "[0,2%1]"; after "%" comes a throttle.

    Raises SlurmUnreachable for anything else, such as a list that Slurm has cut: a task that is not named would be
    taken for gone.
    """
    whole = re.fullmatch(r"\[([\d,:-]+)(%\d+)?\]", text)
    parts = [re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part) for part in whole[1].split(",")] if whole else [None]
    indexes: list[int] = []
    for part in parts:
        if part is None:
            raise SlurmUnreachable(f"Slurm does not say which tasks of an array there are: {text}")
        first, last, step = part.groups()
        indexes += range(int(first), int(last or first) + 1, int(step or 1))
    return indexes


def _seconds(text: str) -> int | None:
    """Return the seconds of "1-02:03:04", "02:03:04" or "03:04"; None for UNLIMITED, INVALID and the like."""
    found = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", text)
    if not found:
        return None
    days, hours, minutes, seconds = (int(number or 0) for number in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _time(text: str) -> datetime | None:
    """Slurm's local time; None of N/A, Unknown and the like."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        return None


def _exit_code(text: str) -> str:
    """Return "code:signal", which sacct prints; squeue prints the status of wait(2) as a number."""
    if not text.isdecimal():
        return text
    signal = int(text) & 0x7F
    return f"0:{signal}" if signal else f"{int(text) >> 8}:0"
