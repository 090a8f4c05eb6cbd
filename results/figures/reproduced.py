"""The figures of a paper, with its published points and ours: accuracy against cost and run time, and its ablations."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from results.figures import marks
from results.figures.figure import (
    SIZE,
    Figure,
    Scale,
    Spec,
    accuracy_scale,
    at_settings,
    layer,
    literal,
    specification,
    wrapped,
)
from results.figures.labels import Box, Label, placed
from results.figures.styles import INK, MARKS, STYLES
from results.statistics import wilson
from results.tables.columns import rows_of
from results.tables.reproduction import IMAGENET_VAL
from results.wording import and_more

PUBLISHED, ELSEWHERE, MEASURED, COUNTED = "published", "published elsewhere", "measured here", "cost measured here"
"""What a point is: of the paper's own table; of another source; ours; our cost at the published accuracy."""

_FAMILIES = {"deit": "DeiT", "pvt": "PVT", "pvt_v2": "PVTv2", "swin": "Swin", "cswin": "CSWin"}
_GMACS, _MS = "multiply-adds per image (GMACs)", "time per image (ms)"
_WIDTH, _HEIGHT, _RADIUS = 330, 260, 5.0
_STEP = 88
"""Pixels per setting of an ablation."""

_USUAL = 224
"""The resolution that a label leaves out."""

_BASELINE = "softmax"
_STYLES = {"flatten": STYLES["focused"]}
"""How an attention of the published tables looks, where it is not softmax in some form."""

_COLUMNS = ("panel", "model", "resolution", "attention", "kind", "x", "top1", "low", "high", "source", "note")
_OTHERS = "Grey crosses: what other sources print of the same models. Hollow: what the paper prints."


def cost_figure(
    published: pd.DataFrame, comparison: pd.DataFrame, contradictions: Sequence[str], title: str | None = None
) -> Figure:
    """Draw published accuracies against published multiply-adds, a panel per family of backbones, and ours.

    `published` and `comparison` are of `results.tables`, row by row. Where we have no accuracy, a bar is at our
    multiply-adds, as high as the published accuracy.
    """
    points = []
    in_paper = {(row["model"], row["resolution"]) for row in rows_of(published[published["primary"] == "1"])}
    for theirs, both in zip(rows_of(published), rows_of(comparison), strict=True):
        if not theirs["model"] or not theirs["top1"] or (theirs["model"], theirs["resolution"]) not in in_paper:
            continue
        point = _point(theirs, _FAMILIES[theirs["family"]])
        if theirs["gmacs"]:
            points.append(point | {"x": float(theirs["gmacs"])})
        if theirs["primary"] == "1" and not pd.isna(both["gmacs_ours"]):
            points.append(_ours(point, both) | {"x": float(both["gmacs_ours"])})
    said = f"Sources contradict each other, beyond rounding, on {and_more(contradictions, 4, '; ')}."
    notes = [_OTHERS, "One multiply-add counts as 1: papers print FLOPs.", *([said] if contradictions else [])]
    return _figure("cost", points, _GMACS, title, notes)


def time_figure(
    theirs: pd.DataFrame,
    ours: Sequence[Mapping[str, Any]],
    published: pd.DataFrame,
    comparison: pd.DataFrame,
    title: str | None = None,
) -> Figure:
    """Draw accuracies against the time per image: the paper's, a panel per family and machine, and ours beside them.

    `theirs` is of `results.tables.published_times`; `ours` has, for each time that was measured here, model,
    resolution, ms and hardware (with batch, precision and mode, as text). Times of unlike machines share no panel.
    """
    models = {
        (row["model"], row["resolution"]): (row, both)
        for row, both in zip(rows_of(published), rows_of(comparison), strict=True)
        if row["model"] and row["primary"] == "1" and row["top1"]
    }
    points = []
    for row in rows_of(theirs):
        family = _FAMILIES[models[row["model"], row["resolution"]][0]["family"]]
        point = _point(row | {"primary": "1"}, f"{family} on {row['hardware']}, as published")
        points.append(point | {"x": float(row["ms"])})
    for time in ours:
        if (found := models.get((time["model"], time["resolution"]))) is not None:
            row, both = found
            point = _point(row, f"{_FAMILIES[row['family']]} on {time['hardware']}, measured here")
            points.append(_ours(point, both) | {"x": float(time["ms"])})
    notes = [] if ours else ["Nothing was timed here yet: attention-bench run --task speed does, and this shows it."]
    plotted = "Published times were read from a plot; their error is in the file of the data."
    return _figure("time", points, _MS, title, [*([plotted] if len(theirs) else []), *notes])


def ablation_figure(published: pd.DataFrame, comparison: pd.DataFrame, title: str | None = None) -> Figure:
    """Draw the ablations of a paper, a panel each: accuracies as published and ours, over their settings."""
    points = []
    for theirs, both in zip(rows_of(published), rows_of(comparison), strict=True):
        if not theirs["ablation"] or not theirs["top1"]:
            continue
        panel = f"{theirs['ablation'].replace('_', ' ')}, {theirs['backbone']}"
        value = theirs["setting"] if theirs["ablation"] == "module" else theirs["param_value"]
        point = _point(theirs | {"model": value}, panel)
        points.append(point)
        if not isinstance(both["top1_ours"], str):
            points.append(_ours(point, both))
    frame = pd.DataFrame(points)
    of_paper = frame[(frame["attention"] != _BASELINE) & (frame["kind"] == PUBLISHED)]
    several = [name for name, rows in of_paper.groupby("panel", sort=False) if rows["model"].nunique() > 1]
    frame = frame[frame["panel"].isin(several)]
    panels = [_ablation_panel(str(name), rows) for name, rows in frame.groupby("panel", sort=False)]
    error = 196 * (0.82 * 0.18 / IMAGENET_VAL) ** 0.5
    notes = [
        "Dashed: softmax in the same backbone, as published. Hollow: what the paper prints, without intervals: that of "
        f"82 % of {IMAGENET_VAL:,} images is ± {error:.2f} points, and the noise of the seed comes on top.",
        *_notes_on(frame),
    ]
    data = frame.rename(columns={"model": "x"})
    data = data[[name for name in _COLUMNS if name in data and name != "resolution"]]
    return Figure("ablations", specification(panels, 2, title, notes, 60), data, tuple(notes))


def _point(theirs: Mapping[str, Any], panel: str) -> dict[str, Any]:
    return {
        "panel": panel,
        "model": theirs["model"],
        "resolution": theirs.get("resolution"),
        "attention": theirs["attention"],
        "kind": PUBLISHED if theirs["primary"] == "1" else ELSEWHERE,
        "top1": float(theirs["top1"]),
        "low": None,
        "high": None,
        "source": theirs["source"],
        "note": theirs["note"],
    }


def _ours(point: Mapping[str, Any], both: Mapping[str, Any]) -> dict[str, Any]:
    """Return our point: with our accuracy and its interval, or without one at the published accuracy."""
    top1 = both["top1_ours"]
    if isinstance(top1, str):
        return {**point, "kind": COUNTED, "source": "", "note": ""}
    low, high = wilson(top1 / 100, int(both["top1_n_images"]))
    return {**point, "kind": MEASURED, "source": "", "note": "", "top1": top1, "low": 100 * low, "high": 100 * high}


def _notes_on(points: pd.DataFrame) -> list[str]:
    kinds = set(points["kind"])
    lines = []
    if MEASURED in kinds:
        lines.append("Filled: measured here, with the 95 % interval over images.")
    if COUNTED in kinds:
        lines.append("Upright bars: our cost, at the published accuracy; ours needs ImageNet.")
    if not kinds & {MEASURED, COUNTED}:
        lines.append("No accuracy was measured here: that needs ImageNet.")
    return lines


def _figure(kind: str, points: Sequence[Mapping[str, Any]], x: str, title: str | None, notes: Sequence[str]) -> Figure:
    if not points:
        raise ValueError(f"nothing is published that a figure of the {kind} could show")
    frame = pd.DataFrame(points)
    order = list(dict.fromkeys(frame["panel"]))
    panels = [frame[frame["panel"] == name] for name in order]
    width, height, labels = _room(panels)
    specs = [
        _panel(name, rows, texts, width, height, x, titled=position % 2 == 0)
        for position, (name, rows, texts) in enumerate(zip(order, panels, labels, strict=True))
    ]
    lines = [*notes, *_notes_on(frame)]
    data = frame[[name for name in _COLUMNS if name in frame]]
    return Figure(kind, specification(specs, 2, title, lines), data, tuple(lines))


def _scales(rows: pd.DataFrame, width: float, height: float) -> tuple[Scale, Scale]:
    ends = [value for name in ("top1", "low", "high") for value in rows[name].dropna()]
    return Scale(list(rows["x"]), width), accuracy_scale(ends, height)


def _room(panels: Sequence[pd.DataFrame]) -> tuple[int, int, list[list[Label]]]:
    """Return the size of all panels in which their labels fit, and a label for the first point of each model."""
    for step in itertools.count():
        width, height = (round(side * 1.125**step) for side in (_WIDTH, _HEIGHT))
        found = []
        for rows in panels:
            across, up = _scales(rows, width, height)
            at = [(across.pixel(x), up.pixel(y)) for x, y in zip(rows["x"], rows["top1"], strict=True)]
            named = ~rows.duplicated(["model", "resolution"])
            places = [place for place, is_first in zip(at, named, strict=True) if is_first]
            others = [
                Box(x - 4, y - 4, x + 4, y + 4) for (x, y), is_first in zip(at, named, strict=True) if not is_first
            ]
            texts = [_name(row) for row in rows_of(rows[named])]
            found.append(placed(places, texts, width, height, size=SIZE, radius=_RADIUS, avoid=others))
        labels = [each for each in found if each is not None]
        if len(labels) == len(panels):
            return width, height, labels
    raise AssertionError


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['model']}" + ("" if row["resolution"] == _USUAL else f" at {row['resolution']}")


def _panel(
    name: str, rows: pd.DataFrame, labels: Sequence[Label], width: int, height: int, x_title: str, titled: bool
) -> Spec:
    across, up = _scales(rows, width, height)
    x = {"field": "x", "type": "quantitative", "scale": across.vega(), "axis": {"title": x_title, "tickCount": 5}}
    y = {"field": "top1", "type": "quantitative", "scale": up.vega()}
    y |= {"axis": {"title": "top-1 (%)" if titled else None, "tickCount": 6}}
    of_kind = {str(kind): found.sort_values(["x", "top1"]) for kind, found in rows.groupby("kind")}
    layers = []
    for (attention, _), line in of_kind.get(PUBLISHED, rows[:0]).groupby(["attention", "resolution"]):
        look = _STYLES.get(str(attention), STYLES["softmax"])
        mark = {"type": "line", "color": look.colour, "strokeDash": look.dash, "strokeWidth": 1.2, "opacity": 0.6}
        layers.append(layer(rows_of(line[["x", "top1"]]), mark, {"x": x, "y": y}))
    layers += _marks(of_kind, x, y)
    first = rows[~rows.duplicated(["model", "resolution"])]
    starts = [(across.pixel(x), up.pixel(y)) for x, y in zip(first["x"], first["top1"], strict=True)]
    layers += marks.labels(labels, starts, [INK] * len(labels))
    return {"title": name, "width": width, "height": height, "layer": layers}


def _marks(of_kind: Mapping[str, pd.DataFrame], x: Spec, y: Spec) -> list[Spec]:
    """Return the layers of points: others' crosses, our bars, the paper's hollow marks, our filled marks."""
    rows = {
        kind: [
            {name: value for name, value in row.items() if not pd.isna(value)} | _look(row) for row in rows_of(found)
        ]
        for kind, found in of_kind.items()
    }
    cross = {"type": "point", "shape": MARKS["x"], "size": 26, "color": "#a0a0a0", "filled": True}
    bar = {"type": "tick", "orient": "vertical", "size": 13, "thickness": 1.8, "opacity": 1}
    at = {"x": x, "y": y, "tooltip": [{"field": name, "type": "nominal"} for name in ("model", "x", "top1", "source")]}
    layers = [layer(rows[ELSEWHERE], cross, at)] if ELSEWHERE in rows else []
    if COUNTED in rows:
        layers.append(layer(rows[COUNTED], bar, at | literal(colour="stroke")))
    if PUBLISHED in rows:
        layers.append(marks.points(rows[PUBLISHED], x, y, "model", "x", "top1", "source"))
    if MEASURED in rows:
        layers += marks.intervals(rows[MEASURED], x, y)
        layers.append(marks.points(rows[MEASURED], x, y, "model", "x", "top1", "low", "high"))
    return layers


def _look(row: Mapping[str, Any]) -> dict[str, str]:
    style = _STYLES.get(row["attention"], STYLES["softmax"])
    return marks.look(style._replace(filled=row["kind"] == MEASURED))


def _ablation_panel(name: str, rows: pd.DataFrame) -> Spec:
    """Return a panel with the settings side by side, and the published softmax of each distinct accuracy as a line."""
    theirs = rows[(rows["attention"] != _BASELINE) & (rows["kind"] == PUBLISHED)]
    settings = list(dict.fromkeys(theirs["model"]))
    width = _STEP * len(settings)
    baseline = rows[(rows["attention"] == _BASELINE) & (rows["kind"] == PUBLISHED)]
    up = accuracy_scale([v for column in ("top1", "low", "high") for v in rows[column].dropna()], _HEIGHT)
    shown = rows[rows["model"].isin(settings) & (rows["attention"] != _BASELINE)]
    points = [
        row | {"at": settings.index(row["model"]) + (0.15 if row["kind"] == MEASURED else 0)} for row in rows_of(shown)
    ]
    drawn = {str(kind): found for kind, found in pd.DataFrame(points).groupby("kind")}
    x = at_settings([wrapped(text, SIZE, _STEP - 8) for text in settings], None)
    y = {"field": "top1", "type": "quantitative", "scale": up.vega(), "axis": {"title": "top-1 (%)", "tickCount": 6}}
    dashed = {"type": "rule", "color": STYLES[_BASELINE].colour, "strokeDash": [4, 3]}
    layers = [layer([{"top1": value} for value in dict.fromkeys(baseline["top1"])], dashed, {"y": y})]
    return {"title": name, "width": width, "height": _HEIGHT, "layer": [*layers, *_marks(drawn, x, y)]}
