"""Which points are in one panel, its title, and the labels of points.

A panel holds what may be compared: one backbone, one image list, one way of training but for the seed and, where the
number beside the accuracy was timed, one way of running on one kind of device.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from results.tables.columns import Column, rows_of
from results.tables.naming import shortened
from results.wording import natural

_SHOWN = 3
"""How many circumstances a title has; of more, notes have the rest."""


class Panel(NamedTuple):
    """Points that may be compared; `title` sets them apart from the other panels, and `rest` has what it leaves out."""

    title: str
    points: pd.DataFrame
    rest: str = ""


def panels(points: pd.DataFrame, timed: Sequence[str] = (), *, over_backbones: bool = False) -> list[Panel]:
    """Part points of `accuracies` into panels; adds their column "label".

    `timed` are columns of points in which all points of one panel are equal as well. `over_backbones`: panels may hold
    several backbones.
    """
    heads = ["" if over_backbones else str(backbone) for backbone in points["backbone"]]
    sources = points.groupby(pd.Series(heads, points.index))["source"].nunique()
    words = {"train": "trained here", "evaluate": "evaluated"}
    heads = [
        ", ".join(filter(None, [head, words[source]])) if sources[head] > 1 else head
        for head, source in zip(heads, points["source"], strict=True)
    ]
    said = [row["circumstances"] | {name: str(row[name]) for name in timed} for row in rows_of(points)]
    found = parted(points, heads, said)
    return [panel._replace(points=panel.points.assign(label=labels_of(panel.points))) for panel in found]


def parted(points: pd.DataFrame, heads: Sequence[str], circumstances: Sequence[Mapping[str, str]]) -> list[Panel]:
    """Return a panel for all rows of one head and the same circumstances, by the names of their columns."""
    groups: dict[str, list[int]] = {}
    for position, (head, said) in enumerate(zip(heads, circumstances, strict=True)):
        groups.setdefault(str((head, sorted(said.items()))), []).append(position)
    found: dict[str, Panel] = {}
    for key in sorted(groups, key=natural):
        head, own = heads[groups[key][0]], circumstances[groups[key][0]]
        alike = [circumstances[rows[0]] for rows in groups.values() if heads[rows[0]] == head]
        differing = [name for name, value in own.items() if any(other.get(name) != value for other in alike)]
        parts = [f"{Column.parse(name).label} {own[name]}" for name in differing]
        short = ", ".join(filter(None, [head, *parts[:_SHOWN]]))
        title, number = short, 1
        while title in found:
            number += 1
            title = f"{short} ({number})"
        found[title] = Panel(title, points.iloc[groups[key]], ", ".join(parts[_SHOWN:]))
    return list(found.values())


def panel_notes(panels: Sequence[Panel]) -> list[str]:
    """Return a line for each panel whose title does not say all that sets it apart."""
    return [f"{panel.title}, moreover: {panel.rest}." for panel in panels if panel.rest]


def labels_of(points: pd.DataFrame) -> list[str]:
    """Return the attention of each point in short, and in which fields models of one attention differ."""
    short, _ = shortened(points["attention"])
    fields = differing_fields(points)
    return [" ".join([short[text], *each]) for text, each in zip(points["attention"], fields, strict=True)]


def differing_fields(points: pd.DataFrame, but: Sequence[str] = ()) -> list[list[str]]:
    """Return for each point the fields in which models of its backbone and attention differ, as "stages=LLSS"."""
    fields: dict[tuple[str, str], dict[str, set[str]]] = {}
    for row in rows_of(points):
        for name, value in row["model"].items():
            fields.setdefault((row["backbone"], row["attention"]), {}).setdefault(name, set()).add(value)
    return [
        [
            f"{Column.parse(name).label}={row['model'][name]}"
            for name, found in fields.get((row["backbone"], row["attention"]), {}).items()
            if len(found) > 1 and Column.parse(name).label not in but
        ]
        for row in rows_of(points)
    ]
