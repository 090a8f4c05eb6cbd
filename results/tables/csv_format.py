"""A frame as CSV: every column at full precision."""

import re
from typing import Any

import numpy as np
import pandas as pd

from results.garbage import no_collection
from results.tables.columns import values_of

# Of hexadecimal digits, one in 750 of 16: only decimal ones, or decimal ones around an e. No published number, and no
# version, has as many.
_NUMERIC_HASH = re.compile(r"(?=.{8,})\d+(e\d+)?")
_PART = 10_000
_QUOTED = re.compile('[",\r\n]')


@no_collection()
def to_csv(frame: pd.DataFrame) -> str:
    """Return every column of the frame at full precision under one header line; fields without a value are empty.

    A hash that a reader would take for a number, as 9253954e51983261 for infinity, has an apostrophe in front, which is
    how spreadsheets mark a text. A number that is not one, as a diverged loss, is nan.
    """
    # For a hundred thousand rows, half of the time that pandas takes, and no more memory.
    lines = [",".join(_quoted(str(name)) for name in frame.columns)]
    for start in range(0, len(frame), _PART):
        part = frame.iloc[start : start + _PART]
        lines += map(",".join, zip(*(_fields(part[name]) for name in frame.columns), strict=True))
    return "\n".join([*lines, ""])


def _fields(column: pd.Series) -> list[str]:
    if column.dtype == object:
        return list(map(_field, values_of(column)))
    # Most columns have few values.
    if column.dtype == float:
        # By their bits: 0.0 equals -0.0. Where it is nan, there is a gap.
        numbers, bits = pd.factorize(column.to_numpy().view("int64"))
        fields = ["" if text == "nan" else text for text in map(str, bits.view("float64").tolist())]
    else:
        numbers, distinct = pd.factorize(column)
        fields = [*map(_field, distinct.tolist()), ""]  # a gap has the number -1
    return np.array(fields, dtype=object)[numbers].tolist()


def _field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str) and _NUMERIC_HASH.fullmatch(value):
        return f"'{value}"
    return _quoted(str(value))


def _quoted(text: str) -> str:
    """Return a field as RFC 4180 has it."""
    return '"{}"'.format(text.replace('"', '""')) if _QUOTED.search(text) else text
