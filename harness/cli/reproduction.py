"""Which of our models stands for which published row, and our numbers for it."""

from __future__ import annotations

import math
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, get_args

from rich.console import Console

import results
from backbones import preset
from harness.cells import Cell, Costs, DataSource, Evaluate
from harness.cells.source import IMAGENET
from harness.published import official
from harness.published.models import spec_of
from harness.runner.run_all import run_all

Accuracy = Literal["any", "evaluated", "trained"]


def official_cells(
    weights: Path,
    data: str,
    *,
    partial: bool,
    device: str,
    precision: str,
    workers: int,
    cache: str | None,
) -> tuple[list[Cell], list[str]]:
    """An evaluation of each official file in the folder `weights`, and a line for each preset that has none there.

    `partial` allows a `data` folder with fewer images than ImageNet-1K has, of its 1000 classes.

    Raises ValueError where there is no file, or no such folder.
    """
    found, missing = official.find(weights)
    lines = [f"no weights for {name}: {official.OFFICIAL[name].files[0]} is not in {weights}" for name in missing]
    if not found:
        raise ValueError(f"no official weights in {weights}; a file is known by its name, such as {_some_names()}")
    root = Path(data).resolve()
    if not root.is_dir():
        raise ValueError(f"--data {data}: no such folder")
    source = DataSource.folder(root) if partial else DataSource(IMAGENET, root=str(root))
    cells = [
        Cell(
            preset(name),
            Evaluate(
                official.weights_of(name, path),
                source,
                official.OFFICIAL[name].preprocessing,
                device,
                precision,  # type: ignore[arg-type]
                workers=workers,
                cache=cache,
            ),
        )
        for name, path in found.items()
    ]
    return cells, lines


def _some_names() -> str:
    return ", ".join(official.OFFICIAL[name].files[0] for name in ("flatten_swin_t", "swin_t", "pvt_tiny"))


def our_numbers(
    targets: list[dict[str, Any]],
    out: Path,
    console: Console,
    *,
    accuracy: Accuracy = "any",
    partial: bool = False,
) -> list[dict[str, Any]]:
    """Our numbers for each target: parameters and GMACs, counted now or read from the records in `out`, and accuracy.

    The accuracy is that of the newest record in `out` of the same model on all of ImageNet's val images, None where
    there is none. `accuracy` says of which kind: "evaluated" (weights from a file), "trained" (here), or "any" of the
    two, which prefers the former. A training record whose recipe has a moving average of the weights counts by that,
    as published numbers do whose recipe has one (CSWin and FLatten-CSWin); `top1_weights` says what it was. Weights
    that were loaded in part are not a model's accuracy and never count, nor do evaluations of a run here, whose own
    record has the one by its recipe. With `partial` a record on fewer images counts where there is none on all of them.

    Raises ValueError for another `accuracy`, and what `run_all` raises.
    """
    if accuracy not in get_args(Accuracy):
        raise ValueError(f"unknown kind of accuracy {accuracy!r}; allowed: {', '.join(get_args(Accuracy))}")
    accuracies = _accuracies(out, accuracy, partial)
    cells = [Cell(spec_of(target), Costs()) for target in targets]
    distinct = {cell.key: cell for cell in cells}
    records = {record.key: record for record in run_all(list(distinct.values()), out, console)}
    ours = []
    for target, cell in zip(targets, cells, strict=True):
        metrics = records[cell.key].metrics
        numbers = {name: metrics.get(name) for name in ("params_m", "gmacs", "gmacs_fvcore")}
        ours.append({**target, **numbers, **accuracies.get(results.model_of(cell.backbone.to_json()), {"top1": None})})
    return ours


def _accuracies(out: Path, accuracy: Accuracy, partial: bool) -> dict[str, dict[str, Any]]:
    """By model, the accuracy that counts: top1, top1_stderr, top1_kind, top1_weights and n_images."""
    found = []
    for record in results.read_all(out)[0]:
        ours = _accuracy(record) if record.status == "done" else None
        if ours is None or accuracy not in ("any", ours["top1_kind"]):
            continue
        whole = ours["n_images"] == results.IMAGENET_VAL
        if whole or (partial and ours["n_images"] < results.IMAGENET_VAL):
            found.append(
                (
                    (whole, ours["top1_kind"] == results.EVALUATED, record.created),
                    results.model_of(record.cell["backbone"]),
                    ours,
                )
            )
    # The last of a model is the one that stays.
    return {model: ours for _, model, ours in sorted(found, key=itemgetter(0))}


def _accuracy(record: results.Record) -> dict[str, Any] | None:
    """What a record says of its model's accuracy on ImageNet's classes, or None if it says nothing."""
    task, metrics = record.cell["task"], record.metrics
    images, top1, stderr = metrics.get("n_images"), metrics.get("top1"), metrics.get("top1_stderr")
    match task:
        case {"name": "evaluate", "weights": {"run": _}}:
            return None
        case {"name": "evaluate", "weights": dict(weights)}:
            if metrics.get("weights_missing") or metrics.get("weights_reshaped"):
                return None
            name = weights.get("name") or Path(weights.get("path") or weights["digest"]).name
            kind, what = results.EVALUATED, f"{name}{' (EMA)' if weights.get('ema') and 'EMA' not in name else ''}"
        case {"name": "train", "recipe": dict(recipe)}:
            kind, what = results.TRAINED, "weights as trained"
            if recipe.get("ema_decay") is not None:
                top1, stderr, what = metrics.get("top1_ema"), None, "EMA"
        case _:
            return None
    if top1 is None or not images:
        return None
    if stderr is None:
        stderr = 100 * math.sqrt(top1 / 100 * (1 - top1 / 100) / images)
    return {"top1": top1, "top1_stderr": stderr, "top1_kind": kind, "top1_weights": what, "n_images": images}
