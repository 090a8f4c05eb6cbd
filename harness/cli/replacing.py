"""The values that a command line puts in place of those that cells have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from harness.cells import FOLDER, MICRO, Cell, DataSource, Evaluate, Speed, Train, distinct, in_order
from harness.cells.source import IMAGENET
from harness.cli.selection import data_source

RUNTIME = ("device", "precision", "mode", "channels_last", "batch", "runtime")
HOW = ("workers", "device_batch", "cache")
"""How a training is run, which changes no result."""
TRAINING = ("device", "precision", "mode", "data", "epochs", "seed", *HOW)
EVALUATION = ("device", "precision", "data", "workers", "cache")
USES: dict[type, tuple[str, ...]] = {Speed: RUNTIME, Train: TRAINING, Evaluate: EVALUATION}
"""Which values the command line replaces, by task."""


def given(**values: Any) -> dict[str, Any]:
    """Return the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def adjusted(cells: list[Cell], values: dict[str, Any], sweep: Sequence[Cell] = ()) -> list[Cell]:
    """Return the cells with these values in place of their own, wherever a cell's task has such a value.

    `values` are by their names on the command line, which are those of USES; `seed` is a sequence, which makes a cell
    per seed. A cell that needs a training follows it: the run whose weights it takes has the values replaced as well,
    even if it is only in the `sweep` that the cells were chosen from.

    Raises:
        ValueError: for a value that no cell has a use for, or that is not allowed.
    """
    before = _with_needed(cells, sweep)
    kinds = {type(cell.task) for cell in before.values()}
    usable = {name for kind in kinds for name in USES.get(kind, ())}
    for name in values:
        if name not in usable:
            hint = " (the batch of training is part of its recipe)" if name == "batch" and Train in kinds else ""
            raise ValueError(f"--{name.replace('_', '-')} has no effect on these cells; none has such a value{hint}")
    after: dict[str, list[Cell]] = {}
    for cell in in_order(before.values()):
        after[cell.key] = _replaced(cell, values)
        if cell.takes is not None and cell.takes.run in after:
            after[cell.key] = [
                follower
                for each in after[cell.key]
                for follower in _following(each, before[cell.takes.run], after[cell.takes.run])
            ]
    return distinct([each for cell in cells for each in after[cell.key]])


def _with_needed(cells: Sequence[Cell], sweep: Sequence[Cell]) -> dict[str, Cell]:
    """Return by key the cells, those of the sweep that they need, those that these need, and so on."""
    known = {cell.key: cell for cell in sweep}
    found = {cell.key: cell for cell in cells}
    waiting = list(cells)
    while waiting:
        needed = [known[key] for key in waiting.pop().needs if key in known and key not in found]
        found |= {cell.key: cell for cell in needed}
        waiting += needed
    return found


def _replaced(cell: Cell, values: dict[str, Any]) -> list[Cell]:
    """Return a cell with the values that its task has a use for: a training once per seed, any other once."""
    own = {name: value for name, value in values.items() if name in USES.get(type(cell.task), ())}
    match cell.task:
        case Speed() as task:
            return [Cell(cell.backbone, replace(task, runtime=replace(task.runtime, **own)))]
        case Train() as task:
            seeds = own.pop("seed", (task.seed,))
            epochs = own.pop("epochs", None)
            if "data" in own:
                own["data"] = data_source_for(task.data, own["data"])
                if own["data"].name != task.data.name and task.recipe in (MICRO, FOLDER):
                    own["recipe"] = MICRO if own["data"].root is None else FOLDER
            task = replace(task, **own)
            if epochs is not None:
                task = replace(task, recipe=replace(task.recipe, epochs=epochs))
            return [Cell(cell.backbone, replace(task, seed=seed)) for seed in seeds]
        case Evaluate() as task:
            if "data" in own:
                own["data"] = data_source_for(task.data, own["data"])
            return [Cell(cell.backbone, replace(task, **own))]
    return [cell]


def _following(cell: Cell, before: Cell, trainings: list[Cell]) -> list[Cell]:
    """Return what a cell that needs a training becomes, now that `trainings` have replaced the one `before`.

    A training follows the one of its own seed. An evaluation follows each; one that prepared images as the recipe
    evaluates goes by the recipe of the new training.
    """
    assert cell.takes is not None
    which, ema, strict = cell.takes.which, cell.takes.ema, cell.takes.strict
    followers = []
    for training in trainings:
        weights = training.weights(which, ema=ema, strict=strict)
        match cell.task:
            case Train(seed=seed) as task if len(trainings) == 1 or seed == training.training.seed:
                followers.append(Cell(cell.backbone, replace(task, weights=weights)))
            case Evaluate(preprocessing=view) as task:
                if view == before.training.recipe.evaluation:
                    view = training.training.recipe.evaluation
                followers.append(Cell(cell.backbone, replace(task, weights=weights, preprocessing=view)))
    return followers


def data_source_for(asked: DataSource, text: str) -> DataSource:
    """Return what --data gives a cell: another image set or, to one that asks for ImageNet, the folder of ImageNet."""
    given = data_source(text)
    return replace(asked, root=given.root) if asked.name == IMAGENET and given.name == given.root else given
