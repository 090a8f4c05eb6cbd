"""Attention maps over an image: what a query attends to, in each head and on average, several models side by side."""

import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from results.figures.figure import SIZE, Figure, Spec, arranged, layer, wrapped

_SIDE = 150
"""Of a panel, in pixels along its longer side."""

_IN_A_ROW = 5
_SHARE = 0.995
_CLIPPED = f"The scale of colours ends at a weight that {100 * (1 - _SHARE):.1f} % exceed."
_SLIDER = "query"


@dataclass(frozen=True)
class Seen:
    """What queries of one block of a model attend to in an image.

    `label` names the model and the block. `image` is a JPEG of the image as the model sees it, and `cells` the (rows,
    columns) of the block's map. `queries` are the numbers of cells, row by row, or None for a class token; `weights`
    (queries, heads, rows, columns) is NaN where there is no key. `windows` has for each head the (height, width) of the
    groups of cells that meet, None for all of them; `shift` is how far the map was moved before it was cut into them.
    """

    label: str
    image: bytes
    cells: tuple[int, int]
    queries: tuple[int | None, ...]
    weights: np.ndarray
    windows: tuple[tuple[int, int] | None, ...]
    shift: int = 0


def maps(seen: Sequence[Seen], notes: Sequence[str] = (), title: str | None = None) -> Figure:
    """Draw what one query attends to, a row per model; with several queries, a slider chooses between them.

    All panels share one scale of colours, which is shown. `notes` say what the numbers are. Each model has
    as many queries as the others, in their order.
    """
    colour, clipped = _colours(np.concatenate([each.weights[~np.isnan(each.weights)] for each in seen]))
    several = len(seen[0].queries) > 1
    rows = []
    for each in seen:
        heads = [("mean of the heads", _mean(each.weights)), *_heads(each.weights)]
        panels = [_photo(each, several)]
        panels += [_heat(each, name, maps, head, colour, several) for head, (name, maps) in enumerate(heads)]
        rows += [panels[start : start + _IN_A_ROW] for start in range(0, len(panels), _IN_A_ROW)]
    marked = "Marked: the query." if seen[0].queries != (None,) else "The query is the class token."
    notes = [marked, *notes, *([_CLIPPED] if clipped else [])]
    spec = arranged(rows, title, notes, beside=0, gap=10)
    if several:
        slide = {"input": "range", "min": 0, "max": len(seen[0].queries) - 1, "step": 1, "name": "query "}
        spec["params"] = [{"name": _SLIDER, "value": 0, "bind": slide}]
    return Figure("maps", spec, _data(seen), tuple(notes))


_LEGEND = {"title": "weight", "orient": "left", "gradientLength": 110, "format": ".2~g", "offset": 6}


def _mean(weights: np.ndarray) -> np.ndarray:
    # Heads of windows of other shapes meet other keys: a cell that a head does not meet has no weight in it.
    known = ~np.isnan(weights)
    mean = np.where(known, weights, 0).sum(axis=1) / weights.shape[1]
    return np.where(known.any(axis=1), mean, np.nan)


def _heads(weights: np.ndarray) -> list[tuple[str, np.ndarray]]:
    return [(f"head {head + 1}", weights[:, head]) for head in range(weights.shape[1])]


def _colours(weights: np.ndarray) -> tuple[Spec, bool]:
    """Return the encoding of weights, from 0 on, or with two colours on both sides of it where some are negative.

    Also whether the scale ends before the largest: one weight near 1 would leave all others in the dark.
    """
    sizes = np.abs(weights)
    most, usual = float(sizes.max()) or 1.0, float(np.quantile(sizes, _SHARE))
    clipped = 0 < usual < most / 2
    top = usual if clipped else most
    scale: Spec = {"scheme": "viridis", "domain": [0, top], "clamp": True}
    if weights.min() < 0:
        scale = {"scheme": "blueorange", "domain": [-top, top], "domainMid": 0, "clamp": True}
    return {"field": "weight", "type": "quantitative", "scale": scale, "legend": _LEGEND}, clipped


def _size(each: Seen) -> tuple[int, int]:
    height, width = each.cells
    longer = max(height, width)
    return round(_SIDE * height / longer), round(_SIDE * width / longer)


def _axes(each: Seen) -> Spec:
    height, width = each.cells
    x = {"type": "quantitative", "scale": {"domain": [0, width], "nice": False}, "axis": None}
    y = {"type": "quantitative", "scale": {"domain": [height, 0], "nice": False}, "axis": None}
    return {"x": x | {"field": "left"}, "x2": {"field": "right"}, "y": y | {"field": "top"}, "y2": {"field": "bottom"}}


def _image(each: Seen, opacity: float) -> Spec:
    height, width = _size(each)
    url = f"data:image/jpeg;base64,{b64encode(each.image).decode()}"
    mark = {"type": "image", "width": width, "height": height, "align": "left", "baseline": "top", "aspect": False}
    at = {"x": {"value": 0}, "y": {"value": 0}, "url": {"field": "url", "type": "nominal"}}
    # To those who hear a page, an image would be the text of its bytes.
    return layer([{"url": url}], mark | {"opacity": opacity, "aria": False}, at)


def _panel(each: Seen, name: str, layers: list[Spec]) -> Spec:
    height, width = _size(each)
    title = {"text": wrapped(name, SIZE, width), "fontSize": SIZE, "offset": 4}
    return {"title": title, "width": width, "height": height, "layer": layers}


def _chosen(several: bool) -> list[Spec]:
    return [{"filter": f"datum.query == {_SLIDER}"}] if several else []


def _marker(each: Seen, several: bool) -> Spec:
    """Return the frame around the query; a class token has none."""
    width = each.cells[1]
    frames = [
        {"query": at, "left": n % width, "right": n % width + 1, "top": n // width, "bottom": n // width + 1}
        for at, n in enumerate(each.queries)
        if n is not None
    ]
    mark = {"type": "rect", "filled": False, "stroke": "#d81b60", "strokeWidth": 2}
    return layer(frames, mark, _axes(each)) | {"transform": _chosen(several)}


def _photo(each: Seen, several: bool) -> Spec:
    return _panel(each, each.label, [_image(each, 1.0), _marker(each, several)])


def _heat(each: Seen, name: str, weights: np.ndarray, head: int, colour: Spec, several: bool) -> Spec:
    """Return a panel with the cells of a head over the pale image, the borders of its windows, and the query."""
    width = each.cells[1]
    values = [
        {"query": at, "weights": [None if math.isnan(w) else float(f"{w:.4g}") for w in one.ravel()]}
        for at, one in enumerate(weights)
    ]
    cell = "datum.cell - 1"
    transform = [
        *_chosen(several),
        {"flatten": ["weights"], "as": ["weight"]},
        {"window": [{"op": "row_number", "as": "cell"}]},
        {"filter": "isValid(datum.weight)"},
        *(
            {"calculate": text, "as": name}
            for name, text in (
                ("left", f"({cell}) % {width}"),
                ("right", f"({cell}) % {width} + 1"),
                ("top", f"floor(({cell}) / {width})"),
                ("bottom", f"floor(({cell}) / {width}) + 1"),
            )
        ),
    ]
    shown = [{"field": "weight", "type": "quantitative", "format": ".3~g"}]
    cells = layer(values, {"type": "rect", "opacity": 0.85, "aria": False}, _axes(each))
    cells["encoding"] |= {"color": colour, "tooltip": shown}
    layers = [_image(each, 0.35), cells | {"transform": transform}]
    if head and (window := each.windows[head - 1]) is not None:
        layers.append(_borders(each, window))
    return _panel(each, name, [*layers, _marker(each, several)])


def _borders(each: Seen, window: tuple[int, int]) -> Spec:
    """Return lines between the windows of a map, where its shift has put them."""
    height, width = each.cells
    down = [row for row in range(height) if (row - each.shift) % window[0] == 0 and row]
    across = [column for column in range(width) if (column - each.shift) % window[1] == 0 and column]
    lines = [{"left": 0, "right": width, "top": row, "bottom": row} for row in down]
    lines += [{"left": column, "right": column, "top": 0, "bottom": height} for column in across]
    return layer(lines, {"type": "rule", "color": "white", "strokeWidth": 0.8}, _axes(each))


def _data(seen: Sequence[Seen]) -> pd.DataFrame:
    """Return a row per model, query, head and cell that has a key."""
    frames = []
    for each in seen:
        width = each.cells[1]
        at, head, row, column = np.nonzero(~np.isnan(each.weights))
        names: list[Any] = ["class" if number is None else number for number in each.queries]
        frames.append(
            pd.DataFrame(
                {
                    "model": each.label,
                    "query": [names[position] for position in at],
                    "head": head + 1,
                    "key": row * width + column,
                    "row": row,
                    "column": column,
                    "weight": each.weights[at, head, row, column],
                }
            )
        )
    return pd.concat(frames, ignore_index=True)
