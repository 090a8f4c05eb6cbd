"""Where cells stand: told from records, run folders and submissions, and by Slurm if it answers. Imports no torch.

What the disk says comes first: a record is final, an attempt with a fresh sign of life runs. Slurm is asked, once for
all, about jobs of cells that have no record yet: why they wait, and whether what stopped will run again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import results
from harness.jobs.submissions import Array, Submission
from harness.process.attempts import FOLDER, Sidecar, attempts
from results import Record
from slurm import Job, ask, held, local_job, words

State = Literal["done", "oom", "failed", "running", "pending", "unknown", "cancelled", "dropped", "unsubmitted"]
STATES: tuple[State, ...] = get_args(State)

LIVE: tuple[State, ...] = ("running", "pending", "unknown")
"""States of cells that are at work or will be, as far as is known: they must not be submitted a second time."""


@dataclass(frozen=True)
class CellState:
    """One cell. `detail` is a sentence: what it waits for, how far it is, or what went wrong and what to do."""

    key: str
    label: str
    state: State
    detail: str = ""
    job: str | None = None
    held: bool = False  # by Slurm, which queued its job again: `resume` lets it go
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
    """All cells asked for, and what was found amiss: a line each."""

    cells: list[CellState]
    problems: list[str] = field(default_factory=list)  # damaged files
    slurm: str | None = None  # why Slurm was not, or not fully, asked

    def count(self, state: State) -> int:
        return sum(cell.state == state for cell in self.cells)

    @property
    def live(self) -> bool:
        """Whether anything is still to come."""
        return any(cell.live for cell in self.cells)

    def must_be_known(self, so: str) -> None:
        """Raises ValueError, with `so`, where Slurm does not say whether some of the cells are at work."""
        if self.slurm is not None and self.count("unknown"):
            raise ValueError(f"{self.slurm}; {so}")


@dataclass(frozen=True)
class _Place:
    """Where a cell was submitted last: the job that runs it, and how many cells the job has."""

    submission: Submission
    array: Array
    index: int


SUSPENDED = ("SUSPENDED", "STOPPED")
"""States of a job that has its nodes and does not run: its processes give no sign of life."""


def standing(out: Path, cells: Mapping[str, str], submissions: Sequence[Submission]) -> Standing:
    """How the cells (labels by key) stand that were submitted in these, oldest first, or were run by hand."""
    now = time.time()
    places: dict[str, list[_Place]] = {key: [] for key in cells}
    for submission in submissions:
        for array, index, keys in submission.jobs():
            for key in keys:
                if key in places:
                    places[key].append(_Place(submission, array, index))
    problems: list[str] = []
    records = {key: _record(out, key, problems) for key in cells}
    open_places = {
        key: found[-1]
        for key, found in places.items()
        if found and not ((record := records[key]) and _final(record, found[-1].submission))
    }
    jobs, slurm, unaccounted = _jobs(list(open_places.values()))
    states = []
    for key, label in cells.items():
        made, damaged = attempts(out / key)
        problems += damaged
        place, record = open_places.get(key), records[key]
        job = None if place is None else jobs.get((place.array.name, place.index))
        if place is not None and (job is None or not job.alive):
            # Between the look at the disk and the look at Slurm it may have come to its end.
            record = _record(out, key, [])
            if record is not None and _final(record, place.submission):
                place = None
        if place is None and record is None and not made:
            states.append(CellState(key, label, "unsubmitted"))
        else:
            asked = place is not None and (slurm is None or place.submission.cluster.is_local)
            whole = record if place is None else None
            states.append(_state(key, label, whole, made, place, job, asked, unaccounted, now))
    return Standing(states, problems, slurm)


def of_folder(out: Path) -> dict[str, str]:
    """Labels by key of all cells that were ever begun in an output folder, by whatever command."""
    found = {}
    for folder in sorted(out.glob(f"*/{FOLDER}")):
        made, _ = attempts(folder.parent)
        if made:
            found[folder.parent.name] = made[-1].label
    return found


def _state(
    key: str,
    label: str,
    record: Record | None,
    made: list[Sidecar],
    place: _Place | None,
    job: Job | None,
    asked: bool,
    unaccounted: str | None,
    now: float,
) -> CellState:
    last = made[-1] if made else None
    id = last.job if last is not None else None
    if place is not None:
        id = place.array.job_id(place.index) or (job.id if job is not None else None)
    # A command that took over from a job which is gone is in none.
    by_hand = last is not None and not last.job and last.alive(now) and (job is None or not job.alive)
    facts = CellState(
        key,
        label,
        "unknown",
        job=None if by_hand else id,
        attempts=len(made),
        interrupted=sum(each.interrupted for each in made if each is not last or not each.alive(now)),
    )
    if record is not None:
        return _with(facts, record.status, record.reason)  # type: ignore[arg-type]
    # A sign of life may be younger than its process's death, which Slurm knows of.
    away = job is None or not job.alive or job.pending
    gone = asked and place is not None and away and (last is None or last.job == id)
    suspended = asked and job is not None and job.state in SUSPENDED
    if last is not None and last.alive(now) and not gone and not suspended:
        return _with(facts, "running", last.text, last, now)
    if place is None:
        assert last is not None
        hint = "" if "the same command" in _end(last, now) else "; the command that began it goes on with it"
        return _with(facts, "dropped", _end(last, now) + hint)
    if not asked:
        return _with(facts, "unknown", "" if last is None else _end(last, now))
    if job is not None and job.pending:
        # What a run that was stopped tells a user to do, Slurm does.
        before = "" if last is None or last.job != id else _end(last, now).partition("; the same command")[0]
        again = before and f"; before: {before}"
        lets_go = "; attention-bench resume lets it go" if held(job) else ""
        return _with(replace(facts, held=held(job)), "pending", words(job) + lets_go + again)
    if job is not None and job.state in SUSPENDED:
        return _with(facts, "running", words(job), last, now)
    if job is not None and job.alive:
        if last is not None and last.job == id and last.ended is None:
            return _with(facts, "running", f"no sign of life for {now - last.beat:.0f} s on {last.host}", last, now)
        cells = len(place.array.jobs[place.index])
        return _with(
            facts,
            "pending",
            f"its job starts, or is at others of its {cells} cells" if cells > 1 else "its job starts",
        )
    if key in place.submission.cancelled or (job is not None and job.state == "CANCELLED"):
        by = " by you" if key in place.submission.cancelled or job is None else words(job).removeprefix("cancelled")
        return _with(facts, "cancelled", f"cancelled{by}; attention-bench resume submits it again")
    if place.submission.cluster.is_local:
        why = "its process has ended"
    elif job is not None:
        why = f"its job {words(job)}"
    elif place.array.id is None:
        why = "it did not reach Slurm"
    else:
        untold = f", and how it ended is not told ({unaccounted})" if unaccounted else ""
        why = f"Slurm knows its job no more{untold}"
    return _with(facts, "dropped", f"{why}; attention-bench resume submits it again")


def _with(facts: CellState, state: State, detail: str, last: Sidecar | None = None, now: float = 0.0) -> CellState:
    values = (
        {}
        if last is None
        else {
            "epoch": last.epoch,
            "epochs": last.epochs,
            "step": last.step,
            "steps": last.steps,
            "images_per_s": last.images_per_s,
            "left_s": last.left_s,
            "beat_age_s": round(now - last.beat, 1),
        }
    )
    return CellState(**{**vars(facts), "state": state, "detail": detail, **values})


def _end(last: Sidecar, now: float) -> str:
    """How an attempt came to its end, in words."""
    if last.ended is not None:
        return last.ended
    return f"no sign of life for {now - last.beat:.0f} s (process {last.pid} on {last.host})"


def _record(out: Path, key: str, problems: list[str]) -> Record | None:
    """The record of a cell, if it is there and whole; a line is added to `problems` if it is damaged."""
    path = out / f"{key}.json"
    try:
        return results.read(path)
    except ValueError as problem:
        if path.exists():
            problems.append(f"{problem}; its cell counts as not recorded")
        return None


def _final(record: Record, submission: Submission) -> bool:
    """Whether a record ends the matter: a failure that is older than the last submission is being tried again."""
    return record.status == "done" or record.created != submission.failed.get(record.key)


def _jobs(places: Sequence[_Place]) -> tuple[dict[tuple[str, int], Job], str | None, str | None]:
    """What is known of the jobs of these places, by array name and index; why squeue, and why sacct, did not tell."""
    found: dict[tuple[str, int], Job] = {}
    wanted: dict[str, set[int]] = {}
    for place in places:
        name, index = place.array.name, place.index
        if not place.submission.cluster.is_local:
            wanted.setdefault(name, set()).add(index)
        elif (job := local_job(name, index, place.array.job_id(index))) is not None:
            found[name, index] = job
    queue = ask(wanted)
    for name, jobs in queue.jobs.items():
        found |= {(name, index): job for index, job in jobs.items()}
    return found, queue.unreachable, queue.unaccounted
