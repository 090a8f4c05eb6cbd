"""A frame assembled column by column: for a hundred thousand rows, ten times as fast as row by row."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from results.tables.columns import Column, Kind, flattened
from results.wording import printable

Of = TypeVar("Of")
Made = TypeVar("Made")
Fields = Mapping[str, Any]

_Place = Callable[[int], tuple[int, ...]]

ABSENT: Any = object()
"""In a list of values: this row has no such column."""

_NULL: Any = object()
"""In a list of values: this row has the column, but no value."""


class Columns:
    """Columns of a frame, in the order in which they would be met if rows were read one after the other.

    `rows` has for each row its tasks in their order; of one task, columns follow in the order in which they are added.
    """

    def __init__(self, rows: Sequence[Mapping[str, object]]) -> None:
        self._rows = rows
        self._values: dict[Column, list[Any]] = {}
        self._met: dict[Column, tuple[int, ...]] = {}
        self._additions = 0

    def __contains__(self, column: object) -> bool:
        return column in self._values

    def in_order(self) -> list[Column]:
        """Return the columns that any row has."""
        return sorted(self._met, key=self._met.__getitem__)

    def add(self, task: str, column: Column, values: list[Any]) -> None:
        """Add a column of as many values as there are rows; nothing if each is ABSENT."""
        self._additions += 1
        self._add(task, column, values, lambda row: ())

    def add_metrics(self, task: str, column_of: Callable[[str], Column], metrics: Sequence[Fields | None]) -> None:
        """Add a column for each name in the metrics of a task in the rows; None is a gap."""
        self._additions += 1
        for name, values, place in _by_name(metrics):
            if type(None) in set(map(type, values)):
                values = [_NULL if value is None else value for value in values]
            self._add(task, column_of(name), values, place)

    def add_fields(
        self,
        kind: Kind,
        task: str,
        path: tuple[str, ...],
        objects: Sequence[Fields | None],
        left_out: tuple[str, ...] = (),
    ) -> None:
        """Add a column for each field of the objects of the rows, nested ones as `flattened` has them."""
        self._additions += 1
        for name, values, place in _by_name(objects, left_out):
            types = set(map(type, values))
            if types & {dict, list, tuple}:
                self._add_nested(kind, task, (*path, name), values, place)
                continue
            if type(None) in types:
                values = ["none" if value is None else value for value in values]
            self._add(task, Column(kind, task, (*path, name)), values, place)

    def _add_nested(self, kind: Kind, task: str, path: tuple[str, ...], values: Sequence[Any], place: _Place) -> None:
        # Records share what is equal in them.
        numbered, _ = pd.factorize(np.fromiter(map(id, values), np.uint64, len(values)))
        distinct = dict(zip(map(id, values), values, strict=True)).values()
        parts = [{} if value is ABSENT else flattened(kind, task, {path[-1]: value}, path[:-1]) for value in distinct]
        for column in dict.fromkeys(column for part in parts for column in part):
            found = np.empty(len(parts), dtype=object)
            found[:] = [part.get(column, ABSENT) for part in parts]

            def inside(row: int, column: Column = column) -> tuple[int, ...]:
                return (*place(row), list(parts[numbered[row]]).index(column))

            self._add(task, column, found[numbered].tolist(), inside)

    def _add(self, task: str, column: Column, values: list[Any], place: _Place) -> None:
        first = next((row for row, value in enumerate(values) if value is not ABSENT), None)
        if first is None:
            return
        position = list(self._rows[first]).index(task) if task else 0
        met = (first, position, self._additions, *place(first))
        if column in self._values:
            met = min(met, self._met[column])
            pairs = zip(self._values[column], values, strict=True)
            values = [before if value is ABSENT else value for before, value in pairs]
        self._values[column], self._met[column] = values, met

    def frame(self, columns: Sequence[Column]) -> pd.DataFrame:
        """Return these columns as a frame, those that no row has without values; keep none of them."""
        absent = [None] * len(self._rows)
        return pd.DataFrame({column.name: _series(self._values.pop(column, absent)) for column in columns})


def once_per_object(function: Callable[[Of], Made]) -> Callable[[Of], Made]:
    """Return a function that calls the other one once per object: records share what is equal in them."""
    made: dict[int, tuple[Of, Made]] = {}

    def call(value: Of) -> Made:
        if id(value) not in made:
            made[id(value)] = (value, function(value))  # the value is kept, or another one might get its id
        return made[id(value)][1]

    return call


def _by_name(
    objects: Sequence[Fields | None], left_out: tuple[str, ...] = ()
) -> Iterator[tuple[str, list[Any], _Place]]:
    """Yield each name in any of the objects, its value in each, and its place in the object of a row."""
    forms = dict.fromkeys(map(tuple, filter(None, objects)))
    alike: dict[str, Sequence[Any]] = {}
    if len(forms) == 1 and all(objects):
        columns = zip(*[tuple(each.values()) for each in objects if each], strict=True)
        alike = dict(zip(next(iter(forms)), columns, strict=True))
    for name in dict.fromkeys(name for form in forms for name in form if name not in left_out):

        def place(row: int, name: str = name) -> tuple[int, ...]:
            return (list(objects[row] or {}).index(name),)

        if name in alike:
            values = list(alike.pop(name))
        else:
            values = [ABSENT if each is None else each.get(name, ABSENT) for each in objects]
        yield name, values, place


def _series(values: list[Any]) -> pd.Series:
    """Return values with gaps as a column of their type.

    Int64 rather than int64: a gap in the column must not turn a batch of 64 into 64.0. Where NaN was recorded, as of a
    diverged loss, the column holds objects, of which only gaps are None.
    """
    if len(values) > 1 and values.count(values[0]) == len(values) and type(values[0]) is str:
        return _series(values[:1]).repeat(len(values)).reset_index(drop=True)
    types = set(map(type, values))
    filled = values
    if types & {object, type(None)}:  # object is the type of ABSENT and _NULL
        types -= {object, type(None)}
        filled = [None if type(value) is object else value for value in values]
    if types == {str}:
        try:
            return pd.Series(filled, dtype="str")
        except UnicodeEncodeError:  # a byte of a file name that is not UTF-8
            return pd.Series([None if text is None else printable(text) for text in filled], dtype="str")
    if types <= {int, float} and types != {int}:
        numbers = np.array(filled, dtype=float)
        if np.isnan(numbers).sum() == (filled.count(None) if filled is not values else 0):
            return pd.Series(numbers)
    if str in types:
        filled = [printable(value) if isinstance(value, str) else value for value in filled]
    if types == {int}:
        with suppress(OverflowError):  # beyond 64 bits it stays an object
            return pd.Series(filled, dtype="Int64")
    series = pd.Series(filled, dtype=object)
    return series.astype(bool) if types == {bool} and filled is values else series
