"""The figures of a page: the specifications of `results.figures`, each with its axes to choose from."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from results.figures import AXES, VEGA_LITE, Figure, accuracy, breakdown, forest, ranks
from results.figures.figure import CONFIG
from results.figures.styles import STYLES, Style, styles

Spec = dict[str, Any]

MANY = 300
"""Rows above which a figure with a label for each of them is left out."""


def drawn(frame: pd.DataFrame, comparisons: pd.DataFrame | None, curves: Callable[[], Figure] | None) -> list[Spec]:
    """Return the figures that these records allow, each with a choice for every axis it can have."""
    costs = {title: partial(accuracy, frame, name) for name, title in AXES.items()}
    ranking = {title: partial(ranks, frame, name) for name, title in {"top1": "top-1 (%)", **AXES}.items()}
    few = len(frame) <= MANY
    found = []
    if few:
        found.append(_figure("accuracy", "Accuracy and cost", "against", costs))
    if comparisons is not None and len(comparisons) <= MANY:
        found.append(_figure("forest", "Differences", "", {"": lambda: forest(comparisons)}))
    found.append(_figure("ranks", "Ranks over backbones", "by", ranking))
    if few:
        found.append(_figure("breakdown", "Multiply-adds by part", "", {"": lambda: breakdown(frame)}))
    if curves is not None and few:
        found.append(_figure("curves", "Training curves", "", {"": curves}))
    return [each for each in found if each["choices"]]


def _figure(name: str, title: str, axis: str, choices: Mapping[str, Callable[[], Figure]]) -> Spec:
    drawn = []
    for label, draw in choices.items():
        try:
            figure = draw()
        except ValueError:  # these records do not have what it draws
            continue
        drawn.append({"label": label, "spec": figure.spec, "notes": figure.notes, "names": _names(figure)})
    return {"name": name, "title": title, "axis": axis, "choices": drawn}


def _names(figure: Figure) -> dict[str, list[str]]:
    """Return the attentions that a label of the figure stands for."""
    found: dict[str, dict[str, None]] = {}
    if {"label", "attention"} <= set(figure.data.columns):
        for label, attention in zip(figure.data["label"], figure.data["attention"], strict=True):
            found.setdefault(str(label), {})[str(attention)] = None
    return {label: list(attentions) for label, attentions in found.items()}


def looks(attentions: Sequence[str]) -> dict[str, Style]:
    """Return how each attention looks, in their order: those of the project first, in the order of their styles."""
    found = styles(attentions)
    order = list(STYLES)

    def place(text: str) -> tuple[int, str]:
        name = text.partition("(")[0]
        return (order.index(name) if name in order else len(order), text)

    return {text: found[text] for text in sorted(found, key=place)}


def bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as JavaScript that needs nothing else, as vl-convert has them."""
    import vl_convert

    text: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    # Inside a script element these would end it or begin a comment of HTML; in a string of JavaScript, \x3c is <.
    return text.replace("</script", r"\x3c/script").replace("<!--", r"\x3c!--")


def theme() -> Spec:
    """Return what the page's own chart shares with the figures."""
    return {"config": CONFIG}
