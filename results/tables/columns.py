"""The columns of a table: what each is about, and its dotted name in the frame and the CSV.

Column("task", "train", ("data", "name")).name               # "train.data.name"
Column.parse("record.train.environment.commit").path         # ("environment", "commit")
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import pandas as pd

Kind = Literal["identity", "metric", "model", "task", "record"]

IDENTITY = ("backbone", "attention", "status", "error", "warning", "certificate", "folder")

# The last part of a path, where it names the thing that the part before it is.
_NAMING = ("name", "kind")


class Column(NamedTuple):
    """What a column holds: `path` are the keys that lead to it in the JSON of a record.

    `kind` is "identity" or "metric" (a path of one part), "model" (a field of the backbone), "task" (a field of the
    task `task`) or "record" (where and when `task` was measured). `task` is empty for the first three.
    """

    kind: Kind
    task: str
    path: tuple[str, ...]

    @classmethod
    def parse(cls, name: str) -> Column:
        """Return the column of this name."""
        match name.split("."):
            case [only]:
                return cls("identity" if only in IDENTITY else "metric", "", (only,))
            case ["model", *path]:
                return cls("model", "", tuple(path))
            case ["record", task, *path]:
                return cls("record", task, tuple(path))
            case [task, *path]:
                return cls("task", task, tuple(path))
        raise AssertionError(name)

    @property
    def name(self) -> str:
        prefix = {"model": ("model",), "task": (self.task,), "record": ("record", self.task)}.get(self.kind, ())
        return ".".join((*prefix, *self.path))

    @property
    def label(self) -> str:
        """The last part that says something: "data" of `train.data.name`, "preprocessing" of `preprocessing.kind`."""
        return self.path[-2] if len(self.path) > 1 and self.path[-1] in _NAMING else self.path[-1]

    def beside(self, part: str) -> Column:
        """Return the column of another field of the same JSON object."""
        return self._replace(path=(*self.path[:-1], part))


def columns_of(frame: pd.DataFrame) -> list[Column]:
    """Return the columns of a frame in their order."""
    return [Column.parse(str(name)) for name in frame.columns]


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame, each as {name of a column: value}."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def values_of(column: pd.Series) -> list[Any]:
    """Return the values of a column, None for a gap; NaN where it was recorded, as of a diverged loss."""
    values = column.tolist()
    if column.dtype == object:
        return [None if value is pd.NA else value for value in values]
    return [None if gap else value for value, gap in zip(values, column.isna().tolist(), strict=True)]


def is_figure(value: Any) -> bool:
    """Return whether the value of a metric is a number, as it need not be in a record of others."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def flattened(kind: Kind, task: str, value: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[Column, Any]:
    """Return nested JSON as {column: scalar or text}, its path continuing `path`.

    A list without objects is its JSON text, and null is the text "none", as an empty field means that there is none.
    """
    flat: dict[Column, Any] = {}
    for name, item in value.items():
        here = (*path, name)
        if isinstance(item, list | tuple):
            if not any(isinstance(each, dict) for each in item):
                item = json.dumps(item)
            else:
                item = {str(position): each for position, each in enumerate(item)}
        if isinstance(item, dict):
            flat |= flattened(kind, task, item, here)
        else:
            flat[Column(kind, task, here)] = "none" if item is None else item
    return flat
