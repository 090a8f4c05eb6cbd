"""Submitting cells, submitting again what was dropped or has failed, and cancelling."""

from __future__ import annotations

import fcntl
import json
import pickle
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import results
from attentions import load_file, loaded_files
from harness.cells import Cell, Evaluate, Train
from harness.images.sources import glance
from harness.jobs import submissions
from harness.jobs.plan import Allocation, arrays, on_gpu, plan, slots
from harness.jobs.states import CellState, State, standing
from harness.jobs.submissions import Array, Submission
from harness.jobs.work import CellsJob
from harness.process.environment import CHECKOUT, PACKAGES, ROOT, check_device, checkout, cores, gpus
from harness.runner.records import ended_at, recorded
from harness.runner.run_all import check_needs
from slurm import Cluster, cancel, cancel_local, check, limits, release, snapshot, submit_array, submit_local

CELLS = "cells.pickle"

DROPPED: tuple[State, ...] = ("dropped", "cancelled")
"""States of cells that were submitted, and that nothing will be done about unless they are submitted again."""

FAILED: tuple[State, ...] = ("failed", "oom")


@dataclass(frozen=True)
class Choice:
    """Which of the cells are to be submitted, and how all of them stand."""

    cells: list[Cell]
    states: dict[str, CellState]
    waited_for: dict[str, str]  # ids of the jobs that record what some of the cells need


def choose(cells: Sequence[Cell], out: Path, *, failed: bool = False) -> Choice:
    """Those that are neither recorded nor at work; with `failed`, those that have failed, and no others.

    What has failed without having been submitted was run by hand, and is asked for anew.

    Raises ValueError where it cannot be known whether some are at work, and for a cell whose weights nobody makes.
    """
    known, problems = submissions.read_all(out)
    if problems:
        raise ValueError(f"{problems[0]}: what it submitted may be at work; mend or remove its folder")
    needed = {cell.takes.run: cell.takes.label for cell in cells if cell.takes is not None}
    stand = standing(out, needed | {cell.key: cell.label for cell in cells}, known)
    stand.must_be_known("some of the cells were submitted, and may be at work")
    states = {state.key: state for state in stand.cells}
    submitted = {key for submission in known for key in submission.submitted}

    def wanted(cell: Cell) -> bool:
        state = states[cell.key].state
        if state in FAILED:
            return failed or cell.key not in submitted
        return not failed and state in ("unsubmitted", *DROPPED)

    # A training that ran out of memory may be split otherwise this time; what else did is recorded.
    chosen = [cell for cell in cells if wanted(cell) and recorded(cell, out) is None]
    keys = {cell.key for cell in chosen}
    # For the processes of this machine no job can be made to wait.
    here = _of_this_machine(known)
    waited_for = {
        key: str(states[key].job)
        for cell in chosen
        for key in cell.needs
        if key not in keys and states[key].live and states[key].job not in {None, *here}
    }
    check_needs(chosen, out, waited_for)
    _check_images(chosen)
    return Choice(chosen, {cell.key: states[cell.key] for cell in cells}, waited_for)


def _check_images(cells: Sequence[Cell]) -> None:
    """Raises ValueError for images that are not there."""
    for source in dict.fromkeys(cell.task.data for cell in cells if isinstance(cell.task, Train)):
        glance(source, "train", "val")
    for source in dict.fromkeys(cell.task.data for cell in cells if isinstance(cell.task, Evaluate)):
        glance(source, "val")


def planned(choice: Choice, cluster: Cluster) -> list[list[Allocation]]:
    """The arrays that `submit` would submit; on this machine, what each process does one after the other.

    Raises ValueError, in one line, for what could never run on the cluster.
    """
    allocations = plan(choice.cells, cluster, choice.waited_for)
    if cluster.is_local:
        if on_gpu(allocations):
            check_device("cuda")
        if choice.waited_for:
            jobs = ", ".join(sorted(set(choice.waited_for.values())))
            raise ValueError(
                f"some cells need trainings that are under way (job {jobs}), for which nothing on this machine waits: "
                "submit them to the same cluster, or when these are done"
            )
        return slots(allocations, cluster)
    most = limits(cluster)
    for each in dict.fromkeys(allocation.resources for allocation in allocations):
        check(
            cluster,
            most,
            nodes=each.nodes,
            tasks_per_node=each.tasks_per_node,
            cpus_per_task=each.cpus_per_task,
            gpus_per_node=each.gpus_per_node,
        )
    return arrays(allocations, most.max_array_size)


def submit(
    choice: Choice,
    planned_arrays: Sequence[Sequence[Allocation]],
    cluster: Cluster,
    out: Path,
    sweep: str,
    like: Submission | None = None,
) -> Submission:
    """Submits the cells; `like`: with the code of that submission rather than with the code as it is now.

    Raises ValueError, in one line, if Slurm refuses or the folder cannot be written; what was submitted until then is
    written down.
    """
    out = out.resolve()
    code, files, originals = _code(out) if like is None else (like.code, like.files, like.originals)
    failed = {cell.key: ended for cell in choice.cells if (ended := ended_at(cell.key, out)) is not None}
    name = submissions.name_of(sweep)
    named = [_array(f"{name}.{number}", array, cluster) for number, array in enumerate(planned_arrays)]
    cells = {key: state.label for key, state in choice.states.items()}
    folder = out / submissions.FOLDER / name
    submission = Submission(folder, sweep, cluster, time.time(), code, files, originals, cells, failed, named)
    results.write_bytes(folder / CELLS, pickle.dumps(choice.cells))
    submission.write()
    jobs = dict(choice.waited_for)
    for number, array in enumerate(planned_arrays):
        works = [CellsJob(pickle.dumps(list(each.cells)), files, out, failed) for each in array]
        resources = array[0].resources
        try:
            if cluster.is_local:
                visible = [gpus()[number]] if on_gpu(array) else []
                cpus = max(1, cores() // len(planned_arrays))
                id = submit_local(works, folder=folder, code=code, cpus=cpus, gpus=visible)
            else:
                id = submit_array(
                    works,
                    name=named[number].name,
                    folder=folder,
                    code=code,
                    cluster=cluster,
                    resources=resources,
                    after=[jobs[key] for key in array[0].after],
                )
        except ValueError as problem:
            if number == 0:
                shutil.rmtree(folder)
                raise
            raise ValueError(
                f"{problem}; {number} of {len(named)} arrays are submitted: ask again for the rest"
            ) from None
        named[number] = replace(named[number], id=id)
        jobs |= {key: str(named[number].job_id(index)) for index, keys in enumerate(named[number].jobs) for key in keys}
        submission.write()
    return submission


def of_submission(submission: Submission, *, as_now: bool) -> list[Cell]:
    """Its cells; `as_now`: with the user's files as they are now rather than as they were.

    Raises ValueError if they cannot be read, the copy of the code is gone, or the user's tasks have changed since.
    """
    if not (as_now or submission.code.is_dir()):
        raise ValueError(
            f"the code that sweep {submission.sweep} was submitted with is gone ({submission.code}): submit it again, "
            "which takes the code as it is, and submits what is missing"
        )
    for file in submission.originals if as_now else submission.files:
        load_file(file)
    path = submission.folder / CELLS
    try:
        return pickle.loads(path.read_bytes())
    except (AttributeError, ImportError) as problem:
        raise ValueError(
            f"the tasks of sweep {submission.sweep} have changed since it was submitted ({problem}): remove the "
            "records of those that failed, and submit it again"
        ) from problem
    except (OSError, pickle.UnpicklingError, EOFError, LookupError) as problem:
        raise ValueError(f"{path} cannot be read: {problem}") from problem


def withdraw(states: Iterable[CellState], known: Sequence[Submission]) -> list[str]:
    """Cancels the jobs that the live ones of these cells are submitted in, and notes it; the ids of these jobs.

    Raises ValueError if Slurm does not answer.
    """
    jobs = dict.fromkeys(state.job for state in states if state.live and state.job is not None)
    here = _of_this_machine(known)
    if ours := [id for id in jobs if id not in here]:
        cancel(ours)
    cancel_local(id for id in jobs if id in here)
    for submission in known:
        held = [key for array, index, keys in submission.jobs() if array.job_id(index) in jobs for key in keys]
        if held:
            replace(submission, cancelled=sorted({*submission.cancelled, *held})).write()
    return list(jobs)


def let_go(states: Iterable[CellState]) -> list[str]:
    """Releases the jobs of these cells that Slurm holds; their ids.

    Raises ValueError if Slurm does not answer or refuses.
    """
    jobs = list(dict.fromkeys(state.job for state in states if state.held and state.job is not None))
    release(jobs)
    return jobs


def _of_this_machine(known: Sequence[Submission]) -> set[str | None]:
    """The ids of the jobs that are processes of this machine."""
    return {array.job_id(index) for each in known if each.cluster.is_local for array, index, _ in each.jobs()}


@contextmanager
def alone(out: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Keeps two shells from submitting the same cells at a time; the second one waits, and `warn`s that it does."""
    folder = out / submissions.FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w")  # noqa: SIM115
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waits = f"another command submits or cancels in {out}: this one goes on when that has ended"
            warn(waits)
            fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as problem:
        raise ValueError(f"cannot write to the output folder {out}: {problem.strerror}") from problem
    with lock:
        yield


def _array(name: str, allocations: Sequence[Allocation], cluster: Cluster) -> Array:
    jobs = [[cell.key for cell in allocation.cells] for allocation in allocations]
    if cluster.is_local:
        jobs = [[key for keys in jobs for key in keys]]
    return Array(name, jobs, asdict(allocations[0].resources), list(allocations[0].after))


def _code(out: Path) -> tuple[Path, tuple[Path, ...], tuple[Path, ...]]:
    """A copy of the code as it is now; the user's own files in it; where these lie."""
    commit, dirty = checkout(ROOT)
    files = {CHECKOUT: (json.dumps({"commit": commit, "dirty": dirty}) + "\n").encode()}
    originals = loaded_files()
    users = {f"user/{number}/{file.name}": file.read_bytes() for number, file in enumerate(originals)}
    copy = snapshot(ROOT, PACKAGES, out / submissions.FOLDER / submissions.CODE, files | users)
    return copy, tuple(copy / name for name in users), tuple(originals)
