"""Speeds that others have measured, as records with their provenance: in columns of their own, and without a rank.

{"backbone": "swin_t", "attention": "softmax", "device": "Apple M3", "tool": "coremltools", "version": "8.1",
 "command": "python time.py swin_t", "precision": "fp16", "batch": 1, "milliseconds": 4.2}
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import results
from backbones import preset
from harness.cells import Cell
from harness.cells.tasks import Imported
from results import Record

TEXTS = ("backbone", "attention", "device", "tool", "version", "command", "precision")
FIELDS = (*TEXTS, "batch", "milliseconds")


def imported(file: Path) -> Record:
    """Return the record of a foreign measurement; `milliseconds` are those of a batch in inference.

    Raises ValueError, in one line with the file, for what is missing, unknown or not allowed.
    """
    given = results.read_json(file)
    try:
        return _record(given, file.name)
    except ValueError as problem:
        raise ValueError(f"{file}: {problem}") from problem


def keep(record: Record, out: Path) -> bool:
    """Write the record of a foreign measurement; return False if the same is recorded already.

    Raises ValueError, in one line, where `out` has another time in the same circumstances, which stays.
    """
    path = out / f"{record.key}.json"
    if path.exists():
        known = results.read(path).metrics.get("imported_ms")
        if known != record.metrics["imported_ms"]:
            raise ValueError(f"{path} has {known} ms of the same model and circumstances: move it away first")
        return False
    results.write(out, record)
    return True


def _record(given: dict[str, Any], source: str) -> Record:
    for problem, names in (("lacks", set(FIELDS) - given.keys()), ("has the unknown", given.keys() - set(FIELDS))):
        if names:
            raise ValueError(f"it {problem} {', '.join(sorted(names))}; it takes {', '.join(FIELDS)}")
    for name in TEXTS:
        if not isinstance(given[name], str) or not given[name].strip():
            raise ValueError(f"{name} is {given[name]!r}; allowed are texts")
    batch, time = given["batch"], given["milliseconds"]
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise ValueError(f"batch is {batch!r}; allowed are whole numbers from 1 up")
    if isinstance(time, bool) or not isinstance(time, int | float) or not (math.isfinite(time) and time > 0):
        raise ValueError(f"milliseconds is {time!r}; allowed are numbers above 0")
    task = Imported(given["device"], given["tool"], given["version"], given["precision"], batch)
    cell = Cell(preset(given["backbone"], attention=given["attention"]), task)
    metrics = {
        "imported_ms": float(time),
        "imported_images_per_s": 1e3 * batch / time,
        "imported_command": given["command"],
        "imported_from": source,
    }
    # Nothing of this machine: it has measured nothing.
    environment = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "device_name": given["device"]}
    return Record(cell.key, cell.to_json(), "done", metrics, environment)
