"""What several kinds of figures draw: points with their intervals, and labels in a column beside lines."""

from collections.abc import Sequence
from typing import NamedTuple

from results.figures.figure import SIZE, Spec, at_pixels, layer, literal
from results.figures.labels import Label, in_a_column
from results.figures.styles import INK, Style

SHOWN = {
    "label": {"title": "attention", "type": "nominal"},
    "top1": {"title": "top-1 (%)", "format": ".2f"},
    "low": {"format": ".2f"},
    "high": {"format": ".2f"},
    "difference": {"format": "+.2f"},
    "verdict": {"type": "nominal"},
}
"""How the pointer shows a field; others are numbers as they are."""


def look(style: Style) -> dict[str, str]:
    """Return the fields of a point that say how it is drawn, for `points` and `intervals`."""
    return {"colour": style.colour, "fill": style.colour if style.filled else "white", "shape": style.shape}


def points(rows: Sequence[Spec], x: Spec, y: Spec, *shown: str, size: float = 70, faded: bool = False) -> Spec:
    """Return a layer of points; the pointer shows the fields `shown`. `faded`: each has an opacity of its own."""
    tooltip = [{"field": name, "type": "quantitative", **SHOWN.get(name, {})} for name in shown]
    opacity = literal(opacity="opacity") if faded else {"opacity": {"value": 1}}
    encoding = {"x": x, "y": y, **literal(colour="stroke", fill="fill", shape="shape"), **opacity, "tooltip": tooltip}
    return layer(rows, {"type": "point", "size": size, "strokeWidth": 1.6}, encoding)


def intervals(rows: Sequence[Spec], x: Spec, y: Spec, *, faded: bool = False) -> list[Spec]:
    """Return layers of vertical intervals with ticks at their ends, from the fields low and high."""
    colours = literal(colour="stroke", **({"opacity": "opacity"} if faded else {}))
    ends = {"x": x, "y": y | {"field": "low"}, "y2": {"field": "high"}}
    tick = {"type": "tick", "orient": "horizontal", "size": 7, "thickness": 1.2, **({} if faded else {"opacity": 1})}
    return [
        layer(rows, {"type": "rule", "strokeWidth": 1.2}, ends | colours),
        *(layer(rows, tick, {"x": x, "y": y | {"field": end}, **colours}) for end in ("low", "high")),
    ]


def lines(rows: Sequence[Spec], x: Spec, y: Spec, width: float, *shown: str) -> list[Spec]:
    """Return layers of a forest: in each row an interval from the fields low and high, its point, the label left of the
    panel and what is written right of it; the pointer shows the fields `shown`."""
    ends = {"x": x | {"field": "low"}, "x2": {"field": "high"}}
    layers = [
        layer(rows, {"type": "rule", "strokeWidth": 1.6}, {**ends, **y, **literal(colour="stroke")}),
        points(rows, x, y["y"], *shown, size=75),
    ]
    for field, place in (("label", {"align": "right", "x": -12}), ("written", {"align": "left", "x": width + 12})):
        encoding = {**y, "text": {"field": field, "type": "nominal"}, **literal(ink="fill")}
        layers.append(layer(rows, {"type": "text", "baseline": "middle", **place}, encoding))
    return layers


def texts(rows: Sequence[Spec], align: str = "left", **mark: float) -> list[Spec]:
    """Return layers of texts at pixels, from the fields label, left, middle and ink, with a white rim."""
    kind = {"type": "text", "align": align, "baseline": "middle", **mark}
    encoding = {"text": {"field": "label", "type": "nominal"}, **at_pixels(x="left", y="middle")}
    rim = layer(rows, kind | {"stroke": "white", "strokeWidth": 3}, encoding | {"fill": {"value": "white"}})
    return [rim, layer(rows, kind, encoding | literal(ink="fill"))]


def labels(found: Sequence[Label], starts: Sequence[tuple[float, float]], inks: Sequence[str]) -> list[Spec]:
    """Return layers with placed labels, and lines to those that are not beside their points, which are at `starts`."""
    rows, lines = [], []
    for label, (x, y), ink in zip(found, starts, inks, strict=True):
        rows.append({"label": label.text, "left": label.box.left + 1, "middle": label.middle, "ink": ink})
        if label.leader is not None:
            lines.append({"x": x, "y": y, "x2": label.leader[0], "y2": label.leader[1]})
    ends = {name: {"field": name} for name in ("x2", "y2")}
    rule = layer(lines, {"type": "rule", "color": "#9a9a9a"}, at_pixels(x="x", y="y") | ends)
    return [*([rule] if lines else []), *texts(rows)]


class Ending(NamedTuple):
    """The end of a line, in pixels of the panel, and what is written beside it; from `x`, if any, a line leads on."""

    label: str
    style: Style
    y: float
    x: float | None = None


def beside(endings: Sequence[Ending], width: float, height: float) -> list[Spec]:
    """Return layers with the label of each line right of a panel, behind its mark, as near its end as there is room."""
    middles = in_a_column([ending.y for ending in endings], height, size=SIZE)
    keys, rows, lines = [], [], []
    for ending, middle in zip(endings, middles, strict=True):
        keys.append({"left": width + 22, "middle": middle, **look(ending.style)})
        rows.append({"label": ending.label, "left": width + 30, "middle": middle, "ink": INK})
        if ending.x is not None:
            lines.append({"x": ending.x + 6, "y": ending.y, "x2": width + 15, "y2": middle})
    ends = {name: {"field": name} for name in ("x2", "y2")}
    place = at_pixels(x="left", y="middle")
    colours = literal(colour="stroke", fill="fill", shape="shape")
    return [
        layer(lines, {"type": "rule", "strokeWidth": 0.7, "color": "#9a9a9a"}, at_pixels(x="x", y="y") | ends),
        layer(keys, {"type": "point", "size": 45, "strokeWidth": 1.4, "opacity": 1}, place | colours),
        *texts(rows),
    ]
