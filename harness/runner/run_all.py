"""Running cells in order: what is recorded is not measured again, and what a cell needs comes before it."""

from collections.abc import Collection, Sequence
from pathlib import Path

from rich.console import Console

import results
from attentions import source_digest
from harness.cells import Cell, Costs, Evaluate, Speed, Train, in_order
from harness.cells.recipe import split_batch
from harness.images.batches import train_order
from harness.images.sources import open_splits, open_val
from harness.process.environment import check_device
from harness.process.ranks import ranks
from harness.runner.progress import CellProgress
from harness.runner.records import check_writable, outcome, recorded
from harness.runner.run import run, run_apart
from harness.training.loading import located
from harness.training.loop import summary_writer
from results import Record
from results.tables import SOURCE


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
    for cell in todo:
        check_device(cell.device)
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
