"""Accuracies as a grid of numbers with their intervals: two options of an attention, or attentions by backbones."""

from collections.abc import Sequence

import pandas as pd

from results.figures.ablation import in_order, nothing_varies, with_option
from results.figures.figure import SIZE, Figure, Spec, at_pixels, layer, literal, specification
from results.figures.labels import text_width
from results.figures.panels import panel_notes, panels
from results.figures.points import Which, accuracies, common_options, interval_notes, reservations
from results.tables.columns import rows_of
from results.wording import natural

_HEIGHT, _LEAST = 36, 76

_LOW, _HIGH = (244, 246, 250), (38, 84, 142)
"""The colours of the least and of the greatest accuracy; in grey, the greatest is the darkest."""

_COLUMNS = (
    "panel", "backbone", "attention", "row", "column", "top1", "low", "high", "seeds", "n_images", "interval",
)  # fmt: skip


def grid(frame: pd.DataFrame, options: Sequence[str] = (), which: Which = "model", title: str | None = None) -> Figure:
    """Draw the accuracies in a frame of `results.tables.table` by two options, or by attention and backbone.

    Accuracies of several models in one cell are not averaged: each gets a panel of its own. Raises ValueError for
    another number of options, and where there is nothing to draw.
    """
    if len(options) not in (0, 2) or len(set(options)) < len(options):
        raise ValueError(f"a grid takes two options, or none for attentions by backbones, got {', '.join(options)}")
    points = accuracies(frame, which)
    if options:
        found = with_option(points, *options)
        if found.empty or max(found["value"].nunique(), found["other"].nunique()) < 2:
            raise ValueError(nothing_varies(frame, *options))
        parts = panels(found)
        drawn = {
            f"{panel.title}, {series}": rows.assign(row=rows["value"], column=rows["other"])
            for panel in parts
            for series, rows in panel.points.groupby("series", sort=False)
        }
        titles = (options[0], options[1])
    else:
        if points.empty:
            raise ValueError(f"no model here has a {'top1' if which == 'model' else 'top1_ema'}")
        parts = panels(points, over_backbones=True)
        drawn = {
            panel.title: panel.points.assign(row=panel.points["label"], column=panel.points["backbone"])
            for panel in parts
        }
        titles = ("", "")
    data = pd.concat([rows.assign(panel=name) for name, rows in drawn.items()], ignore_index=True)
    data = data.assign(panel=_apart(data))
    extent = (float(data["top1"].min()), float(data["top1"].max()))
    specs = [_panel(str(name), rows, titles, extent) for name, rows in data.groupby("panel", sort=False)]
    notes = [*interval_notes(data, which), "The darker, the more accurate. Small: the interval.", *panel_notes(parts)]
    notes += common_options(data["attention"])
    if not options:
        notes += reservations(frame, data, "an accuracy")
    room = 24 + max(text_width(text, SIZE) for text in data["row"])
    return Figure("grid", specification(specs, 1, title, notes, room), data[list(_COLUMNS)], tuple(notes))


def _apart(data: pd.DataFrame) -> pd.Series:
    """Return the panel of each point: a further one for each further point in a cell."""
    again = data.groupby(["panel", "row", "column"]).cumcount()
    return data["panel"].where(again == 0, data["panel"] + " (" + (again + 1).astype(str) + ")")


def _panel(name: str, points: pd.DataFrame, titles: tuple[str, str], extent: tuple[float, float]) -> Spec:
    rows = in_order(points["row"]) if titles[0] else sorted(set(points["row"]), key=natural)
    columns = in_order(points["column"]) if titles[1] else sorted(set(points["column"]), key=natural)
    wide = max(_LEAST, *(text_width(text, SIZE) + 14 for text in columns))
    cells = []
    for point in rows_of(points):
        left, top = wide * columns.index(point["column"]), _HEIGHT * rows.index(point["row"])
        share = (point["top1"] - extent[0]) / (extent[1] - extent[0]) if extent[1] > extent[0] else 0.5
        mixed = [round(low + share * (high - low)) for low, high in zip(_LOW, _HIGH, strict=True)]
        cells.append(
            {
                **{field: point[field] for field in ("row", "column", "top1", "low", "high", "seeds")},
                "left": left + 1,
                "right": left + wide - 1,
                "top": top + 1,
                "bottom": top + _HEIGHT - 1,
                "centre": left + wide / 2,
                "upper": top + _HEIGHT * 0.36,
                "lower": top + _HEIGHT * 0.74,
                "colour": "#" + "".join(f"{part:02x}" for part in mixed),
                "ink": _ink(mixed),
                "accuracy": f"{point['top1']:.2f}",
                "interval": f"{point['low']:.2f} to {point['high']:.2f}" if point["low"] < point["high"] else "",
            }
        )
    sides = [{"label": text, "left": -8, "middle": _HEIGHT * (at + 0.5)} for at, text in enumerate(rows)]
    heads = [{"label": text, "left": wide * (at + 0.5), "middle": -9} for at, text in enumerate(columns)]
    corner = {"y": {"field": "top"}, "x2": {"field": "right"}, "y2": {"field": "bottom"}}
    shown = [{"field": field, "type": "nominal"} for field in ("row", "column", "accuracy", "interval", "seeds")]
    box = at_pixels(x="left", y="top") | {name: corner[name] for name in ("x2", "y2")} | literal(colour="fill")
    layers = [
        layer(cells, {"type": "rect"}, {**box, "tooltip": shown}),
        _text(cells, "accuracy", "centre", "upper", SIZE + 1),
        _text(cells, "interval", "centre", "lower", SIZE - 2),
        layer(sides, {"type": "text", "align": "right", "baseline": "middle"}, _written()),
        layer(heads, {"type": "text", "align": "center", "baseline": "middle"}, _written()),
    ]
    if titles[0]:
        name = f"{name}: {titles[0]} (down) and {titles[1]} (across)"
    return {
        **({"title": {"text": name, "offset": 8}} if name else {}),
        "width": wide * len(columns),
        "height": _HEIGHT * len(rows),
        "layer": layers,
    }


def _ink(colour: Sequence[int]) -> str:
    """Return black or white, whichever is the more legible on a colour (WCAG 2's contrast)."""
    linear = [part / 255 / 12.92 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#ffffff" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "#000000"


def _text(cells: list[Spec], field: str, x: str, y: str, size: float) -> Spec:
    mark = {"type": "text", "baseline": "middle", "align": "center", "fontSize": size}
    text = {"text": {"field": field, "type": "nominal"}}
    return layer(cells, mark, {**at_pixels(x=x, y=y), **text, **literal(ink="fill")})


def _written() -> Spec:
    return {**at_pixels(x="left", y="middle"), "text": {"field": "label", "type": "nominal"}}
