"""Cancelling the jobs of cells that are running or waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import slurm
from harness.jobs import submissions
from harness.jobs.launch import local_ids
from harness.jobs.lock import submission_lock
from harness.jobs.states import CellState, Standing, look_at
from harness.jobs.submissions import Submission


def cancel(
    sweep: str | None,
    out: Path,
    select: Callable[[list[CellState]], list[CellState]],
    warn: Callable[[str], None],
) -> tuple[list[str], int]:
    """Cancel the jobs of the selected cells of a sweep (None: of all), as far as its own submissions run them.

    Returns the ids of the jobs, and the number of unfinished cells in these jobs, which may be more than those
    selected. Raises ValueError if there is no such submission, or if Slurm does not answer or refuses.
    """

    def look() -> tuple[list[Submission], Standing, list[CellState]]:
        asked = submissions.find_submissions(sweep, out, warn)
        submitted = {key for submission in asked for key in submission.submitted}
        labels = {key: label for key, label in submissions.labels_of(asked).items() if key in submitted}
        standing = look_at(out, labels, asked)
        selected = select(standing.cells)
        replace(standing, cells=selected).must_be_known("nothing is cancelled")
        return asked, standing, selected

    look()  # a command that is refused leaves no lock behind
    with submission_lock(out, warn):
        asked, standing, selected = look()
        ids = withdraw(selected, asked)
    return ids, sum(state.live and state.job in ids for state in standing.cells)


def withdraw(states: Iterable[CellState], known: Sequence[Submission]) -> list[str]:
    """Cancel the jobs of those of these cells that are live, note it in the submissions, and return the jobs' ids.

    Raises ValueError if Slurm does not answer.
    """
    found = {state.key: state.job for state in states if state.live and state.job is not None}
    jobs = dict.fromkeys(found.values())
    here = local_ids(known)
    if ours := [id for id in jobs if id not in here]:
        slurm.cancel(ours)
    slurm.cancel_local(id for id in jobs if id in here)
    for submission in known:
        ended = [
            key
            for array, index, keys in submission.jobs()
            # Of an array whose id was not written down, the job was found by its name.
            if (array.job_id(index) in jobs if array.id is not None else any(key in found for key in keys))
            for key in keys
        ]
        if ended:
            replace(submission, cancelled=sorted({*submission.cancelled, *ended})).write()
    return list(jobs)
