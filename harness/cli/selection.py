"""From the texts of a command line to what they mean: cells, presets, image sets, recipes, weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import backbones
from attentions import unknown
from backbones import BackboneSpec
from harness.cells import (
    FOLDER,
    MICRO,
    Cell,
    Costs,
    DataSource,
    Preprocessing,
    Recipe,
    Speed,
    Task,
    Train,
    Weights,
    distinct,
)
from harness.cells.source import KNOWN, folder_and_columns
from harness.cli.specs import specs_of
from harness.published.recipes import RECIPES, recipe_of
from harness.sweeps.expand import expand
from harness.sweeps.quickstart import FASHION
from harness.training.loading import read_about, weights_in

TASKS: dict[str, Task] = {
    "costs": Costs(),
    "speed": Speed(),
    "train": Train(recipe=MICRO, data=FASHION),
}


def ad_hoc(
    backbones: Sequence[str], attentions: Sequence[str], tasks: Sequence[str], overrides: dict[str, Any]
) -> list[Cell]:
    """Return every task on every backbone with every attention; if there are none, with each preset's own.

    Raises:
        ValueError: for an unknown name, or an attention that a backbone cannot mount.
    """
    specs = [spec for name in backbones for spec in specs_of(name, attentions, overrides)]
    for task in tasks:
        if task not in TASKS:
            raise ValueError(unknown("task", task, TASKS))
    return distinct([Cell(spec, TASKS[task]) for spec in specs for task in tasks])


class Labelled(Protocol):
    """A cell, or the state of one."""

    @property
    def label(self) -> str: ...


L = TypeVar("L", bound=Labelled)


def narrowed(cells: Sequence[L], only: Sequence[str]) -> list[L]:
    """Return those whose label contains at least one of the texts; without texts, all.

    Raises:
        ValueError: if there are none.
    """
    chosen = [cell for cell in cells if not only or any(text in cell.label for text in only)]
    if not chosen:
        raise ValueError(f"--only {' '.join(only)}: no cell holds this; the first is called {cells[0].label!r}")
    return chosen


def data_source(text: str) -> DataSource:
    """Read an image set by name, a folder, or `imagenet=/data/imagenet`: a folder that is checked to be ImageNet-1K.

    A folder of parquet files may be followed by the columns to read: `/data/cifar100,label=fine_label,image=img`.

    Raises:
        ValueError: for a folder that does not exist, or one of a set that comes with the project.
    """
    if text in KNOWN:
        return DataSource(text)
    name, equals, root = text.partition("=")
    if not (equals and name in KNOWN):
        name, root = "", text
    folder, columns = folder_and_columns(root)
    if not root or not folder.exists():
        named = text or repr(text)
        raise ValueError(f"--data {named}: no such folder, and no image set of this name ({', '.join(KNOWN)})")
    place = f"{folder.resolve()}{columns}"
    return DataSource(name, root=place) if name else DataSource.folder(place)


def recipe_named(name: str | None, spec: BackboneSpec, data: DataSource, changes: dict[str, Any]) -> Recipe:
    """Return a recipe with fields replaced; its name is that of the preset it was published for, `micro` or `folder`.

    Default: the preset's own; for a preset without one, `micro` or, with a folder of photographs, `folder`.

    Raises:
        ValueError: for an unknown name or field, or values that contradict each other.
    """
    if name is None:
        name = spec.name if spec.name in RECIPES else "folder" if data.root is not None else "micro"
    small = {"micro": MICRO, "folder": FOLDER}
    if name not in (*small, *RECIPES, *backbones.ALIASES):
        summary = f"{', '.join(small)}, all of `attention-bench list backbones` but the micro presets"
        raise ValueError(unknown("recipe", name, [*small, *RECIPES], summary=summary))
    found = small.get(name) or recipe_of(name)
    known = [field.name for field in fields(Recipe)]
    for change in changes:
        if change not in known:
            raise ValueError(unknown("field of a recipe", change, known))
    if "evaluation" in changes:
        changes = {**changes, "evaluation": preprocessing(changes["evaluation"])}
    return replace(found, **changes)


def preprocessing(text: str) -> Preprocessing:
    """Read a preprocessing from `squash`, `short_side:0.9` (the crop's share of the resized side), `pad` and the like.

    Raises:
        ValueError: for an unknown kind, or a share that is not a number above 0 and up to 1.
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
    """Return the model that a file of weights belongs to, the weights, and each way to prepare its images.

    A checkpoint of a run says which model it is of and how its recipe evaluates; for another file the preset `name`
    does.

    Raises:
        ValueError: for a file that cannot be read, or that does not say its model while no preset is named.
    """
    weights = weights_in(checkpoint, ema=ema, strict=strict)
    about = read_about(weights)
    views = [preprocessing(text) for text in transforms]
    if name is not None:
        (spec,) = specs_of(name, () if attention is None else (attention,), overrides)
        if not views and spec.name not in RECIPES:
            raise ValueError(f"{spec.name} has no transform of its own: --transform squash, short_side or pad")
        return spec, weights, views or [recipe_of(spec.name).evaluation]
    if about is None:
        raise ValueError(f"{weights.path} does not say what model it is of: name the preset, as in evaluate swin_t ...")
    if attention is not None or overrides:
        raise ValueError(f"{weights.path} says what model it is of: leave out --attention and --set, or name a preset")
    own: dict[str, Any] = about["task"]["recipe"]["evaluation"]
    return backbones.from_json(about["backbone"]), weights, views or [Preprocessing(**own)]


def checkpoint_named(text: str, ema: bool) -> tuple[BackboneSpec, Weights, Preprocessing]:
    """Return the model that a checkpoint says it is of, or that PRESET=FILE does. Raises ValueError, in one line."""
    name, equals, file = text.partition("=")
    if not equals or Path(text).exists():
        spec, weights, views = evaluated(Path(text), None, None, {}, (), ema=ema, strict=True)
        return spec, weights, views[0]
    (spec,) = specs_of(name, (), {})
    return spec, weights_named(file, ema), preprocessing_of(spec)


def weights_named(file: str, ema: bool) -> Weights:
    """Return the weights in a file. Raises ValueError, in one line, for a file without a name, or that has none."""
    if not file:
        raise ValueError("a file of weights has no name; write it as in PRESET=FILE")
    return weights_in(file, ema=ema)


def preprocessing_of(spec: BackboneSpec) -> Preprocessing:
    """Return how the images of a preset are prepared."""
    return RECIPES[spec.name].evaluation if spec.name in RECIPES else Preprocessing()


def select(
    sweep: str | None,
    *,
    backbones: Sequence[str],
    attentions: Sequence[str],
    tasks: Sequence[str],
    overrides: dict[str, Any],
) -> list[Cell]:
    """Return the cells of a sweep, or of an ad-hoc grid.

    Raises:
        ValueError: if neither or both are asked for, or anything in them is unknown.
    """
    grid = (*backbones, *attentions, *tasks, *overrides)
    if sweep is not None:
        if grid:
            raise ValueError("a sweep brings its own cells: leave out --backbone, --attention, --task and --set")
        return expand(sweep)
    if not backbones or not tasks:
        raise ValueError("name a sweep, or --backbone and --task (attention-bench list shows what there is)")
    return ad_hoc(backbones, attentions, tasks, overrides)
