"""A table in the forms in which papers and programs take it: one name per format, chosen by a file's ending.

csv, json, parquet and timm hold the numbers at full precision, the others those of the sheet, rounded for people.
"""

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from results.sheets import Sheet, to_markdown, to_plain
from results.tables import schema
from results.tables.columns import columns_of, values_of
from results.tables.csv_format import to_csv
from results.tables.html import to_html
from results.tables.latex import to_latex
from results.tables.timm_format import to_timm

_OF_SHEETS: dict[str, Callable[[Sheet], str]] = {
    "text": to_plain,
    "markdown": to_markdown,
    "latex": to_latex,
    "html": to_html,
}
_ENDINGS = {
    "text": ".txt",
    "csv": ".csv",
    "markdown": ".md",
    "latex": ".tex",
    "html": ".html",
    "json": ".json",
    "parquet": ".parquet",
    "timm": ".csv",
}
FORMATS = tuple(_ENDINGS)


def format_of(file: Path | None, name: str | None) -> str:
    """Return the format of a table: the one named, or that of the file's ending, or text.

    Raises ValueError for an unknown format or ending, and for two that do not fit.
    """
    if name is not None and name not in FORMATS:
        raise ValueError(f"unknown format {name!r}; there are: {', '.join(FORMATS)}")
    if file is None:
        return name or "text"
    ending = file.suffix.lower()
    fitting = [each for each, own in _ENDINGS.items() if own == ending]
    if name is None:
        if not fitting:
            raise ValueError(f"no format has the ending of {file}; --format names one, or it ends with {_endings()}")
        return fitting[0]
    if fitting and name not in fitting:
        raise ValueError(f"--format {name} does not fit {file}, which ends as {fitting[0]}; {name} is {_ENDINGS[name]}")
    return name


def rendered(form: str, frame: pd.DataFrame, sheet: Callable[[], Sheet]) -> str | bytes:
    """Return a table in a format: of the sheet for people, which is made if need be, of the frame for programs.

    Parquet is bytes.
    """
    return _OF_SHEETS[form](sheet()) if form in _OF_SHEETS else _OF_FRAMES[form](frame)


def to_json(frame: pd.DataFrame) -> str:
    """Return {"columns": {name: {meaning, unit, better}}, "rows": [{name: value}]}; a gap is null.

    What JSON has no number for, as a diverged loss, is one of the texts "nan", "inf" and "-inf".
    """
    columns = {}
    for column in columns_of(frame):
        found = schema.meaning(column)
        columns[column.name] = found._asdict() if found else {}
    values = {str(name): [_json_value(value) for value in values_of(frame[name])] for name in frame.columns}
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return json.dumps({"columns": columns, "rows": rows}, indent=1, allow_nan=False) + "\n"


def to_parquet(frame: pd.DataFrame) -> bytes:
    """Return an Apache Parquet file; a column of values of several types holds texts.

    Raises ValueError where pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as problem:
        raise ValueError("parquet needs pyarrow: pip install -e '.[hf]'") from problem
    arrays = {}
    for name in frame.columns:
        values = values_of(frame[name])
        types = {type(value) for value in values if value is not None}
        if (len(types) > 1 and types != {int, float}) or _is_nested(values):
            values = [None if value is None else str(value) for value in values]
        try:
            arrays[str(name)] = pyarrow.array(values)
        except (pyarrow.ArrowInvalid, OverflowError):  # a whole number that no type holds exactly
            arrays[str(name)] = pyarrow.array([None if value is None else str(value) for value in values])
    stream = io.BytesIO()
    parquet.write_table(pyarrow.table(arrays), stream)
    return stream.getvalue()


def _is_nested(values: list[Any]) -> bool:
    return any(isinstance(value, list | dict) for value in values)


def _json_value(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _endings() -> str:
    return ", ".join(dict.fromkeys(_ENDINGS.values()))


_OF_FRAMES: dict[str, Callable[[pd.DataFrame], str | bytes]] = {
    "csv": to_csv,
    "json": to_json,
    "parquet": to_parquet,
    "timm": to_timm,
}
