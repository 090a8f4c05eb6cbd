"""The weights that several queries give to the same keys: where two coincide, an attention confuses the queries."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from results.figures import marks
from results.figures.figure import Figure, Scale, Spec, layer, specification
from results.figures.styles import Style

_WIDTH, _HEIGHT = 300, 150
_STYLES = (Style("#d55e00", "circle", False), Style("#0072b2", "cross"), Style("#1a1a1a", "diamond"))

_SIZES = (130, 45, 20)


def queries(
    weights: Mapping[str, np.ndarray], names: Sequence[str], notes: Sequence[str] = (), title: str | None = None
) -> Figure:
    """Draw the rows of maps, a panel per attention: its weights (queries, keys), with the queries' names.

    Raises ValueError for more queries than there are marks for.
    """
    if len(names) > len(_STYLES):
        raise ValueError(f"{len(names)} queries are too many to tell apart; allowed: up to {len(_STYLES)}")
    specs, frames = [], []
    for attention, rows in weights.items():
        specs.append(_panel(attention, rows, names))
        at, key = np.indices(rows.shape).reshape(2, -1)
        frames.append(
            pd.DataFrame(
                {"attention": attention, "query": [names[each] for each in at], "key": key, "weight": rows.ravel()}
            )
        )
    data = pd.concat(frames, ignore_index=True)
    return Figure("queries", specification(specs, 2, title, notes, beside=90), data, tuple(notes))


def _panel(attention: str, rows: np.ndarray, names: Sequence[str]) -> Spec:
    up = Scale([float(rows.min()), float(rows.max())], _HEIGHT, turned=True, linear=True)
    x = {"field": "key", "type": "quantitative", "axis": {"title": "key", "tickMinStep": 1, "grid": False}}
    x |= {"scale": {"domain": [-0.5, rows.shape[1] - 0.5], "nice": False}}
    y = {"field": "weight", "type": "quantitative", "scale": up.vega(), "axis": {"title": "weight", "tickCount": 5}}
    layers, endings = [], []
    # The first is the largest, so that it is seen around a later one at the same place.
    for name, style, size, row in zip(names, _STYLES, _SIZES, rows, strict=False):
        points = [{"key": key, "weight": float(w), "label": name, **marks.look(style)} for key, w in enumerate(row)]
        line = {"type": "line", "color": style.colour, "strokeDash": style.dash, "strokeWidth": 1}
        layers += [
            layer(points, line, {"x": x, "y": y}),
            marks.points(points, x, y, "label", "key", "weight", size=size),
        ]
        endings.append(marks.Ending(name, style, up.pixel(float(row[-1]))))
    return {
        "title": attention,
        "width": _WIDTH,
        "height": _HEIGHT,
        "layer": [*layers, *marks.beside(endings, _WIDTH, _HEIGHT)],
    }
