"""What is checked before any cell is run: devices, images, needed weights, a folder that can be written."""

import tempfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from harness.cells import Cell, Costs, Evaluate, Speed, Train
from harness.cells.recipe import split_batch
from harness.cells.runtime import version_of
from harness.images.batches import train_order
from harness.images.sources import open_splits, open_val
from harness.process.environment import check_device
from harness.runtimes.formats import check_installed
from harness.training.loading import located
from harness.training.run_folder import summary_writer


def check_runnable(cells: Sequence[Cell], world: int) -> None:
    """Raise ValueError for a device, images or a package that a cell needs and this machine does not have.

    `world`: how many processes measure each cell together; its batch must be divisible among them.
    """
    for cell in cells:
        check_device(cell.device)
    check_runtimes(cells)
    images: dict[tuple[object, ...], int] = {}  # by what is opened: once for all cells that need the same
    for cell in cells:
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


def check_runtimes(cells: Iterable[Cell]) -> None:
    """Raise ValueError for a runtime that is not installed here, or in another version than a cell is of."""
    for runtime in dict.fromkeys(cell.task.runtime for cell in cells if isinstance(cell.task, Speed)):
        if runtime.runtime == "torch":
            continue
        check_installed([runtime.runtime])
        if (here := version_of(runtime.runtime)) != runtime.version:
            raise ValueError(
                f"a cell is of {runtime.runtime} {runtime.version}, and here is {here}: install that, or make the cell "
                "anew"
            )


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
