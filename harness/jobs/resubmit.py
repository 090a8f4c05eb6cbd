"""Resubmitting cells of former submissions: what was dropped or cancelled (resume), or has failed (retry)."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from pathlib import Path

import slurm
from attentions import load_file, temporary_registry
from harness.cells import Cell
from harness.jobs import submissions
from harness.jobs.launch import DROPPED, FAILED, Look, choose, planned, submit
from harness.jobs.lock import submission_lock
from harness.jobs.states import CellState, look_at
from harness.jobs.submissions import Submission


def resubmit(
    sweep: str | None,
    out: Path,
    *,
    failed: bool,
    warn: Callable[[str], None],
    on_release: Callable[[list[str]], None],
    on_submit: Callable[[Submission], None],
) -> None:
    """Submit the dropped and cancelled cells of a sweep (None: of all) again; with `failed`, the failed ones.

    Dropped cells run the code of then, and jobs that Slurm holds are released; failed cells run the code of now.
    `on_release` is told the ids of released jobs, if any, and `on_submit` each submission, as soon as it is made.

    Raises ValueError if there is no such submission, if Slurm does not answer or refuses, and as `choose` does.
    """
    asked = submissions.find_submissions(sweep, out, warn)
    _look(asked, out, failed)  # a command that is refused leaves no lock behind
    with submission_lock(out, warn):
        look = _look(asked, out, failed)
        former = look.submissions
        states = look.of(submissions.labels_of(asked)).cells
        if not failed and (released := release_held(states)):
            on_release(released)
        wanted = {state.key for state in states if state.state in (FAILED if failed else DROPPED)}
        # Another sweep may have submitted some of the cells again: the last submission of a cell counts.
        last = {key: submission for submission in former for key in submission.submitted}
        for submission in former:
            keys = {key for key in wanted if last.get(key) is submission}
            if not keys:
                continue
            # Each with its own version of the user's files: those of another submission may differ.
            with temporary_registry():
                cells = [cell for cell in cells_of(submission, as_now=failed) if cell.key in keys]
                choice = choose(cells, look, failed=failed)
                if arrays := planned(choice, submission.cluster):
                    like = None if failed else submission
                    made = submit(choice, arrays, submission.cluster, out, submission.sweep, like)
                    # Cells of the next submission may wait for trainings of this one.
                    look = look.after(made)
                    on_submit(made)


def _look(asked: list[Submission], out: Path, failed: bool) -> Look:
    """Look at the cells of all submissions: what is resubmitted may need a training of another sweep.

    Raises ValueError where Slurm does not say whether some of the cells asked for are running.
    """
    known, damaged = submissions.read_all(out)
    look = Look(out, known, damaged, look_at(out, submissions.labels_of(known), known))
    if not failed:
        look.of(submissions.labels_of(asked)).must_be_known("some of the cells may be running; nothing is submitted")
    return look


def cells_of(submission: Submission, *, as_now: bool) -> list[Cell]:
    """Return its cells; with `as_now`, with the user's files as they are now rather than as they were.

    Raises ValueError if they cannot be read, the copy of the code is gone, or the user's tasks have changed since.
    """
    if not (as_now or submission.code.is_dir()):
        raise ValueError(
            f"the code that sweep {submission.sweep} was submitted with is gone ({submission.code}): submit it again, "
            "which uses the code as it is now and submits what is missing"
        )
    for file in submission.originals if as_now else submission.files:
        load_file(file)
    path = submission.folder / submissions.CELLS
    try:
        return pickle.loads(path.read_bytes())
    except (AttributeError, ImportError) as problem:
        raise ValueError(
            f"the tasks of sweep {submission.sweep} have changed since it was submitted ({problem}): remove the "
            "records of those that failed, and submit it again"
        ) from problem
    except (OSError, pickle.UnpicklingError, EOFError, LookupError) as problem:
        raise ValueError(f"{path} cannot be read: {problem}") from problem


def release_held(states: Iterable[CellState]) -> list[str]:
    """Release the jobs of these cells that Slurm holds, and return their ids.

    Raises ValueError if Slurm does not answer or refuses.
    """
    jobs = list(dict.fromkeys(state.job for state in states if state.held and state.job is not None))
    slurm.release(jobs)
    return jobs
