"""The record of a cell: whether it exists, what it says, and what goes into a new one."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import results
from attentions import source_digest
from harness.cells import Cell, Train
from harness.process.environment import environment
from results import SOURCE, Record

FINAL = ("done", "oom")
"""A record of another status is a failure of ours or of the machine: its cell runs again on request."""


def recorded(cell: Cell, out: Path) -> Record | None:
    """Return the final record of a cell in the folder `out`, or None."""
    record = _read(cell.key, out)
    return record if record is not None and settles(record, cell) else None


def settles(record: Record, cell: Cell) -> bool:
    """Whether a record is the final one of a cell."""
    if record.status not in FINAL or not cell.equals(record.cell):
        return False
    # Whether a training fits depends on how its batch is split, which is no part of the key.
    return not (record.status == "oom" and isinstance(cell.task, Train))


def is_disturbed(record: Record, cell: Cell) -> bool:
    """Whether others disturbed what a record measures, so that it can be measured again; a training is not repeated."""
    return bool(record.disturbed) and not isinstance(cell.task, Train)


@contextmanager
def set_aside(cells: Iterable[Cell], out: Path) -> Iterator[None]:
    """Rename the disturbed records of cells to `<key>.disturbed`, so that the cells count as not recorded.

    Where the block raises, those of cells without a new record are put back.
    """
    aside = []
    for cell in cells:
        record = recorded(cell, out)
        if record is not None and is_disturbed(record, cell):
            path = out / f"{cell.key}.json"
            aside.append((path, path.replace(path.with_suffix(".disturbed"))))
    try:
        yield
    except BaseException:
        for path, old in aside:
            if not path.exists():
                old.replace(path)
        raise


def _read(key: str, out: Path) -> Record | None:
    """Return the record in a file, or None if it is missing or damaged."""
    try:
        return results.read(out / f"{key}.json")
    except ValueError:
        return None


def failed_record(cell: Cell, error: str) -> Record:
    """Return the record of a cell that failed without a measurement."""
    return Record(cell.key, cell.to_json(), "failed", {}, environment_of(cell), error)


def outcome(record: Record) -> str:
    """Return one line on how a cell ended."""
    if record.error is not None:
        return f"{record.status}: {record.reason}"
    shown = ("params_m", "gmacs", "images_per_s", "train_step_ms_p50", "top1", "top1_stderr")
    numbers = (f"{name} {record.metrics[name]:.4g}" for name in shown if record.metrics.get(name) is not None)
    if record.wrong is not None:
        return f"{record.status}: {record.wrong}"
    disturbed = f"; disturbed: {'; '.join(dict.fromkeys(record.disturbed.values()))}" if record.disturbed else ""
    return f"{record.status}: {', '.join(numbers)}{disturbed}"


def environment_of(cell: Cell) -> dict[str, Any]:
    """Return the environment of a record: that of its device, and the hash of the attention's code."""
    return environment(cell.device) | {SOURCE: source_digest(cell.backbone.attention.name)}


def keep_damaged(cell: Cell, out: Path) -> None:
    """Move a file that is not an intact record of the cell out of the way of the new one, so that nothing is lost."""
    path, record = out / f"{cell.key}.json", _read(cell.key, out)
    if path.exists() and (record is None or not cell.equals(record.cell)):
        path.replace(path.with_suffix(".damaged"))


def ended_at(key: str, out: Path) -> str | None:
    """Return when the record of a cell was written, whatever its status; None without a record."""
    record = _read(key, out)
    return None if record is None else record.created
