"""Our numbers for published rows: costs, and accuracies of official weights and of our trainings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd
from rich.console import Console

import results
from harness.cells import Cell, Costs
from harness.published.models import spec_of
from harness.runner.run_all import run_all
from results import figures, tables

Accuracy = Literal["any", "evaluated", "trained"]


def our_numbers(
    targets: list[dict[str, Any]],
    out: Path,
    console: Console,
    *,
    accuracy: Accuracy = "any",
    partial: bool = False,
) -> list[dict[str, Any]]:
    """Return our numbers for each target: accuracy, and parameters and GMACs, counted now or read from `out`.

    The accuracy is that of the newest record in `out` of the same model on all val images of ImageNet, None if there is
    none. `accuracy` selects its kind: "evaluated" (weights from a file), "trained" (here), or "any", which prefers the
    former. If the recipe of a training has a moving average of the weights, its accuracy counts, as it does in
    published numbers (CSWin and FLatten-CSWin); `top1_weights` says which was used. Weights that were loaded in part do
    not give the accuracy of a model and never count; nor do evaluations of a run here, whose own record has the
    accuracy according to its recipe. With `partial`, a record on fewer images counts if there is none on all of them.

    Raises ValueError for another `accuracy`, and what `run_all` raises.
    """
    if accuracy not in get_args(Accuracy):
        raise ValueError(f"unknown kind of accuracy {accuracy!r}; allowed: {', '.join(get_args(Accuracy))}")
    accuracies = _accuracies(results.read_all(out)[0], accuracy, partial)
    cells = [Cell(spec_of(target), Costs()) for target in targets]
    distinct = {cell.key: cell for cell in cells}
    records = {record.key: record for record in run_all(list(distinct.values()), out, console)}
    ours = []
    for target, cell in zip(targets, cells, strict=True):
        metrics = records[cell.key].metrics
        numbers = {name: metrics.get(name) for name in ("params_m", "gmacs", "gmacs_fvcore")}
        ours.append({**target, **numbers, **accuracies.get(results.model_of(cell.backbone.to_json()), {"top1": None})})
    return ours


def recorded_numbers(targets: list[dict[str, Any]], records: Sequence[results.Record]) -> list[dict[str, Any]]:
    """Return our numbers for those targets that these records say anything about; nothing is counted.

    As `our_numbers`, and `keys`, those of the records that they are from.
    """
    costs = {r.key: r for r in records if r.status == "done" and r.cell["task"]["name"] == "costs"}
    accuracies = _accuracies(records, "any", partial=True)
    ours = []
    for target in targets:
        spec = spec_of(target)
        record = costs.get(Cell(spec, Costs()).key)
        accuracy = accuracies.get(results.model_of(spec.to_json()))
        if record is None and accuracy is None:
            continue
        metrics = record.metrics if record else {}
        numbers = {name: metrics.get(name) for name in ("params_m", "gmacs", "gmacs_fvcore")}
        keys = [record.key] if record else []
        keys += [accuracy["accuracy_key"]] if accuracy else []
        ours.append({**target, **numbers, **(accuracy or {"top1": None}), "keys": keys})
    return ours


def our_times(targets: list[dict[str, Any]], records: Sequence[results.Record]) -> list[dict[str, Any]]:
    """Return the times per image of the models of targets among these records, but those that were disturbed.

    Each has model, resolution, ms, and hardware: the device and the circumstances, in words.
    """
    models = {
        results.model_of(spec_of(target).to_json()): (target["model"], target["resolution"])
        for target in targets
        if "model" in target
    }
    found = []
    for record in records:
        per_s = record.metrics.get("images_per_s")
        known = models.get(results.model_of(record.cell["backbone"]))
        if known is None or record.status != "done" or not per_s or "infer" in record.disturbed:
            continue
        runtime = record.cell["task"]["runtime"]
        device = record.environment.get("device_name") or runtime["device"]
        threads = f", {record.environment['threads']} threads" if runtime["device"] == "cpu" else ""
        ran = " ".join((runtime["runtime"], runtime["version"])) if "runtime" in runtime else runtime["mode"]
        how = f"batch {runtime['batch']}, {runtime['precision']}, {ran}"
        found.append(
            {"model": known[0], "resolution": known[1], "ms": 1000 / per_s, "hardware": f"{device}{threads}, {how}"}
        )
    return found


def _accuracies(records: Sequence[results.Record], accuracy: Accuracy, partial: bool) -> dict[str, dict[str, Any]]:
    """Return the accuracy that counts by model: top1, top1_stderr, top1_kind, top1_weights, n_images; and its key."""
    found = []
    for record in records:
        ours = _accuracy(record) if record.status == "done" else None
        if ours is None or accuracy not in ("any", ours["top1_kind"]):
            continue
        whole = ours["n_images"] == tables.IMAGENET_VAL
        if whole or (partial and ours["n_images"] < tables.IMAGENET_VAL):
            found.append(
                (
                    (whole, ours["top1_kind"] == tables.EVALUATED, record.created),
                    results.model_of(record.cell["backbone"]),
                    ours | {"accuracy_key": record.key},
                )
            )
    # The last one of a model replaces the others.
    return {model: ours for _, model, ours in sorted(found, key=itemgetter(0))}


def _accuracy(record: results.Record) -> dict[str, Any] | None:
    """Return what a record says about the accuracy of its model on the classes of ImageNet, or None."""
    task, metrics = record.cell["task"], record.metrics
    images, top1, stderr = metrics.get("n_images"), metrics.get("top1"), metrics.get("top1_stderr")
    match task:
        case {"name": "evaluate", "weights": {"run": _}}:
            return None
        case {"name": "evaluate", "weights": dict(weights)}:
            if metrics.get("weights_missing") or metrics.get("weights_reshaped"):
                return None
            name = weights.get("name") or Path(weights.get("path") or weights["digest"]).name
            kind, what = tables.EVALUATED, f"{name}{' (EMA)' if weights.get('ema') and 'EMA' not in name else ''}"
        case {"name": "train", "recipe": dict(recipe)}:
            kind, what = tables.TRAINED, "weights as trained"
            if recipe.get("ema_decay") is not None:
                top1, stderr, what = metrics.get("top1_ema"), None, "EMA"
        case _:
            return None
    if top1 is None or not images:
        return None
    if stderr is None:
        stderr = 100 * math.sqrt(top1 / 100 * (1 - top1 / 100) / images)
    return {"top1": top1, "top1_stderr": stderr, "top1_kind": kind, "top1_weights": what, "n_images": images}


def drawn(
    paper: str,
    published: pd.DataFrame,
    comparison: pd.DataFrame,
    targets: list[dict[str, Any]],
    out: Path,
    folder: Path,
) -> list[tuple[Path, str | bytes]]:
    """Draw the figures of a paper, with the records in `out`; return files of a folder, and what is in them."""
    times = our_times(targets, results.read_all(out)[0])
    contradictions = tables.contradictions(published, ("gmacs", "top1"))
    found = [
        figures.cost_figure(published, comparison, contradictions),
        figures.time_figure(tables.published_times(paper), times, published, comparison),
        figures.ablation_figure(published, comparison),
    ]
    return [
        (folder / f"{paper}_{figure.kind}{ending}", content)
        for figure in found
        for ending, content in (
            (".pdf", figures.rendered(figure, ".pdf")),
            (".svg", figures.rendered(figure, ".svg")),
            (".csv", tables.to_csv(figure.data)),
        )
    ]
