"""Records of several folders, from several people or machines: their union, in which nothing is averaged or hidden."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from results.records import Record, read_all
from results.wording import and_more


class Union(NamedTuple):
    """`problems` has a line for each damaged file, `conflicts` one for each cell that was measured more than once."""

    records: list[Record]
    problems: list[str]
    conflicts: list[str]


def read_folders(folders: Sequence[Path]) -> Union:
    """Read all valid records of folders, which are only read.

    A record that several of them hold with the same outcome is there once, from the first; with unlike outcomes each of
    them is there, and one of the `conflicts` says so.
    """
    by_key: dict[str, list[Record]] = {}
    problems = []
    for folder in folders:
        found, damaged = read_all(folder)
        problems += damaged
        for record in found:
            by_key.setdefault(record.key, []).append(record)
    records, conflicts = [], []
    for same in by_key.values():
        if len(same) == 1:
            records += same
            continue
        distinct = [one for position, one in enumerate(same) if not any(_same(one, other) for other in same[:position])]
        records += distinct
        if len(distinct) > 1:
            conflicts.append(_conflict(distinct))
    return Union(records, problems, conflicts)


def _same(one: Record, other: Record) -> bool:
    return _outcome(one) == _outcome(other)


def _outcome(record: Record) -> Any:
    """Return what must be equal in two records of one measurement; NaN equals NaN."""
    metrics = {name: str(value) if _is_nan(value) else value for name, value in record.metrics.items()}
    return replace(record, metrics=metrics)


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _conflict(records: Sequence[Record]) -> str:
    first, *others = records
    names = [
        name
        for name in dict.fromkeys(name for record in records for name in record.metrics)
        if any(_outcome(first).metrics.get(name) != _outcome(other).metrics.get(name) for other in others)
    ]
    backbone = first.cell["backbone"]
    label = f"{backbone['name']}, {backbone['attention']}, {first.cell['task']['name']}"
    if not names:
        return f"{label}: {first.key} is in {_folders(records)}, measured apart, with the same numbers; both are shown."
    unlike = [f"{name} {' and '.join(str(record.metrics.get(name)) for record in records)}" for name in names]
    return f"{label}: {first.key} is in {_folders(records)} with unlike numbers, and all are shown: {and_more(unlike)}."


def _folders(records: Sequence[Record]) -> str:
    return " and ".join(str(record.folder) for record in records)
