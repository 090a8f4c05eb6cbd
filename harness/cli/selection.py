"""Which cells a command line means: a sweep or an ad-hoc grid, narrowed and with values replaced."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import backbones
from attentions import unknown
from backbones import BackboneSpec, preset
from harness.cells import (
    FOLDER,
    MICRO,
    Cell,
    Costs,
    DataSource,
    Evaluate,
    Preprocessing,
    Recipe,
    Speed,
    Task,
    Train,
    Weights,
    distinct,
    in_order,
)
from harness.cells.source import IMAGENET, KNOWN
from harness.published.recipes import RECIPES, recipe_of
from harness.sweeps.expand import expand
from harness.sweeps.quickstart import FASHION
from harness.training.loading import read_about, weights_in

HOW = ("workers", "device_batch", "checkpoint_minutes", "cache", "tensorboard")
"""How a training is run, which changes no result."""

TASKS: dict[str, Task] = {
    "costs": Costs(),
    "speed": Speed(),
    "train": Train(recipe=MICRO, data=FASHION),
}


def settings(pairs: Sequence[str], option: str = "--set") -> dict[str, Any]:
    """Values by name from texts such as `window=7`, `stages=LLSS`, `image_size=(192,256)`, as `option` takes them.

    Raises:
        ValueError: for a text without `=`.
    """
    overrides = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name or not text:
            example = "window=7" if option == "--set" else "epochs=100"
            raise ValueError(f"cannot read {option} {pair!r}; write it as in {option} {example}")
        if name in overrides:
            raise ValueError(f"{option} gives {name} twice")
        try:
            overrides[name] = ast.literal_eval(text)
        except (SyntaxError, ValueError):
            overrides[name] = text
    return overrides


def described(name: str, attentions: Sequence[str], overrides: dict[str, Any]) -> list[BackboneSpec]:
    """A preset with each attention, or without any with its own.

    Raises:
        ValueError: as `preset`, and where the attention is given twice.
    """
    if not attentions:
        return [preset(name, **overrides)]
    if "attention" in overrides:
        raise ValueError("the attention is given twice, by --attention and by --set")
    return [preset(name, attention=attention, **overrides) for attention in attentions]


def ad_hoc(
    backbones: Sequence[str], attentions: Sequence[str], tasks: Sequence[str], overrides: dict[str, Any]
) -> list[Cell]:
    """Every task on every backbone with every attention (without any: with the preset's own).

    Raises:
        ValueError: for an unknown name, or an attention that a backbone cannot mount.
    """
    specs = [spec for name in backbones for spec in described(name, attentions, overrides)]
    for task in tasks:
        if task not in TASKS:
            raise ValueError(unknown("task", task, TASKS))
    return distinct([Cell(spec, TASKS[task]) for spec in specs for task in tasks])


class Labelled(Protocol):
    """A cell, or where one stands."""

    @property
    def label(self) -> str: ...


L = TypeVar("L", bound=Labelled)


def narrowed(cells: Sequence[L], only: Sequence[str]) -> list[L]:
    """Those whose label holds at least one of the texts; without texts, all.

    Raises:
        ValueError: if there is none.
    """
    chosen = [cell for cell in cells if not only or any(text in cell.label for text in only)]
    if not chosen:
        raise ValueError(f"--only {' '.join(only)}: no cell holds this; the first is called {cells[0].label!r}")
    return chosen


def data_source(text: str) -> DataSource:
    """An image set by name, a folder, or `imagenet=/data/imagenet`: a folder that is held to be ImageNet-1K."""
    if text in KNOWN:
        return DataSource(text)
    name, equals, root = text.partition("=")
    if not (equals and name in KNOWN):
        name, root = "", text
    if not root or not Path(root).exists():
        named = text or repr(text)
        raise ValueError(f"--data {named}: no such folder, and no image set of this name ({', '.join(KNOWN)})")
    path = Path(root).resolve()
    return DataSource(name, root=str(path)) if name else DataSource.folder(path)


def recipe(name: str | None, spec: BackboneSpec, data: DataSource, changes: dict[str, Any]) -> Recipe:
    """A recipe by the name of the preset that it was published for, `micro` or `folder`, with fields replaced.

    Without a name: the preset's own; of a preset without one, `micro` or, for a folder of photographs, `folder`.

    Raises:
        ValueError: for an unknown name or field, or values that contradict each other.
    """
    if name is None:
        name = spec.name if spec.name in RECIPES else "folder" if data.root is not None else "micro"
    small = {"micro": MICRO, "folder": FOLDER}
    if name not in (*small, *RECIPES, *backbones.ALIASES):
        raise ValueError(unknown("recipe", name, [*small, *RECIPES]))
    found = small.get(name) or recipe_of(name)
    known = [field.name for field in fields(Recipe)]
    for change in changes:
        if change not in known:
            raise ValueError(unknown("field of a recipe", change, known))
    if "evaluation" in changes:
        changes = {**changes, "evaluation": preprocessing(changes["evaluation"])}
    return replace(found, **changes)


def preprocessing(text: str) -> Preprocessing:
    """A preprocessing from a text such as `squash`, `short_side:0.9` (the crop's share of the resized side) or `pad`.

    Raises:
        ValueError: for an unknown kind, or a share that is none.
    """
    kind, _, share = str(text).partition(":")
    try:
        crop_pct = float(share or (1.0 if kind == "pad" else 0.875))
    except ValueError:
        raise ValueError(f"cannot read the preprocessing {text!r}; write it as in squash or short_side:0.9") from None
    return Preprocessing(kind, crop_pct)  # type: ignore[arg-type]


def evaluated(
    checkpoint: Path,
    name: str | None,
    attention: str | None,
    overrides: dict[str, Any],
    transforms: Sequence[str],
    *,
    ema: bool,
    strict: bool,
) -> tuple[BackboneSpec, Weights, list[Preprocessing]]:
    """What a file of weights is evaluated as: the model, and each way to make its input.

    A checkpoint of a run says what model it is of and how its recipe evaluates; of another file the preset `name` does.

    Raises:
        ValueError: for a file that cannot be read, or says nothing of its model while no preset is named.
    """
    weights = weights_in(checkpoint, ema=ema, strict=strict)
    about = read_about(weights)
    views = [preprocessing(text) for text in transforms]
    if name is not None:
        (spec,) = described(name, () if attention is None else (attention,), overrides)
        if not views and spec.name not in RECIPES:
            raise ValueError(f"{spec.name} has no transform of its own: --transform squash, short_side or pad")
        return spec, weights, views or [recipe_of(spec.name).evaluation]
    if about is None:
        raise ValueError(f"{weights.path} does not say what model it is of: name the preset, as in evaluate swin_t ...")
    if attention is not None or overrides:
        raise ValueError(f"{weights.path} says what model it is of: leave out --attention and --set, or name a preset")
    own: dict[str, Any] = about["task"]["recipe"]["evaluation"]
    return backbones.from_json(about["backbone"]), weights, views or [Preprocessing(**own)]


def given(**values: Any) -> dict[str, Any]:
    """The values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


RUNTIME = ("device", "precision", "mode", "channels_last", "batch")
TRAINING = ("device", "precision", "mode", "data", "epochs", "seed", *HOW)
EVALUATION = ("device", "precision", "data", "workers", "cache")
USES: dict[type, tuple[str, ...]] = {Speed: RUNTIME, Train: TRAINING, Evaluate: EVALUATION}
"""Which values the command line replaces, by task."""


def adjusted(cells: list[Cell], values: dict[str, Any], sweep: Sequence[Cell] = ()) -> list[Cell]:
    """The cells with these values in place of their own, wherever a cell's task has such a value.

    `values`, by their names on the command line: those of USES; `seed` is a sequence, which makes a cell each. A cell
    that needs a training follows it: the run whose weights it takes has the values replaced as well, also where it is
    only in the `sweep` that the cells were chosen from.

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
    """The cells by key, and those of the sweep that they need, and that these need."""
    known = {cell.key: cell for cell in sweep}
    found = {cell.key: cell for cell in cells}
    waiting = list(cells)
    while waiting:
        needed = [known[key] for key in waiting.pop().needs if key in known and key not in found]
        found |= {cell.key: cell for cell in needed}
        waiting += needed
    return found


def _replaced(cell: Cell, values: dict[str, Any]) -> list[Cell]:
    """A cell with the values that its task has a use for; of a training one for each seed."""
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
    """A cell that needs a training, now that this has become others: a training follows the one of its own seed.

    An evaluation follows each, and where it is as the recipe has it, it stays so.
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
    """What --data gives a cell: another image set, or, to one that asks for ImageNet, where ImageNet lies."""
    given = data_source(text)
    return replace(asked, root=given.root) if asked.name == IMAGENET and given.name == given.root else given


def select(
    sweep: str | None,
    *,
    backbones: Sequence[str],
    attentions: Sequence[str],
    tasks: Sequence[str],
    overrides: dict[str, Any],
) -> list[Cell]:
    """The cells of a sweep, or of an ad-hoc grid.

    Raises:
        ValueError: where neither or both are asked for, or anything in them is unknown.
    """
    grid = (*backbones, *attentions, *tasks, *overrides)
    if sweep is not None:
        if grid:
            raise ValueError("a sweep brings its own cells: leave out --backbone, --attention, --task and --set")
        return expand(sweep)
    if not backbones or not tasks:
        raise ValueError("name a sweep, or --backbone and --task (attention-bench list shows what there is)")
    return ad_hoc(backbones, attentions, tasks, overrides)
