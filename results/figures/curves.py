"""Training curves: accuracy and loss after each epoch, from the run folders, and where runs were resumed."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from results.figures import marks
from results.figures.figure import SIZE, Figure, Scale, Spec, accuracy_scale, layer, literal, specification
from results.figures.labels import text_width
from results.figures.panels import panel_notes, panels
from results.figures.points import Which, common_options
from results.figures.styles import Style, styles
from results.records import Record, read_json
from results.tables.columns import Column, rows_of
from results.tables.frames import table
from results.tables.paired import INCIDENTAL
from results.wording import and_more

_WIDTH, _HEIGHT = 250, 200
_DOTS = 10
"""How many points a line has at most."""

_STOPPED = re.compile(r"after (\d+) of \d+ updates")

_COLUMNS = ("panel", "backbone", "attention", "label", "seed", "key", "event", "epoch", "top1", "train_loss")


class Run(NamedTuple):
    """What the folder of a run says: a line of metrics per epoch, and after how many epochs it was resumed."""

    epochs: list[dict[str, Any]]
    resumed: list[float]


def curves(records: Sequence[Record], which: Which = "model", title: str | None = None) -> Figure:
    """Draw what the run folders of trainings, `<key>/` in the folders of the records, say of each epoch.

    Each run is a line; of several seeds, thin ones around their mean. Raises ValueError where no record has a run
    folder with epochs, and for one that is damaged.
    """
    trainings = [record for record in records if record.cell["task"]["name"] == "train"]
    # Of a run that is in several folders, the first.
    folders = {record.key: record.folder for record in reversed(trainings) if record.folder}
    runs = {key: read_run(folder / key) for key, folder in folders.items()}
    drawn = [record for record in trainings if record.key in runs and runs[record.key].epochs]
    if not drawn:
        raise ValueError("no training here has the epochs of its run folder, <key>/metrics.jsonl beside its record")
    metric = "top1" if which == "model" else "top1_ema"
    rows = []
    found = panels(_arms(drawn))
    for panel in found:
        for arm in rows_of(panel.points):
            about = {"panel": panel.title, **{name: arm[name] for name in ("backbone", "attention", "label")}}
            for key, seed in arm["runs"]:
                rows += [about | {"key": key, "seed": seed} | each for each in _events(runs[key], metric)]
    data = pd.DataFrame(rows)[list(_COLUMNS)]
    style = styles(data["attention"])
    specs = [
        spec
        for _, rows_of_panel in data.groupby("panel", sort=False)
        for spec in (_panel(rows_of_panel, "top1", style), _panel(rows_of_panel, "train_loss", style))
    ]
    notes = [*_notes(data, trainings, drawn, which), *panel_notes(found)]
    room = 60 + max(text_width(text, SIZE) for text in data["label"])
    return Figure("curves", specification(specs, 2, title, notes, room), data, tuple(notes))


def read_run(folder: Path) -> Run:
    """Read metrics.jsonl of a run folder, and attempts/, a file per start. Raises ValueError if one is damaged."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return Run([], [])
    try:
        epochs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as problem:
        raise ValueError(f"{path}: not complete: {problem}") from problem
    if not all(isinstance(each, dict) and isinstance(each.get("epoch"), int) for each in epochs):
        raise ValueError(f"{path}: a line is not the metrics of an epoch")
    starts = [read_json(each) for each in sorted((folder / "attempts").glob("*.json")) if each.stat().st_size]
    reached = [_reached(start) for start in starts[:-1]]
    return Run(epochs, [each for each in reached if each])


def _reached(start: dict[str, Any]) -> float | None:
    """Return after how many epochs a start of the run ended: as it said itself, or as it was last seen."""
    step, steps, epochs = (start.get(name) for name in ("step", "steps", "epochs"))
    if not steps or epochs is None or step is None:
        return None
    if said := _STOPPED.search(str(start.get("ended"))):
        step = int(said[1])
    return float(step / steps * epochs)


def _arms(records: Sequence[Record]) -> pd.DataFrame:
    """Return a row per set of trainings that are equal in all but the seed."""
    frame = table(records)
    fixed = [Column.parse(str(name)) for name in frame.columns]
    training = [c for c in fixed if c.kind == "task" and c.path[-1] not in INCIDENTAL and c.path != ("seed",)]
    arms: dict[str, dict[str, Any]] = {}
    for row in rows_of(frame):
        model = {c.name: str(row[c.name]) for c in fixed if c.kind == "model"}
        circumstances = {c.name: str(row[c.name]) for c in training}
        about = {"backbone": row["backbone"], "attention": row["attention"], "source": "train", "model": model}
        arm = arms.setdefault(str((about, circumstances)), about | {"circumstances": circumstances, "runs": []})
        run = row["record.train.key"], row["train.seed"]
        if run not in arm["runs"]:
            arm["runs"].append(run)
    return pd.DataFrame(arms.values())


def _events(run: Run, metric: str) -> list[dict[str, Any]]:
    found = [
        {
            "event": "epoch",
            "epoch": float(line["epoch"]),
            "top1": line.get(metric),
            "train_loss": line.get("train_loss"),
        }
        for line in run.epochs
    ]
    for epoch in run.resumed:
        at = {"event": "resumed", "epoch": epoch}
        found.append(at | {name: _between(found[: len(run.epochs)], epoch, name) for name in ("top1", "train_loss")})
    return found


def _between(events: Sequence[dict[str, Any]], epoch: float, name: str) -> float | None:
    """Return the height of a line at a time between two epochs, or that of the nearest epoch."""
    before = [each for each in events if each["epoch"] <= epoch][-1:] or events[:1]
    after = [each for each in events if each["epoch"] >= epoch][:1] or events[-1:]
    (one, two), (low, high) = ((each[0]["epoch"] for each in (before, after)), (e[0][name] for e in (before, after)))
    if low is None or high is None or one == two:
        return low
    return float(low + (high - low) * (epoch - one) / (two - one))


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _panel(rows: pd.DataFrame, name: str, style: dict[str, Style]) -> Spec:
    events = [row | {name: _finite(row[name])} for row in rows_of(rows)]
    heights = [row[name] for row in events if row[name] is not None] or [0.0, 1.0]
    last = max(row["epoch"] for row in events)
    up = accuracy_scale(heights, _HEIGHT) if name == "top1" else Scale(heights, _HEIGHT, turned=True)
    across = [0, last * 1.02]
    x = {"field": "epoch", "type": "quantitative", "scale": {"domain": across, "nice": False}}
    x |= {"axis": {"title": "epoch", "tickMinStep": 1, "tickCount": 6, "format": "d", "grid": False}}
    heading = {"top1": "top-1 (%)", "train_loss": "training loss"}[name]
    y = {"field": name, "type": "quantitative", "scale": up.vega(), "axis": {"title": heading, "tickCount": 6}}
    layers, endings = list[Spec](), list[marks.Ending]()
    labels = list(dict.fromkeys(row["label"] for row in events))
    for position, label in enumerate(labels):
        own = [row for row in events if row["label"] == label and row["event"] == "epoch"]
        look = style[own[0]["attention"]]
        mark: Spec = {"type": "line", "color": look.colour, "strokeDash": look.dash}
        keys = list(dict.fromkeys(row["key"] for row in own))
        mean = _mean(own, name) if len(keys) > 1 else [{"epoch": row["epoch"], name: row[name]} for row in own]
        for key in keys if len(keys) > 1 else ():
            line = [{"epoch": row["epoch"], name: row[name]} for row in own if row["key"] == key]
            layers.append(layer(line, mark | {"strokeWidth": 0.7, "opacity": 0.45}, {"x": x, "y": y}))
        layers.append(layer(mean, mark | {"strokeWidth": 1.5}, {"x": x, "y": y}))
        dots = [row | marks.look(look) | {"label": label} for row in mean if row[name] is not None]
        if dots:
            # Of many epochs some, each line at others, so that lines that run together can be told apart.
            every = math.ceil(len(dots) / _DOTS)
            shown = dots[position * every // len(labels) :: every]
            layers.append(marks.points(shown, x, y, "label", "epoch", name, size=34))
            end = dots[-1]
            endings.append(marks.Ending(label, look, up.pixel(end[name]), end["epoch"] / across[1] * _WIDTH))
    resumed = [
        {"epoch": row["epoch"], name: row[name], "colour": style[row["attention"]].colour, "shape": "M0,-2.4L0,2.4"}
        for row in events
        if row["event"] == "resumed" and row[name] is not None
    ]
    if resumed:
        stroke = {"type": "point", "size": 60, "strokeWidth": 2, "opacity": 1}
        layers.append(layer(resumed, stroke, {"x": x, "y": y, **literal(colour="stroke", shape="shape")}))
    layers += marks.beside(endings, _WIDTH, _HEIGHT)
    return {"title": rows["panel"].iloc[0], "width": _WIDTH, "height": _HEIGHT, "layer": layers}


def _mean(rows: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Return the mean over runs for each epoch that all of them have."""
    runs = len({row["key"] for row in rows})
    found: dict[float, list[float | None]] = {}
    for row in rows:
        found.setdefault(row["epoch"], []).append(row[name])
    return [
        {"epoch": epoch, name: None if None in values else sum(value for value in values if value is not None) / runs}
        for epoch, values in sorted(found.items())
        if len(values) == runs
    ]


def _notes(data: pd.DataFrame, trainings: Sequence[Record], drawn: Sequence[Record], which: Which) -> list[str]:
    average = " of the moving averages of the weights" if which == "ema" else ""
    numbers = sorted({int(each.metrics["n_images"]) for each in drawn if each.metrics.get("n_images")})
    images = and_more([f"{number:,} val images" for number in numbers]) or "the val images"
    lines = [f"Top-1{average} on {images} and the mean training loss of each epoch."]
    runs = data.groupby(["panel", "label"])["key"].nunique()
    if (runs > 1).any():
        lines.append("Thin: single seeds; thick: their mean.")
    resumed = data[data["event"] == "resumed"]
    if len(resumed):
        lines.append(
            "Upright strokes: where a run was interrupted, as it said or as it was last seen; it was resumed from its "
            "last checkpoint."
        )
    else:
        lines.append("No run was resumed, as far as run folders say.")
    epochs = data[data["event"] == "epoch"]
    broken = epochs[~epochs["train_loss"].map(lambda value: value is not None and math.isfinite(value))]
    if len(broken):
        names = [f"{row['backbone']} {row['label']} epoch {row['epoch']:.0f}" for row in rows_of(broken)]
        lines.append(f"The loss was not finite: {and_more(names)}.")
    lines += common_options(data["attention"])
    without = [record for record in trainings if record not in drawn]
    if without:
        names = [f"{each.cell['backbone']['name']} {each.cell['backbone']['attention']}" for each in without]
        lines.append(f"Left out, as their run folders are not here: {and_more(list(dict.fromkeys(names)))}.")
    return lines
