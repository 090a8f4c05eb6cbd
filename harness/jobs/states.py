"""The state of each cell, from its record, run folder and submissions, and from Slurm if it answers. Imports no torch.

The disk comes first: a record is final, and an attempt with a recent heartbeat is running. Slurm is asked, once for
all, about the jobs of cells without a record: why they wait, and whether what has stopped will run again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import results
import slurm
from harness.jobs.submissions import Array, Submission
from harness.process.attempts import FOLDER, Sidecar, attempts
from results import Record
from slurm import JobInfo

State = Literal["done", "oom", "failed", "running", "pending", "unknown", "cancelled", "dropped", "unsubmitted"]
STATES: tuple[State, ...] = get_args(State)

LIVE: tuple[State, ...] = ("running", "pending", "unknown")
"""States of cells that are or may be running or waiting, and so must not be submitted a second time."""


@dataclass(frozen=True)
class CellState:
    """One cell. `detail` is a sentence: what it waits for, its progress, or what went wrong and what to do."""

    key: str
    label: str
    state: State
    detail: str = ""
    job: str | None = None
    held: bool = False  # by Slurm, which queued its job again: `resume` releases it
    attempts: int = 0
    interrupted: int = 0  # attempts that ended or died before there was a record: preempted, lost, stopped
    epoch: int | None = None
    epochs: int | None = None
    step: int | None = None
    steps: int | None = None
    images_per_s: float | None = None
    left_s: float | None = None
    beat_age_s: float | None = None

    @property
    def live(self) -> bool:
        return self.state in LIVE


@dataclass(frozen=True)
class Standing:
    """The states of all cells asked for, with their records by key, and what is damaged: one line each."""

    cells: list[CellState]
    problems: list[str] = field(default_factory=list)  # damaged files
    slurm: str | None = None  # why Slurm was not, or not fully, asked
    records: Mapping[str, Record] = field(default_factory=dict)  # also of a failure that is being tried again

    def count(self, state: State) -> int:
        return sum(cell.state == state for cell in self.cells)

    @property
    def live(self) -> bool:
        """Whether any cell is running or still to run."""
        return any(cell.live for cell in self.cells)

    def must_be_known(self, consequence: str) -> None:
        """Raise ValueError, ending in `consequence`, where Slurm does not say whether some cells are running."""
        if self.slurm is not None and self.count("unknown"):
            raise ValueError(f"{self.slurm}; {consequence}")


@dataclass(frozen=True)
class _Place:
    """Where a cell was submitted last: the job that runs it, by its index in the array."""

    submission: Submission
    array: Array
    index: int


SUSPENDED = ("SUSPENDED", "STOPPED")
"""States of a job that holds its nodes but does not run: its processes give no heartbeat."""


def look_at(out: Path, cells: Mapping[str, str], submissions: Sequence[Submission]) -> Standing:
    """Return the states of cells (labels by key), of which some are in these submissions (oldest first).

    Asks Slurm once, or not at all where no cell needs it.
    """
    now = time.time()
    problems: list[str] = []
    records = {key: _record(out, key, problems) for key in cells}
    open_places = {
        key: place
        for key, place in _last_places(submissions).items()
        if key in cells and not _settles(records[key], place.submission)
    }
    elsewhere = _elsewhere(open_places.values())
    jobs, unreachable, unaccounted = _jobs(
        [place for place in open_places.values() if place.submission.folder not in elsewhere]
    )
    states = []
    for key, label in cells.items():
        made, damaged = attempts(out / key)
        problems += damaged
        place = open_places.get(key)
        job = None if place is None else jobs.get((place.array.name, place.index))
        if place is not None and (job is None or not job.alive):
            # Between the look at the disk and the look at Slurm it may have come to its end.
            records[key] = _record(out, key, [])
            if _settles(records[key], place.submission):
                place = None
        asked = (
            place is not None
            and place.submission.folder not in elsewhere
            and (unreachable is None or place.submission.cluster.is_local)
        )
        record = records[key] if place is None else None
        states.append(_Evidence(key, label, record, made, place, job, asked, unaccounted, now).cell_state())
    unasked = unreachable or next(iter(elsewhere.values()), None)
    return Standing(states, problems, unasked, {key: record for key, record in records.items() if record})


def begun_in(out: Path) -> dict[str, str]:
    """Return the labels by key of all cells that were ever begun in an output folder, by whatever command."""
    found = {}
    for folder in sorted(out.glob(f"*/{FOLDER}")):
        made, _ = attempts(folder.parent)
        if made:
            found[folder.parent.name] = made[-1].label
    return found


@dataclass(frozen=True)
class _Evidence:
    """What is known of a cell, and the state that follows from it."""

    key: str
    label: str
    record: Record | None  # None also where it is that of a failure which is being tried again
    attempts: list[Sidecar]
    place: _Place | None  # None: never submitted, or settled by the record
    job: JobInfo | None  # what Slurm, or this machine, knows of the job at that place
    asked: bool  # whether Slurm answered, so that no job means that there is none
    unaccounted: str | None  # why sacct did not answer
    now: float

    @property
    def last(self) -> Sidecar | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def id(self) -> str | None:
        """The id of the job that it was submitted in, or was last run in."""
        if self.place is None:
            return None if self.last is None else self.last.job
        return self.place.array.job_id(self.place.index) or (None if self.job is None else self.job.id)

    @property
    def job_alive(self) -> bool:
        return self.job is not None and self.job.alive

    @property
    def beats(self) -> bool:
        """Whether the newest attempt gave a recent heartbeat."""
        return self.last is not None and self.last.alive(self.now)

    @property
    def runs(self) -> bool:
        """Whether the newest attempt is running. Slurm knows better where a heartbeat outlives its process."""
        stopped = self.asked and self.job is not None and self.job.state in SUSPENDED
        away = self.job is None or not self.job.alive or self.job.pending
        gone = self.asked and away and (self.last is None or self.last.job == self.id)
        return self.beats and not stopped and not gone

    @property
    def runs_by_hand(self) -> bool:
        """Whether a command that is in no job is running it; it may have taken over from a job that is gone."""
        return self.beats and self.last is not None and not self.last.job and not self.job_alive

    def cell_state(self) -> CellState:
        state, detail, progress = self._conclusion()
        last = self.last if progress else None
        return CellState(
            self.key,
            self.label,
            state,
            detail,
            job=None if self.runs_by_hand else self.id,
            held=state == "pending" and self.job is not None and slurm.is_held(self.job),
            attempts=len(self.attempts),
            interrupted=sum(each.interrupted for each in self.attempts if not (each is self.last and self.beats)),
            **({} if last is None else _progress(last, self.now)),
        )

    def _conclusion(self) -> tuple[State, str, bool]:
        """The state, the sentence on it, and whether the newest attempt's progress belongs to it."""
        if self.record is not None:
            return self.record.status, self.record.reason, False  # type: ignore[return-value]
        if self.last is not None and self.runs:
            return "running", self.last.text, True
        if self.place is None:
            return ("unsubmitted", "", False) if self.last is None else ("dropped", self._interruption(), False)
        if not self.asked:
            return "unknown", "" if self.last is None else _end(self.last, self.now), False
        if self.job is None or not self.job.alive:
            return self._ended(self.place)
        if self.job.pending:
            return "pending", self._wait(self.job), False
        if self.job.state in SUSPENDED:
            return "running", slurm.describe(self.job), True
        if self.last is not None and self.last.job == self.id and self.last.ended is None:
            return "running", f"no heartbeat for {self.now - self.last.beat:.0f} s on {self.last.host}", True
        cells = len(self.place.array.jobs[self.place.index])
        others = f", or is running another of its {cells} cells" if cells > 1 else ""
        return "pending", f"its job is starting{others}", False

    def _interruption(self) -> str:
        """How a run by hand ended without a record, and what continues it."""
        assert self.last is not None
        end = _end(self.last, self.now)
        return end if "the same command" in end else f"{end}; the command that started it continues it"

    def _wait(self, job: JobInfo) -> str:
        """Why a pending job waits; how its last attempt ended, without what a user would do, as Slurm does it."""
        release = "; attention-bench resume releases it" if slurm.is_held(job) else ""
        if self.last is None or self.last.job != self.id:
            return slurm.describe(job) + release
        return f"{slurm.describe(job)}{release}; before: {_end(self.last, self.now).partition('; the same command')[0]}"

    def _ended(self, place: _Place) -> tuple[State, str, bool]:
        """The state of a cell whose job is over, or is not known: cancelled or dropped, and why."""
        job, again = self.job, "; attention-bench resume submits it again"
        by_user = self.key in place.submission.cancelled
        if by_user or (job is not None and job.state == "CANCELLED"):
            return "cancelled", ("cancelled by you" if by_user or job is None else slurm.describe(job)) + again, False
        if place.submission.cluster.is_local:
            return "dropped", f"its process has ended{again}", False
        if job is not None:
            return "dropped", f"its job {slurm.describe(job)}{again}", False
        if place.array.id is None:
            return "dropped", f"it did not reach Slurm{again}", False
        unknown = f", and cannot say how it ended ({self.unaccounted})" if self.unaccounted else ""
        return "dropped", f"Slurm no longer knows its job{unknown}{again}", False


def _progress(last: Sidecar, now: float) -> dict[str, Any]:
    """The fields of a CellState that say how far an attempt is."""
    return {
        "epoch": last.epoch,
        "epochs": last.epochs,
        "step": last.step,
        "steps": last.steps,
        "images_per_s": last.images_per_s,
        "left_s": last.left_s,
        "beat_age_s": round(now - last.beat, 1),
    }


def _end(last: Sidecar, now: float) -> str:
    """How an attempt came to its end, in words."""
    if last.ended is not None:
        return last.ended
    return f"no heartbeat for {now - last.beat:.0f} s (process {last.pid} on {last.host})"


def _record(out: Path, key: str, problems: list[str]) -> Record | None:
    """Return the record of a cell if it is there and intact; add a line to `problems` if it is damaged."""
    path = out / f"{key}.json"
    try:
        return results.read(path)
    except ValueError as problem:
        if path.exists():
            problems.append(f"{problem}; its cell counts as not recorded")
        return None


def _settles(record: Record | None, submission: Submission) -> bool:
    """Whether a record ends the matter: a failure that is older than the last submission is being tried again."""
    return record is not None and (record.status == "done" or record.created != submission.failed.get(record.key))


def _last_places(submissions: Sequence[Submission]) -> dict[str, _Place]:
    """Where each cell was submitted last, by key."""
    return {
        key: _Place(submission, array, index)
        for submission in submissions
        for array, index, keys in submission.jobs()
        for key in keys
    }


def _elsewhere(places: Iterable[_Place]) -> dict[Path, str]:
    """Return the submissions to a cluster other than the one that is asked now, and what to do about each."""
    found: dict[Path, str] = {}
    try:
        asked = slurm.chosen_cluster()
    except slurm.SlurmUnreachable:  # which Slurm itself will say
        return found
    for submission in {place.submission.folder: place.submission for place in places}.values():
        meant = submission.slurm_cluster
        if submission.cluster.is_local or meant is None or meant == asked:
            continue
        how = f"set SLURM_CLUSTERS={meant}" if meant else "unset SLURM_CLUSTERS and SBATCH_CLUSTERS"
        found[submission.folder] = f"{submission.id} was submitted to another of the site's clusters: {how}"
    return found


def _jobs(places: Sequence[_Place]) -> tuple[dict[tuple[str, int], JobInfo], str | None, str | None]:
    """Return what is known of the jobs at these places, by array name and index; why squeue, and sacct, did not say."""
    found: dict[tuple[str, int], JobInfo] = {}
    wanted: dict[str, set[int]] = {}
    for place in places:
        name, index = place.array.name, place.index
        if not place.submission.cluster.is_local:
            wanted.setdefault(name, set()).add(index)
        elif (job := slurm.local_job(name, index, place.array.job_id(index))) is not None:
            found[name, index] = job
    queue = slurm.ask(wanted)
    for name, jobs in queue.jobs.items():
        found |= {(name, index): job for index, job in jobs.items()}
    return found, queue.unreachable, queue.unaccounted
