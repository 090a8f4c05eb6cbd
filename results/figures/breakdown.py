"""What the multiply-adds of a model are spent on: attention, projections, convolutions, MLPs."""

from typing import Any

import pandas as pd

from results.figures.figure import SIZE, Figure, Spec, at_pixels, layer, specification
from results.figures.labels import text_width
from results.figures.panels import labels_of
from results.figures.points import common_options, reservations
from results.figures.styles import GREY
from results.tables.columns import columns_of, rows_of

PARTS: dict[str, str] = {
    "attention": "#3b1f5e",
    "projections": "#3d7ea6",
    "convolutions": "#7fc6a4",
    "mlp": "#efe9c9",
}
"""The metrics `gmacs_<part>` and their colours, each of another lightness."""

_WIDTH, _LINE = 300, 20

_COLUMNS = ("panel", "backbone", "attention", "label", "gmacs", *(f"gmacs_{part}" for part in PARTS))


def breakdown(frame: pd.DataFrame, title: str | None = None) -> Figure:
    """Draw the parts of the multiply-adds in a frame of `results.tables.table`: a bar per model, a panel per backbone.

    Raises ValueError where no model has them.
    """
    metrics = ["gmacs", *(f"gmacs_{part}" for part in PARTS)]
    if any(name not in frame for name in metrics) or frame[metrics].dropna().empty:
        raise ValueError(f"no model here has {', '.join(metrics)}")
    found = frame[frame[metrics].notna().all(axis=1)]
    models = [column.name for column in columns_of(found) if column.kind == "model"]
    fields = [{name: str(row[name]) for name in models} for row in rows_of(found[models])]
    found = found[["backbone", "attention", *metrics]].assign(
        model=pd.Series(fields, found.index), key=list(map(str, fields))
    )
    found = found.drop_duplicates(["backbone", "attention", "key", *metrics])
    data = pd.concat(
        [
            rows.assign(panel=name, label=labels_of(rows)).sort_values("gmacs", kind="stable")
            for name, rows in found.groupby("backbone", sort=False)
        ],
        ignore_index=True,
    )[list(_COLUMNS)]
    room = 24 + max(text_width(text, SIZE) for text in data["label"]) + text_width("00.000", SIZE)
    specs = [_panel(str(name), rows, float(rows["gmacs"].max())) for name, rows in data.groupby("panel", sort=False)]
    notes = [
        "Multiply-adds of matrix products and convolutions per image; one counts as 1: papers print the same number as "
        "FLOPs. Norms, softmax and other operations per element are not part of it.",
        *common_options(data["attention"]),
        *reservations(frame, data, "these parts"),
    ]
    return Figure("breakdown", specification(specs, 1, title, notes, room), data, tuple(notes))


def _panel(name: str, models: pd.DataFrame, most: float) -> Spec:
    height = _LINE * len(models)
    bars: list[dict[str, Any]] = []
    for position, row in enumerate(rows_of(models)):
        start = 0.0
        for part in PARTS:
            amount = row[f"gmacs_{part}"]
            top = _LINE * position + 3
            place = {"start": start, "end": start + amount, "top": top, "bottom": top + _LINE - 6}
            bars.append({"label": row["label"], "part": part, "gmacs": amount, **place})
            start += amount
    texts = [
        {"label": row["label"], "middle": _LINE * (at + 0.5), "total": f"{row['gmacs']:#.3g}", "gmacs": row["gmacs"]}
        for at, row in enumerate(rows_of(models))
    ]
    x = {"field": "start", "type": "quantitative", "scale": {"domain": [0, most], "nice": False}}
    x |= {"axis": {"title": "multiply-adds per image (GMACs)", "tickCount": 6}}
    colours = {"domain": list(PARTS), "range": list(PARTS.values())}
    shown = {
        "orient": "top",
        "title": None,
        "direction": "horizontal",
        "symbolStrokeColor": GREY,
        "symbolType": "square",
    }
    colour = {"field": "part", "type": "nominal", "scale": colours, "legend": shown}
    bottom = {"x2": {"field": "end"}, "y2": {"field": "bottom"}}
    tip = [{"field": "label", "title": "attention"}, {"field": "part"}, {"field": "gmacs", "type": "quantitative"}]
    layers = [
        layer(
            bars,
            {"type": "rect", "stroke": GREY, "strokeWidth": 0.5},
            {"x": x, **at_pixels(y="top"), **bottom, "fill": colour, "tooltip": tip},
        ),
        layer(
            texts,
            {"type": "text", "align": "left", "baseline": "middle", "dx": 5},
            {"x": x | {"field": "gmacs"}, **at_pixels(y="middle"), "text": {"field": "total", "type": "nominal"}},
        ),
        layer(
            texts,
            {"type": "text", "align": "right", "baseline": "middle", "x": -6},
            {**at_pixels(y="middle"), "text": {"field": "label", "type": "nominal"}},
        ),
    ]
    return {"title": name, "width": _WIDTH, "height": height, "layer": layers}
