"""Which cells a command line means: a sweep or an ad-hoc grid, narrowed and with values replaced."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from attentions import unknown
from backbones import BackboneSpec, preset
from harness.cells import Cell, Task
from harness.costs import Costs
from harness.recipes import FOLDER, MICRO
from harness.sources import EMBEDDED, DataSource
from harness.speed import Speed
from harness.sweeps import distinct, expand
from harness.sweeps.quickstart import FASHION
from harness.train import Train

TASKS: dict[str, Task] = {
    "costs": Costs(),
    "speed": Speed(),
    "train": Train(recipe=MICRO, data=FASHION),
}


def settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Overrides of a preset from texts such as `window=7`, `stages=LLSS`, `image_size=(192,256)`.

    Raises:
        ValueError: for a text without `=`.
    """
    overrides = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name or not text:
            raise ValueError(f"cannot read --set {pair!r}; write it as in --set window=7")
        if name in overrides:
            raise ValueError(f"--set gives {name} twice")
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


def narrowed(cells: list[Cell], only: Sequence[str]) -> list[Cell]:
    """The cells whose label holds at least one of the texts.

    Raises:
        ValueError: if there is none.
    """
    chosen = [cell for cell in cells if not only or any(text in cell.label for text in only)]
    if not chosen:
        raise ValueError(f"--only {' '.join(only)}: no cell holds this; the first is called {cells[0].label!r}")
    return chosen


def data_source(text: str) -> DataSource:
    """An embedded image set by name, or a folder with train/<class>/ and val/<class>/."""
    if text in EMBEDDED:
        return DataSource(name=text)
    if not Path(text).exists():
        raise ValueError(f"--data {text}: no such folder, and no embedded set of this name ({', '.join(EMBEDDED)})")
    return DataSource.folder(Path(text).resolve())


def adjusted(
    cells: list[Cell],
    *,
    device: str | None = None,
    precision: str | None = None,
    mode: str | None = None,
    channels_last: bool | None = None,
    batch: int | None = None,
    data: str | None = None,
    epochs: int | None = None,
    seeds: Sequence[int] = (),
) -> list[Cell]:
    """The cells with these values in place of their own, wherever a cell's task has such a value.

    Raises:
        ValueError: for a value that no cell has a use for, or that is not allowed.
    """
    runtime = {"device": device, "precision": precision, "mode": mode, "channels_last": channels_last, "batch": batch}
    training = {"device": device, "precision": precision, "data": data, "epochs": epochs, "seed": seeds or None}
    kinds = {type(cell.task) for cell in cells}
    usable = {*(runtime if Speed in kinds else ()), *(training if Train in kinds else ())}
    for name, value in (runtime | training).items():
        if value is not None and name not in usable:
            hint = " (the batch of training is part of its recipe)" if name == "batch" and Train in kinds else ""
            raise ValueError(f"--{name.replace('_', '-')} has no effect on these cells; none has such a value{hint}")
    result = []
    for cell in cells:
        task = cell.task
        if isinstance(task, Speed):
            result.append(Cell(cell.backbone, replace(task, runtime=replace(task.runtime, **_given(runtime)))))
        elif isinstance(task, Train):
            if data is not None:
                source = data_source(data)
                task = replace(task, data=source, recipe=task.recipe if source.root is None else FOLDER)
            if epochs is not None:
                task = replace(task, recipe=replace(task.recipe, epochs=epochs))
            task = replace(task, **_given({"device": device, "precision": precision}))
            result += [Cell(cell.backbone, replace(task, seed=seed)) for seed in seeds or (task.seed,)]
        else:
            result.append(cell)
    return distinct(result)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def select(
    sweep: str | None,
    *,
    backbones: Sequence[str],
    attentions: Sequence[str],
    tasks: Sequence[str],
    overrides: dict[str, Any],
    only: Sequence[str],
) -> list[Cell]:
    """The cells of a sweep, or of an ad-hoc grid.

    Raises:
        ValueError: where neither or both are asked for, or anything in them is unknown.
    """
    grid = (*backbones, *attentions, *tasks, *overrides)
    if sweep is not None:
        if grid:
            raise ValueError("a sweep brings its own cells: leave out --backbone, --attention, --task and --set")
        return narrowed(expand(sweep), only)
    if not backbones or not tasks:
        raise ValueError("name a sweep, or --backbone and --task (attention-bench list shows what there is)")
    return narrowed(ad_hoc(backbones, attentions, tasks, overrides), only)
