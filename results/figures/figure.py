"""What a figure is, and what all of them share: the version of Vega-Lite, fonts, axes, notes."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from results.figures.labels import text_width
from results.figures.styles import GREY, INK, PALE

VEGA_LITE = "6.4"
"""The version that specifications are written for, one of those that vl-convert holds."""

FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
"""vl-convert has the first, and the others are as wide. Nothing is bold: a PDF with two fonts differs each time."""

SIZE = 10
"""Of text, in pixels."""

Spec = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """A picture: a Vega-Lite specification with its data in it, what is drawn as a frame, and what to know about it.

    `kind` is the name that the command line has for it. Each of the `notes` is a sentence of a caption.
    """

    kind: str
    spec: Spec
    data: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def captioned(self) -> Spec:
        """The specification with the notes as lines below the picture."""
        width = self.spec["usermeta"]["width"]
        lines = [line for note in self.notes for line in wrapped(note, SIZE - 1, width)]
        if not lines:
            return self.spec
        caption = {"text": lines, "orient": "bottom", "anchor": "start", "offset": 14, "lineHeight": 11}
        font = {"fontSize": SIZE - 1, "fontWeight": "normal", "color": GREY}
        inner = {"vconcat": self.spec["vconcat"], "spacing": self.spec["spacing"], "title": caption | font}
        return {**self.spec, "vconcat": [inner]}


def uncaptioned(spec: Spec) -> Spec:
    """Return a specification without the lines below the picture that `Figure.captioned` adds; others as they are."""
    match spec.get("vconcat"):
        case [{"vconcat": rows, "spacing": gap, "title": {"orient": "bottom"}}]:
            return {**spec, "vconcat": rows, "spacing": gap}
    return spec


def specification(
    panels: Sequence[Spec], columns: int, title: str | None, notes: Sequence[str], beside: float = 40
) -> Spec:
    """Return panels side by side, `columns` in a row; see `arranged`."""
    rows = [list(panels[start : start + columns]) for start in range(0, len(panels), columns)]
    return arranged(rows, title, notes, beside)


def arranged(
    rows: Sequence[Sequence[Spec]], title: str | None, notes: Sequence[str], beside: float = 40, gap: int = 24
) -> Spec:
    """Return rows of panels, `gap` pixels apart; the notes are its description, for those who cannot see it.

    `beside` is the width, in pixels, of what a panel has beside its axes.
    """
    width = max(sum(panel["width"] + beside for panel in row) + gap * (len(row) - 1) for row in rows)
    headline = {} if title is None else {"title": {"text": title, "fontSize": SIZE + 4, "offset": 12}}
    return {
        "$schema": f"https://vega.github.io/schema/vega-lite/v{VEGA_LITE.partition('.')[0]}.json",
        "description": " ".join(notes),
        "background": "white",
        "padding": 8,
        **headline,
        "vconcat": [{"hconcat": list(row), "spacing": gap} for row in rows],
        "spacing": gap,
        # In a page, nothing leads to a site.
        "usermeta": {"width": max(width, 300), "embedOptions": {"actions": {"editor": False, "source": False}}},
        "config": CONFIG,
    }


def wrapped(text: str, size: float, width: float) -> list[str]:
    """Return a text as lines that are at most so wide."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer, size) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


CONFIG: Spec = {
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        "labelColor": INK,
        "titleColor": INK,
        "labelFontSize": SIZE,
        "titleFontSize": SIZE + 1,
        "titleFontWeight": "normal",
        "gridColor": PALE,
        "domainColor": GREY,
        "tickColor": GREY,
        "labelLimit": 400,
        "labelFlush": False,
    },
    "title": {"color": INK, "fontSize": SIZE + 2, "anchor": "start", "fontWeight": "normal"},
    "text": {"color": INK, "fontSize": SIZE, "font": FONT},
    "legend": {"labelFontSize": SIZE, "titleFontSize": SIZE, "titleFontWeight": "normal", "labelColor": INK},
}


class Scale:
    """From values to pixels, on an axis that is logarithmic where values differ by much, unless it is said."""

    def __init__(
        self,
        values: Sequence[float],
        pixels: float,
        *,
        turned: bool = False,
        linear: bool = False,
        log: bool = False,
        margin: float = 0.08,
    ) -> None:
        low, high = min(values), max(values)
        self.logarithmic = log or (not linear and low > 0 and high / low > 25)
        a, b = (math.log10(low), math.log10(high)) if self.logarithmic else (low, high)
        space = margin * (b - a) or abs(b) * 0.05 or 1.0
        self._start, self._end = a - space, b + space
        self.pixels, self.turned = pixels, turned

    def within(self, low: float, high: float) -> "Scale":
        """Cut what the margins add beyond these values, of a linear axis; return the scale itself."""
        self._start, self._end = max(self._start, low), min(self._end, high)
        return self

    @property
    def domain(self) -> list[float]:
        return [self._value(self._start), self._value(self._end)]

    def _value(self, inner: float) -> float:
        return 10**inner if self.logarithmic else inner

    def pixel(self, value: float) -> float:
        inner = math.log10(value) if self.logarithmic else value
        share = (inner - self._start) / (self._end - self._start)
        return self.pixels * (1 - share if self.turned else share)

    def vega(self) -> Spec:
        """The scale of an encoding."""
        kind = {"type": "log"} if self.logarithmic else {"zero": False}
        return {"domain": self.domain, "nice": False, **kind}


def accuracy_scale(values: Sequence[float], pixels: float) -> Scale:
    """Return the vertical axis of accuracies in percent, which does not begin at 0: differences are of a few points."""
    return Scale(values, pixels, turned=True, linear=True).within(0.0, 100.0)


def layer(values: Sequence[Spec], mark: Spec, encoding: Spec) -> Spec:
    """Return one layer with its own data."""
    return {"data": {"values": list(values)}, "mark": mark, "encoding": encoding}


def at_pixels(**fields: str) -> Spec:
    """Return an encoding of positions that are pixels of the panel: at_pixels(x="left", y="top")."""
    return {
        name: {"field": field, "type": "quantitative", "scale": None, "axis": None} for name, field in fields.items()
    }


def at_settings(captions: Sequence[str | list[str]], title: str | None) -> Spec:
    """Return the horizontal encoding of the field `at`, which counts settings from 0; a caption is a text, or lines."""
    axis = {"title": title, "values": list(range(len(captions))), "labelExpr": f"{json.dumps(captions)}[datum.value]"}
    scale = {"domain": [-0.5, len(captions) - 0.5], "nice": False}
    return {"field": "at", "type": "quantitative", "scale": scale, "axis": axis | {"grid": False}}


def literal(**channels: str) -> Spec:
    """Return encodings of fields that hold what is drawn, as literal(colour="stroke")."""
    return {
        channel: {
            "field": field,
            "type": "quantitative" if channel == "opacity" else "nominal",
            "scale": None,
            **({} if channel == "strokeDash" else {"legend": None}),
        }
        for field, channel in channels.items()
    }
