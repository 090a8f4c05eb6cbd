"""Submitting cells: which of them, in which arrays, and what is written down before Slurm is asked to run them."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import results
import slurm
from attentions import copied_files, loaded_files
from harness.cells import Cell, Evaluate, Train
from harness.estimates.memory import GIB, need_of, room_of
from harness.images.sources import check_present
from harness.jobs import submissions
from harness.jobs.lock import submission_lock
from harness.jobs.plan import Allocation, arrays, on_gpu, plan, slots
from harness.jobs.states import CellState, Standing, State, look_at
from harness.jobs.submissions import Array, Submission
from harness.jobs.work import CellsJob
from harness.process.environment import CHECKOUT, PACKAGES, ROOT, check_device, checkout, cores, gpus
from harness.process.waiting import IN_SHELL, wait_policy
from harness.runner.checks import check_needs, check_runtimes
from harness.runner.records import is_disturbed, set_aside, settles
from results.wording import count
from slurm import Cluster

DROPPED: tuple[State, ...] = ("dropped", "cancelled")
"""States of cells that were submitted, and will not run unless they are submitted again."""

FAILED: tuple[State, ...] = ("failed", "oom")


@dataclass(frozen=True)
class Look:
    """What one look at an output folder and at Slurm has found: its submissions, and the states of cells."""

    out: Path
    submissions: list[Submission]
    damaged: list[str]  # a line for each submission whose file is
    standing: Standing

    def of(self, labels: Mapping[str, str]) -> Standing:
        """Return the states of these cells (labels by key). Slurm is not asked again for cells in no submission."""
        seen = {state.key: state for state in self.standing.cells}
        unseen = {key: label for key, label in labels.items() if key not in seen}
        new = look_at(self.out, unseen, self.submissions)
        seen |= {state.key: state for state in new.cells}
        records = {**self.standing.records, **new.records}
        return replace(self.standing, cells=[seen[key] for key in labels], records=records)

    def after(self, submission: Submission) -> Look:
        """Return what another look would find after this submission: its cells are pending in its jobs."""
        jobs = {key: array.job_id(index) for array, index, keys in submission.jobs() for key in keys}
        cells = [
            CellState(state.key, state.label, "pending", job=jobs[state.key]) if state.key in jobs else state
            for state in self.standing.cells
        ]
        return replace(self, submissions=[*self.submissions, submission], standing=replace(self.standing, cells=cells))


@dataclass(frozen=True)
class Choice:
    """Which of the cells are to be submitted, and the states of all of them."""

    cells: list[Cell]
    states: dict[str, CellState]
    waited_for: dict[str, str]  # ids of the jobs that record what some of the cells need
    failed: dict[str, str]  # when those of the cells had failed that are tried again


def look_for(cells: Sequence[Cell], out: Path) -> Look:
    """Look at the states of these cells, and of the trainings whose weights they need."""
    known, damaged = submissions.read_all(out)
    return Look(out, known, damaged, look_at(out, _labels(cells), known))


def choose(cells: Sequence[Cell], look: Look, *, failed: bool = False, retry_disturbed: bool = False) -> Choice:
    """Choose the cells that are neither recorded, running nor waiting; with `failed`, those that have failed instead.

    With `retry_disturbed`, a record of a disturbed measurement does not count. A cell that failed without having been
    submitted was run by hand, and is chosen in both cases.

    Raises ValueError where it cannot be known whether some are running, for a cell whose weights nothing makes, and for
    one of a runtime that is not installed here.
    """
    if look.damaged:
        raise ValueError(f"{look.damaged[0]}: what it submitted may be running; mend or remove its folder")
    standing = look.of(_labels(cells))
    standing.must_be_known("some of the cells were submitted, and may be running")
    states = {state.key: state for state in standing.cells}
    submitted = {key for submission in look.submissions for key in submission.submitted}

    def is_wanted(cell: Cell) -> bool:
        state, record = states[cell.key].state, standing.records.get(cell.key)
        # A training that ran out of memory may be split otherwise this time; what else did is recorded.
        if record is not None and settles(record, cell):
            return retry_disturbed and is_disturbed(record, cell)
        if state in FAILED:
            return failed or cell.key not in submitted
        return not failed and state in ("unsubmitted", *DROPPED)

    chosen = [cell for cell in cells if is_wanted(cell)]
    keys = {cell.key for cell in chosen}
    # No job can be made to wait for the processes of this machine.
    here = local_ids(look.submissions)
    waited_for = {
        key: str(states[key].job)
        for cell in chosen
        for key in cell.needs
        if key not in keys and states[key].live and states[key].job not in {None, *here}
    }
    check_needs(chosen, look.out, waited_for)
    check_runtimes(chosen)
    _check_images(chosen)
    return Choice(
        chosen,
        {cell.key: states[cell.key] for cell in cells},
        waited_for,
        {key: standing.records[key].created for key in keys if key in standing.records},
    )


def _labels(cells: Sequence[Cell]) -> dict[str, str]:
    """Return the labels by key of the cells and of the trainings whose weights they need."""
    needed = {cell.takes.run: cell.takes.label for cell in cells if cell.takes is not None}
    return needed | {cell.key: cell.label for cell in cells}


def local_ids(known: Sequence[Submission]) -> set[str | None]:
    """Return the ids of the jobs that are processes of this machine."""
    return {array.job_id(index) for each in known if each.cluster.is_local for array, index, _ in each.jobs()}


def _check_images(cells: Sequence[Cell]) -> None:
    """Raise ValueError for images that are missing."""
    for source in dict.fromkeys(cell.task.data for cell in cells if isinstance(cell.task, Train)):
        check_present(source, "train", "val")
    for source in dict.fromkeys(cell.task.data for cell in cells if isinstance(cell.task, Evaluate)):
        check_present(source, "val")


def planned(
    choice: Choice, cluster: Cluster, over_memory: Callable[[str], None] | None = None
) -> list[list[Allocation]]:
    """Return the arrays to submit; on this machine, what each process runs, one allocation after the other.

    Raises ValueError, in one line, for what could never run on the cluster.
    """
    allocations = plan(choice.cells, cluster, choice.waited_for)
    if cluster.is_local:
        if on_gpu(allocations):
            check_device("cuda")
        if choice.waited_for:
            jobs = ", ".join(sorted(set(choice.waited_for.values())))
            raise ValueError(
                f"some cells need trainings that are not finished (job {jobs}), and processes of this machine cannot "
                "wait for a job of Slurm: submit them to the same cluster, or when these trainings are done"
            )
        return slots(allocations, cluster)
    limits = slurm.limits_of(cluster)
    for resources in dict.fromkeys(allocation.resources for allocation in allocations):
        slurm.check_fits(cluster, limits, resources)
    check_memory(allocations, cluster, over_memory)
    return arrays(allocations, limits.max_array_size)


def check_memory(
    allocations: Iterable[Allocation], cluster: Cluster, over_memory: Callable[[str], None] | None = None
) -> None:
    """Raise ValueError, in one line, for a cell that is estimated to need more memory than a GPU of the cluster has.

    `over_memory`: gets one line on all such cells instead, if there are any.
    """
    if cluster.gpu_memory_gb is None:
        return
    room = room_of(cluster.gpu_memory_gb)
    needs = [
        (need, cell.label)
        for allocation in allocations
        for cell in allocation.cells
        if cell.device == "cuda" and (need := need_of(cell, allocation.resources.processes)) > room
    ]
    if not needs:
        return
    need, label = needs[0] if over_memory is None else max(needs)
    estimate = (
        f"{label} needs about {need / GIB:.1f} GiB on a GPU, and of the {cluster.gpu_memory_gb:g} GiB of cluster "
        f"{cluster.name} {room / GIB:.1f} are for tensors (estimated, unchecked on CUDA)"
    )
    if over_memory is None:
        raise ValueError(f"{estimate}: give it a smaller batch, or submit --ignore-memory submits it all the same")
    beside = f"; {count(len(needs), 'cell')} like this" if len(needs) > 1 else ""
    over_memory(f"{estimate}: submitted all the same{beside}")


def submit_alone(
    cells: Sequence[Cell],
    cluster: Cluster,
    out: Path,
    sweep: str,
    warn: Callable[[str], None],
    *,
    retry_disturbed: bool = False,
    ignore_memory: bool = False,
) -> tuple[Choice, Submission | None]:
    """Submit what is missing of these cells, one shell at a time; return the choice, and None if nothing is missing.

    With `ignore_memory`, a cell that is estimated not to fit on a GPU is submitted with a warning.

    Raises ValueError, in one line, as `choose`, `planned` and `submit` do; before the lock is taken if possible, so
    that a refused command leaves no file behind.
    """
    choice = choose(cells, look_for(cells, out), retry_disturbed=retry_disturbed)
    over_memory = warn if ignore_memory else None
    arrays = planned(choice, cluster, over_memory)
    if not arrays:
        return choice, None
    # `resume` asks the table of the submission: what was let through once is let through again.
    kept = replace(cluster, gpu_memory_gb=None) if ignore_memory else cluster
    with submission_lock(out, warn):
        # Another shell may have submitted some of them meanwhile.
        again = choose(cells, look_for(cells, out), retry_disturbed=retry_disturbed)
        if (again.cells, again.waited_for) != (choice.cells, choice.waited_for):
            arrays = planned(again, cluster, over_memory)
        if not arrays:
            return again, None
        with set_aside(again.cells, out):
            return again, submit(again, arrays, kept, out, sweep)


def submit(
    choice: Choice,
    planned_arrays: Sequence[Sequence[Allocation]],
    cluster: Cluster,
    out: Path,
    sweep: str,
    like: Submission | None = None,
) -> Submission:
    """Submit the cells; with `like`, run the code of that submission rather than the code as it is now.

    Raises ValueError, in one line, if Slurm refuses or the folder cannot be written, or if it is not known whether
    Slurm has queued an array; what was submitted until then, or may have been, is written down.
    """
    out = out.resolve()
    code, files, originals = _code(out) if like is None else (like.code, like.files, like.originals)
    name = submissions.name_of(sweep)
    named = [_array(f"{name}.{number}", array, cluster) for number, array in enumerate(planned_arrays)]
    labels = {key: state.label for key, state in choice.states.items()}
    folder = out / submissions.FOLDER / name
    submission = Submission(
        *(folder, sweep, cluster, time.time(), code, files, originals, labels, choice.failed, named),
        slurm_cluster=None if cluster.is_local else slurm.chosen_cluster(),
    )
    results.write_bytes(folder / submissions.CELLS, pickle.dumps(choice.cells))
    submission.write()
    jobs = dict(choice.waited_for)
    for number, allocations in enumerate(planned_arrays):
        cpus = max(1, cores() // len(planned_arrays))  # of each process, on this machine
        try:
            id = _start(submission, number, allocations, [jobs[key] for key in allocations[0].after], cpus)
        except slurm.Unconfirmed as problem:
            # The submission is kept, as the next look finds the jobs by their name if they are queued after all.
            raise slurm.Unconfirmed(
                f"{problem}; {number} of {len(named)} arrays are submitted: the same command asks for the next one "
                "again, and submits what is not queued"
            ) from None
        except ValueError as problem:
            if number == 0:
                shutil.rmtree(folder)
                raise
            raise ValueError(
                f"{problem}; {number} of {len(named)} arrays are submitted: the same command submits the others"
            ) from None
        named[number] = replace(named[number], id=id)
        jobs |= {key: str(named[number].job_id(index)) for index, keys in enumerate(named[number].jobs) for key in keys}
        submission.write()
    return submission


def _start(
    submission: Submission, number: int, allocations: Sequence[Allocation], after: Sequence[str], cpus: int
) -> str:
    """Hand one array over to Slurm, or to a process of this machine, and return its id."""
    out, folder = submission.folder.parents[1], submission.folder
    works = [CellsJob(pickle.dumps(list(each.cells)), submission.files, out, submission.failed) for each in allocations]
    if submission.cluster.is_local:
        visible = [gpus()[number]] if on_gpu(allocations) else []
        return slurm.submit_local(
            works, folder=folder, code=submission.code, cpus=cpus, gpus=visible, variables=wait_policy(os.environ)
        )
    return slurm.submit_array(
        works,
        name=submission.arrays[number].name,
        folder=folder,
        code=submission.code,
        cluster=submission.cluster,
        resources=allocations[0].resources,
        after=after,
        exports=[IN_SHELL],
    )


def _array(name: str, allocations: Sequence[Allocation], cluster: Cluster) -> Array:
    """What submission.json says of an array; on this machine, all its allocations are one job."""
    jobs = [[cell.key for cell in allocation.cells] for allocation in allocations]
    if cluster.is_local:
        jobs = [[key for keys in jobs for key in keys]]
    return Array(name, jobs, asdict(allocations[0].resources), list(allocations[0].after))


def _code(out: Path) -> tuple[Path, tuple[Path, ...], tuple[Path, ...]]:
    """Copy the code as it is now; return the copy, the user's own files in it, and the originals of these."""
    commit, dirty = checkout(ROOT)
    files = {CHECKOUT: (json.dumps({"commit": commit, "dirty": dirty}) + "\n").encode()}
    originals = loaded_files()
    loaded = []
    for number, file in enumerate(originals):
        copies = {f"user/{number}/{name}": each.read_bytes() for name, each in copied_files(file).items()}
        loaded.append(next(iter(copies)))
        files |= copies
    copy = slurm.copy_code(ROOT, PACKAGES, out / submissions.FOLDER / submissions.CODE, files)
    return copy, tuple(copy / name for name in loaded), tuple(originals)
