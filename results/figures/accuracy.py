"""Accuracy against what it costs: multiply-adds, parameters, time or memory, with the Pareto front."""

import itertools
from collections.abc import Sequence

import pandas as pd

from results.figures import marks
from results.figures.figure import SIZE, Figure, Scale, Spec, accuracy_scale, layer, specification
from results.figures.fronts import Costed, dominated, front
from results.figures.labels import Box, Label, placed
from results.figures.marks import look
from results.figures.panels import Panel, panel_notes, panels
from results.figures.points import (
    NO_INTERVAL,
    Which,
    accuracies,
    common_options,
    common_values,
    interval_notes,
    of_other_models,
    reservations,
)
from results.figures.styles import GREY, INK, Style, styles
from results.tables import schema
from results.tables.columns import Column, columns_of, is_figure, rows_of
from results.tables.naming import shortened
from results.tables.notes import tells_runtime
from results.tables.ranking import countable_rows
from results.tables.times import HARDWARE, disturbed_rows, task_of_time
from results.wording import and_more

AXES: dict[str, str] = {
    "gmacs": "multiply-adds per image (GMACs)",
    "params_m": "parameters (millions)",
    "images_per_s": "images per second",
    "latency_ms_p50": "latency of a batch (ms, median)",
    "train_images_per_s": "images per second in training",
    "train_step_ms_p50": "training step (ms, median)",
    "infer_peak_allocated_mib": "peak memory of tensors in inference (MiB)",
    "train_peak_allocated_mib": "peak memory of tensors in training (MiB)",
    "infer_peak_rss_mib": "peak memory of the process in inference (MiB)",
    "train_peak_rss_mib": "peak memory of the process in training (MiB)",
}
"""What accuracies may be drawn against, and the title of the axis."""

# Circumstances of a speed that are said even where all points share them.
_SAID = ("device", "device_name", "precision", "mode", "channels_last", "batch", "runtime")

_WIDTH, _HEIGHT, _RADIUS = 330, 260, 5.0
_MANY = 16
"""More points than that in a panel, and panels are below each other."""

_LED, _ROOMY = 0.2, 5
"""Panels are enlarged by an eighth at a time until their labels fit. With many points, more than this share of them
with a line to the label enlarges them too, but not more than so many times."""

_COLUMNS = (
    "panel", "backbone", "attention", "label", "x", "top1", "low", "high", "seeds", "n_images", "interval", "source",
    "front", "dominated",
)  # fmt: skip


def accuracy(frame: pd.DataFrame, x: str = "gmacs", which: Which = "model", title: str | None = None) -> Figure:
    """Draw the accuracies in a frame of `results.tables.table` against the metric `x`, one of AXES.

    Each panel has what may be compared (see `points`) and a front of its own. Raises ValueError for an unknown metric
    and where no model has both numbers.
    """
    if x not in AXES:
        raise ValueError(f"unknown x {x!r}; allowed: {', '.join(AXES)}")
    task = task_of_time(x) or "costs"
    name = f"{task}_{x}" if f"{task}_{x}" in frame else x
    beside, timed = [Column("metric", "", (name,))], list[Column]()
    if task == "speed":
        of_task = [c for c in columns_of(frame) if c.task == task and not tells_runtime(frame, c)]
        timed = [c for c in of_task if c.path[0] == "runtime" or _is_hardware(c)]
    measured = pd.Series(False, frame.index)
    if name in frame:
        measured = frame[name].notna() & frame[name].map(is_figure).astype(bool)
    spoiled = pd.Series(disturbed_rows(frame, name) or False, frame.index, dtype=bool)
    disturbed = frame[measured & spoiled]
    points = accuracies(
        frame[measured & pd.Series(countable_rows(frame, name), frame.index, dtype=bool)], which, [*beside, *timed]
    )
    if points.empty:
        what = "top1" if which == "model" else "top1_ema"
        again = "attention-bench run --retry-disturbed measures these again"
        why = f", but for {len(disturbed)} whose measurement was disturbed; {again}" if len(disturbed) else ""
        raise ValueError(f"no model here has both a {what} and a {x}{why}")
    points = points.rename(columns={name: "x"})
    points["x"] = points["x"].astype(float)
    drawn = panels(points, [column.name for column in timed])
    style = styles(points["attention"])
    more_is_better = schema.better(x) == "higher"
    marked = [panel._replace(points=_with_fronts(panel.points, more_is_better)) for panel in drawn]
    data = pd.concat([panel.points.assign(panel=panel.title) for panel in marked], ignore_index=True)[list(_COLUMNS)]
    notes = [*_notes(frame, data, x, which, disturbed, timed), *panel_notes(drawn)]
    columns = 1 if max(len(panel.points) for panel in marked) > _MANY else 2
    width, height, labels = _room(marked, more_is_better)
    specs = [
        _panel(panel, texts, width, height, x, style, titled=index % columns == 0)
        for index, (panel, texts) in enumerate(zip(marked, labels, strict=True))
    ]
    return Figure("accuracy", specification(specs, columns, title, notes), data, tuple(notes))


def _is_hardware(column: Column) -> bool:
    return column.kind == "record" and column.path[0] == "environment" and column.path[-1] in HARDWARE


def _with_fronts(points: pd.DataFrame, more_is_better: bool) -> pd.DataFrame:
    costs = -points["x"] if more_is_better else points["x"]
    known = points["interval"] != NO_INTERVAL
    ends = [points[name].where(known, float("nan")) for name in ("low", "high")]
    found = [Costed(*each) for each in zip(costs, points["top1"], *ends, strict=True)]
    return points.assign(front=front(found), dominated=dominated(found)).sort_values(["x", "top1"], kind="stable")


def _panel(
    panel: Panel, labels: Sequence[Label], width: int, height: int, metric: str, style: dict[str, Style], titled: bool
) -> Spec:
    points = panel.points
    across, up = _scales(points, width, height)
    rows = [
        {
            **{name: row[name] for name in ("attention", "label", "x", "top1", "low", "high", "seeds", "n_images")},
            **look(style[row["attention"]]),
            "opacity": 0.55 if row["dominated"] else 1,
        }
        for row in rows_of(points)
    ]
    x = {"field": "x", "type": "quantitative", "scale": across.vega(), "axis": {"title": AXES[metric], "tickCount": 5}}
    y = {"field": "top1", "type": "quantitative", "scale": up.vega()}
    y |= {"axis": {"title": "top-1 (%)" if titled else None, "tickCount": 6}}
    layers = []
    line = points[points["front"]]
    if len(line) > 1:
        # The best accuracy at no more than a cost stays that of the last point, until the next one.
        mark = {"type": "line", "interpolate": "step-before" if schema.better(metric) == "higher" else "step-after"}
        steps = rows_of(line[["x", "top1"]])
        layers.append(layer(steps, mark | {"color": "#b5b5b5", "strokeWidth": 1.5}, {"x": x, "y": y}))
    layers += marks.intervals(rows, x, y, faded=True)
    layers += _written(points, labels, across, up)
    layers.append(marks.points(rows, x, y, "label", "x", "top1", "low", "high", "seeds", faded=True))
    return {"title": panel.title, "width": width, "height": height, "layer": layers}


def _scales(points: pd.DataFrame, width: float, height: float) -> tuple[Scale, Scale]:
    return Scale(list(points["x"]), width), accuracy_scale([*points["low"], *points["high"]], height)


def _room(panels: Sequence[Panel], turn: bool) -> tuple[int, int, list[list[Label]]]:
    """Return the size of all panels in which their labels fit, if it can be had beside the points, and the labels."""
    for step in itertools.count():
        width, height = (round(side * 1.125**step) for side in (_WIDTH, _HEIGHT))
        found = [_labels(each.points, *_scales(each.points, width, height), width, height, turn) for each in panels]
        labels = [each for each in found if each is not None]
        if len(labels) == len(panels) and (step >= _ROOMY or not any(map(_is_crowded, labels))):
            return width, height, labels
    raise AssertionError


def _is_crowded(labels: Sequence[Label]) -> bool:
    return len(labels) > _MANY and sum(label.leader is not None for label in labels) > _LED * len(labels)


def _labels(
    points: pd.DataFrame, across: Scale, up: Scale, width: float, height: float, turn: bool
) -> list[Label] | None:
    places = [(across.pixel(x), up.pixel(y)) for x, y in zip(points["x"], points["top1"], strict=True)]
    bars = [
        Box(x - 1, up.pixel(high), x + 1, up.pixel(low))
        for (x, _), low, high in zip(places, points["low"], points["high"], strict=True)
    ]
    avoid = [*bars, *_steps([place for place, on_front in zip(places, points["front"], strict=True) if on_front], turn)]
    return placed(places, list(points["label"]), width, height, size=SIZE, radius=_RADIUS, avoid=avoid)


def _steps(line: Sequence[tuple[float, float]], turn: bool) -> list[Box]:
    """Return where the steps of a front are drawn; `turn`: down first, then to the right."""
    boxes = []
    for (x, y), (next_x, next_y) in itertools.pairwise(line):
        level, wall = (next_y, x) if turn else (y, next_x)
        boxes.append(Box(x, level - 1, next_x, level + 1))
        boxes.append(Box(wall - 1, min(y, next_y), wall + 1, max(y, next_y)))
    return boxes


def _written(points: pd.DataFrame, labels: Sequence[Label], across: Scale, up: Scale) -> list[Spec]:
    starts = [(across.pixel(x), up.pixel(y)) for x, y in zip(points["x"], points["top1"], strict=True)]
    return marks.labels(labels, starts, [GREY if dominated else INK for dominated in points["dominated"]])


def _notes(
    frame: pd.DataFrame, data: pd.DataFrame, x: str, which: Which, disturbed: pd.DataFrame, timed: list[Column]
) -> list[str]:
    lines = interval_notes(data, which)
    if x == "gmacs":
        lines.append("One multiply-add counts as 1: papers print the same number as FLOPs.")
    lines += common_values(frame, [column for column in timed if column.label in _SAID])
    if (data[data["front"]].groupby("panel").size() > 1).any():
        lines.append("Grey steps: the Pareto front, the points that no other one matches in both and beats in one.")
    if data["dominated"].any():
        lines.append("Faded: dominated at 95 %, as another point costs no more and its whole interval lies above.")
    else:
        lines.append("No point is dominated at 95 %: none has its interval below that of one that costs no more.")
    lines += common_options(data["attention"])
    kept = frame
    if len(disturbed):
        short, _ = shortened(frame["attention"])
        models = dict.fromkeys(zip(disturbed["backbone"], disturbed["attention"], strict=True))
        names = [f"{backbone} {short[attention]}" for backbone, attention in models]
        lines.append(f"Left out, as other work on the machine disturbed the measurement: {and_more(names)}.")
        kept = frame[of_other_models(frame, set(models))]
    return lines + reservations(kept, data, f"{'top1' if which == 'model' else 'top1_ema'} or {x}")
