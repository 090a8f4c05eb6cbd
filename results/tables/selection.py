"""Rows and columns chosen, ordered and named in words: `--where`, `--sort`, `--columns`, `--pivot`."""

import difflib
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from results.tables import schema
from results.tables.columns import columns_of, values_of
from results.tables.frames import BREAKDOWN, METRICS, named
from results.tables.naming import name_and_options
from results.wording import and_more, printable

_CONDITION = re.compile(r"([\w.]+)(!=|<=|>=|=|<|>)(.*)", re.DOTALL)
_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge
}  # fmt: skip


class Condition(NamedTuple):
    """`name` compared with one of the `values`, which are texts."""

    text: str
    name: str
    comparison: str
    values: list[str]


def conditions(texts: Sequence[str]) -> list[Condition]:
    """Return conditions from texts such as "backbone=swin_t seed=0,1" or "attention=focused(kernel_size=5)".

    Values may have spaces: a condition ends where another one begins. Raises ValueError for a text that is none.
    """
    found = []
    for text in (each for whole in texts for each in _parted(whole)):
        parts = _CONDITION.fullmatch(text)
        if parts is None:
            raise ValueError(f"--where {text!r}: a condition is NAME=VALUE, or has != < <= > >= in place of =")
        name, comparison, value = parts.groups()
        if comparison in _COMPARED and not _is_number(value):
            raise ValueError(f"--where {text!r}: {comparison} takes a number")
        found.append(Condition(text, name, comparison, _split(value, ",") or [""]))
    return found


def where(frame: pd.DataFrame, texts: Sequence[str]) -> pd.DataFrame:
    """Return the rows that fulfil every condition, in their order.

    A name is that of a column or its last part (`seed`); `attention=focused` also means every form of focused. Raises
    ValueError for an unknown name and for conditions that no row fulfils.
    """
    for condition in conditions(texts):
        names = columns_named(frame, condition.name, "--where")
        fulfilled = pd.Series(False, index=frame.index)
        for name in names:
            fulfilled |= pd.Series([_fulfils(value, condition, name) for value in values_of(frame[name])], frame.index)
        if condition.comparison == "!=":
            fulfilled = ~fulfilled
        if len(frame) and not fulfilled.any():
            present = dict.fromkeys(str(value) for name in names for value in values_of(frame[name]))
            raise ValueError(f"no row has {condition.text}; {condition.name} is {and_more(list(present), 8)}")
        frame = frame[fulfilled]
    return frame.reset_index(drop=True)


def in_order(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the rows sorted by columns, the first one first, the better end of a metric on top and gaps last.

    `NAME:asc` and `NAME:desc` say which end comes first. Raises ValueError for an unknown name.
    """
    for text in reversed(names):
        name, _, direction = text.partition(":")
        if direction not in ("", "asc", "desc"):
            raise ValueError(f"--sort {text}: the direction is asc or desc")
        column = columns_named(frame, name, "--sort")[0]
        falling = direction == "desc" or (not direction and schema.better(column) == "higher")
        values = frame[column]
        if not pd.api.types.is_numeric_dtype(values):
            numbers = pd.to_numeric(values, errors="coerce")
            values = numbers if numbers.notna().sum() == values.notna().sum() else values.astype("string")
        order = values.sort_values(ascending=not falling, kind="stable", na_position="last").index
        frame = frame.loc[order].reset_index(drop=True)
    return frame


def labelled(frame: pd.DataFrame, texts: Sequence[str]) -> dict[str, str]:
    """Return {name of a column: its label, "" for the usual one} from texts such as "top1" and "top1=Top-1 (%)".

    Raises ValueError for an unknown name.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, _, label = text.partition("=")
        found |= dict.fromkeys(columns_named(frame, name, "--columns"), printable(label))
    return found


def titled(frame: pd.DataFrame, chosen: Mapping[str, str]) -> pd.DataFrame:
    """Return the columns of a frame under their titles; one that the frame lacks has no values.

    Raises ValueError for two columns of one title.
    """
    titles = [title or name for name, title in chosen.items()]
    if twice := next((title for title in titles if titles.count(title) > 1), None):
        raise ValueError(f"--columns: two columns have the title {twice!r}")
    return frame.reindex(columns=list(chosen)).rename(columns={name: title for name, title in chosen.items() if title})


def columns_named(frame: pd.DataFrame, name: str, option: str) -> list[str]:
    """Return the columns that a name means: one of this name, or those whose last part it is.

    Raises ValueError, naming the option, if there is none.
    """
    if name in frame:
        return [name]
    columns = columns_of(frame)
    if found := [each for each in named(columns, name) if each in frame]:
        return found
    if found := [c.name for c in columns if c.kind in ("model", "task") and name in (c.label, c.path[-1])]:
        return found
    if name in (*METRICS, *BREAKDOWN):
        return [name]
    labels = [column.label for column in columns if column.kind in ("model", "task")]
    near = difflib.get_close_matches(name, dict.fromkeys([*map(str, frame.columns), *labels]), n=3)
    there = dict.fromkeys([*(column.name for column in columns if column.kind in ("identity", "metric")), *labels])
    hint = f"near: {', '.join(near)}" if near else f"there are {and_more(list(there), 12)}"
    raise ValueError(f"{option}: no column {name!r} in these records; {hint}")


def _fulfils(value: Any, condition: Condition, column: str) -> bool:
    if condition.comparison in _COMPARED:
        return _is_number(value) and _COMPARED[condition.comparison](float(value), float(condition.values[0]))
    return any(_is(value, wanted, column) for wanted in condition.values)


def _is(value: Any, wanted: str, column: str) -> bool:
    if value is None:
        return wanted == ""
    if str(value) == wanted or str(value).lower() == wanted.lower() in ("true", "false"):
        return True
    if column in ("attention", "baseline"):
        name, options = name_and_options(wanted)
        own, found = name_and_options(str(value))
        return name == own and options.items() <= found.items()
    return _is_number(value) and _is_number(wanted) and float(value) == float(wanted)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or value is None:
        return False
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _parted(text: str) -> list[str]:
    """Return the conditions in a text; words that begin none belong to the value before them."""
    parts: list[str] = []
    for word in _split(text, " "):
        if parts and not _CONDITION.fullmatch(word):
            parts[-1] += f" {word}"
        else:
            parts.append(word)
    return parts


def _split(text: str, separator: str) -> list[str]:
    """Return the parts between separators that are not inside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part for part in parts if part]
