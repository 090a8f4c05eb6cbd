"""Running cells in this process: what is recorded is not measured again, what fails is a record too.

Under a launcher, several processes run the same cells together (see `harness.process.ranks`): the first one decides and
writes.
"""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import results
from attentions import source_digest
from harness.cells import Cell, Costs, Evaluate, Metrics, Speed, Train, in_order
from harness.cells.recipe import split_batch
from harness.images.batches import train_order
from harness.images.sources import open_splits, open_val
from harness.measures.costs import count
from harness.measures.speed import measure_backbone
from harness.process.attempts import Attempt, NoAttempt
from harness.process.environment import environment
from harness.process.errors import first_line, is_out_of_memory
from harness.process.ranks import lost_peer, ranks
from harness.process.stopping import Stopped, TakenOver
from harness.progress import CellProgress
from harness.training.evaluation import evaluate_weights
from harness.training.loading import located
from harness.training.loop import summary_writer, train
from results import Record
from results.tables import SOURCE
from slurm import JobDied, call_apart

FINAL = ("done", "oom")
"""A record of another status is a failure of ours or of the machine: its cell runs again when asked for."""


def recorded(cell: Cell, out: Path) -> Record | None:
    """The final record of a cell in the folder `out`, or None."""
    record = _whole(cell, out)
    if record is None or record.status not in FINAL:
        return None
    # Whether a training fits depends on how its batch is split, which is no part of the key.
    return None if record.status == "oom" and isinstance(cell.task, Train) else record


def _whole(cell: Cell, out: Path) -> Record | None:
    """The record of a cell, unless its file is missing, damaged, or was altered to be of something else."""
    try:
        record = results.read(out / f"{cell.key}.json")
    except ValueError:
        return None
    return record if cell.equals(record.cell) else None


def run(cell: Cell, out: Path, report: Callable[[str], None]) -> Record:
    """The record of a cell: the one that is there, or a new one, written to `out`/<key>.json.

    An error in the cell becomes a record of status "failed" or "oom"; only KeyboardInterrupt, Stopped (also for
    a newer attempt at this cell that has begun meanwhile) and errors in writing pass through. The cell's own files go
    to the folder `out`/<key>.

    Where one of several processes fails, the others cannot go on: the error passes through as JobFailed, recorded, in
    that process, and as PeerLost in the others.
    """
    group = ranks()
    found = group.agreed(lambda: recorded(cell, out))
    if found is not None:
        return found
    if not group.first:
        return _measured(cell, out, report, NoAttempt())
    with Attempt(out / cell.key, cell.label) as attempt:

        def noted(text: str) -> None:
            attempt.note(text)
            report(text)

        return _measured(cell, out, noted, attempt)


def _measured(cell: Cell, out: Path, report: Callable[[str], None], attempt: Attempt | NoAttempt) -> Record:
    group = ranks()
    status, error, metrics = "done", None, {}
    began = time.time()
    try:
        metrics = _metrics(cell, out / cell.key, report)
        metrics[f"{cell.task.name}_seconds"] = round(time.time() - began, 3)
    except Stopped:
        raise
    except Exception as problem:
        if group.world > 1 and lost_peer(problem):
            raise PeerLost(problem) from problem
        status = "oom" if is_out_of_memory(problem) else "failed"
        error = traceback.format_exc()
        if status == "oom" and isinstance(cell.task, Train):
            error += "the images of a step did not fit: --device-batch takes fewer at once, and accumulates\n"
    record = Record(cell.key, cell.to_json(), status, metrics, _circumstances(cell), error)
    if group.world > 1 and error is not None:
        path = out / f"{cell.key}.json"
        if attempt.check() and (not path.exists() or path.stat().st_mtime < began):  # the first of several errors
            results.write(out, record)
        attempt.end(outcome(record))
        raise JobFailed(outcome(record))
    if group.any(not attempt.check()):
        raise TakenOver(attempt)
    if group.first:
        _keep_damaged(cell, out)
        results.write(out, record)
        attempt.end(outcome(record))
    group.wait()
    return record


def _metrics(cell: Cell, folder: Path, report: Callable[[str], None]) -> Metrics:
    """Carry out the task of a cell; a task of the user's own carries itself out."""
    match cell.task:
        case Costs():
            return count(cell.backbone)
        case Speed() as task:
            return measure_backbone(cell.backbone, task, report)
        case Train() as task:
            return train(task, cell.backbone, folder, report)
        case Evaluate() as task:
            return evaluate_weights(task, cell.backbone, folder, report)
    return cell.task.run(cell.backbone, folder, report)


class JobFailed(RuntimeError):
    """A cell failed in one of several processes. It is recorded; the process ends with the exit status `status`."""

    status = 1


class PeerLost(RuntimeError):
    """Another process of the job is gone: it failed, and has recorded of what, or it was killed, or its node is lost.

    That is not the cell's failure. The process ends with the exit status `status`; the cell can be run again.
    """

    status = 1

    def __init__(self, problem: Exception) -> None:
        reason = first_line(problem)
        super().__init__(f"another process of the job is gone ({reason}); the same command goes on where it was")


def run_apart(cell: Cell, out: Path) -> Record:
    """As `run`, in a process of its own, whose death too is a record of status "failed"; its log is in `out`/logs."""
    try:
        return call_apart(partial(run, cell, out, print), out / "logs")
    except JobDied as problem:
        record = failure(cell, str(problem))
        results.write(out, record)
        return record


def failure(cell: Cell, error: str) -> Record:
    """The record of a cell that failed without a measurement."""
    return Record(cell.key, cell.to_json(), "failed", {}, _circumstances(cell), error)


def run_all(cells: Sequence[Cell], out: Path, console: Console, isolate: bool = False) -> list[Record]:
    """The records of all cells, in order; with `isolate`, each is measured in a process of its own.

    A cell that needs another is measured after it; if that one failed, it fails too, and the rest goes on.

    Raises:
        ValueError: before anything is measured, for a device, data or needed weights that are not there, or a folder
            that cannot be written.
    """
    group = ranks()
    todo = group.agreed(lambda: _to_do(cells, out, group.world))
    if len(todo) < len(cells):
        console.print(f"{len(cells) - len(todo)} of {len(cells)} cells are recorded in {out} already", highlight=False)
        for line in _of_other_code([cell for cell in cells if cell not in todo], out):
            console.print(line, highlight=False, soft_wrap=True)
    if todo:
        with CellProgress(len(todo), console) as progress:
            for cell in todo:
                progress.start(cell.label)
                progress.finish(outcome(run_apart(cell, out) if isolate else run(cell, out, progress.report)))
    return [results.read(out / f"{cell.key}.json") for cell in cells]


def _to_do(cells: Sequence[Cell], out: Path, world: int) -> list[Cell]:
    """The cells that are not recorded, in the order in which they are measured.

    Raises ValueError for what would keep them from being measured.
    """
    todo = in_order(cell for cell in cells if recorded(cell, out) is None)
    check_needs(todo, out)
    if any(cell.device == "cuda" for cell in todo) and not torch.cuda.is_available():
        raise ValueError("device cuda was asked for, and torch sees no CUDA device here; allowed is cpu")
    images: dict[tuple[object, ...], int] = {}  # by what is opened, which is done once for all cells that need the same
    for cell in todo:
        classes = cell.backbone.num_classes
        match cell.task:
            case Costs() | Speed() if world > 1:
                raise ValueError(f"a {cell.task.name} cell is measured by one process; {world} were started")
            case Train(data=source) as task:
                split_batch(task.recipe, world, task.device_batch)
                if ("train", source, classes) not in images:
                    images["train", source, classes] = len(open_splits(source, classes).train)
                train_order(task, images["train", source, classes])
                if task.tensorboard:
                    summary_writer()
            case Evaluate(data=source):
                if ("val", source, classes) not in images:
                    images["val", source, classes] = len(open_val(source, classes))
    check_writable(out)
    return todo


def _of_other_code(cells: Sequence[Cell], out: Path) -> list[str]:
    """A line for each attention that is recorded as its file was before. A key does not depend on code."""
    measured: dict[str, int] = {}
    for cell in cells:
        record, name = recorded(cell, out), cell.backbone.attention.name
        if record is not None and record.environment.get(SOURCE, source_digest(name)) != source_digest(name):
            measured[name] = measured.get(name, 0) + 1
    return [
        f"{number} of them with another version of {name} than there is now: with another --out they are measured again"
        for name, number in measured.items()
    ]


def check_needs(todo: Sequence[Cell], out: Path, elsewhere: Collection[str] = ()) -> None:
    """Raises ValueError for a cell that needs weights which are neither in `out` nor made by another of the cells.

    `elsewhere`: keys of trainings that are under way.
    """
    keys = {cell.key for cell in todo} | set(elsewhere)
    for cell in todo:
        if cell.takes is None or cell.takes.run in keys:
            continue
        try:
            located(cell.takes, out)
        except ValueError as problem:
            name = f"{cell.backbone.name} {cell.task.name}"
            raise ValueError(f"{name} {problem}; nor is that training among the cells to run") from problem


def outcome(record: Record) -> str:
    """One line: how a cell ended."""
    if record.error is not None:
        return f"{record.status}: {record.reason}"
    shown = ("params_m", "gmacs", "images_per_s", "train_step_ms_p50", "top1", "top1_stderr")
    numbers = (f"{name} {record.metrics[name]:.4g}" for name in shown if record.metrics.get(name) is not None)
    return f"{record.status}: {', '.join(numbers)}"


def _circumstances(cell: Cell) -> dict[str, Any]:
    """Where it was measured, and the code of the attention under test, whose certificate may be looked for."""
    return environment(cell.device) | {SOURCE: source_digest(cell.backbone.attention.name)}


def check_writable(out: Path) -> None:
    """Raise ValueError if no file can be written into the folder `out`; creates it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except FileExistsError as problem:
        raise ValueError(f"cannot write to the output folder {out}: it is a file") from problem
    except OSError as problem:
        raise ValueError(f"cannot write to the output folder {out}: {problem.strerror}") from problem


def _keep_damaged(cell: Cell, out: Path) -> None:
    """Move a file that is not the cell's whole record out of the way of the new one, so that nothing is lost."""
    path = out / f"{cell.key}.json"
    if path.exists() and _whole(cell, out) is None:
        path.replace(path.with_suffix(".damaged"))
