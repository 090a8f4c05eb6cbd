"""Running cells in order: recorded cells are not measured again, and what a cell needs comes before it."""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from rich.console import Console

import results
from attentions import source_digest
from harness.cells import Cell, Costs, Evaluate, Speed, Train, distinct, in_order
from harness.cells.recipe import split_batch
from harness.images.batches import train_order
from harness.images.sources import open_splits, open_val
from harness.process.environment import check_device
from harness.process.ranks import ranks
from harness.runner.progress import CellProgress
from harness.runner.records import check_writable, outcome, recorded
from harness.runner.run import run, run_apart
from harness.training.loading import located
from harness.training.run_folder import summary_writer
from results import Record
from results.tables import SOURCE


def run_all(cells: Sequence[Cell], out: Path, console: Console, isolate: bool = False) -> list[Record]:
    """Return the records of all cells, in order; with `isolate`, measure each cell in a process of its own.

    A cell that needs another is measured after it; if that one failed, it fails too, and the others still run.

    Raises:
        ValueError: before anything is measured, for a missing device, missing data or missing needed weights, or a
            folder that cannot be written.
    """
    group = ranks()
    records, todo = group.agreed(lambda: _records_and_todo(cells, out, group.world))
    if records:
        found = [cell for cell in cells if cell.key in records]
        console.print(f"{len(found)} of {len(cells)} cells are recorded in {out} already", highlight=False)
        for line in _of_other_code([(cell, records[cell.key]) for cell in found]):
            console.print(line, highlight=False, soft_wrap=True)
    if todo:
        with CellProgress(len(todo), console) as progress:
            for cell in todo:
                progress.start(cell.label)
                progress.finish(outcome(run_apart(cell, out) if isolate else run(cell, out, progress.report)))
    # Every process returns what the first one wrote, not a measurement of its own.
    records |= {cell.key: results.read(out / f"{cell.key}.json") for cell in todo}
    return [records[cell.key] for cell in cells]


def _records_and_todo(cells: Sequence[Cell], out: Path, world: int) -> tuple[dict[str, Record], list[Cell]]:
    """Return the final records by key, and the other cells in the order in which they are measured.

    Raises ValueError for what would keep these from being measured.
    """
    records = {cell.key: record for cell in distinct(cells) if (record := recorded(cell, out)) is not None}
    todo = in_order(cell for cell in cells if cell.key not in records)
    check_needs(todo, out)
    for cell in todo:
        check_device(cell.device)
    images: dict[tuple[object, ...], int] = {}  # by what is opened: once for all cells that need the same
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
    return records, todo


def _of_other_code(found: Sequence[tuple[Cell, Record]]) -> list[str]:
    """Return a line for each attention whose code has changed since its records; a key does not depend on code."""
    changed: Counter[str] = Counter()
    for cell, record in found:
        name = cell.backbone.attention.name
        if record.environment.get(SOURCE, source_digest(name)) != source_digest(name):
            changed[name] += 1
    return [
        f"{number} of them with another version of {name} than there is now: with another --out they are measured again"
        for name, number in changed.items()
    ]


def check_needs(todo: Sequence[Cell], out: Path, elsewhere: Collection[str] = ()) -> None:
    """Raise ValueError for a cell that needs weights which are neither in `out` nor made by another of the cells.

    `elsewhere`: keys of trainings that are in progress.
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
