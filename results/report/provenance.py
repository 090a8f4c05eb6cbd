"""What each number of a page rests on: its record, environment, recipe, certificate, run folder, command."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from results.certificates import Certificate
from results.figures.curves import read_run
from results.records import SOURCE, Record, read_json
from results.report.places import without_places
from results.report.shared import Shared, plain

_POINTS = 100_000
"""Epochs of all runs together that a page holds; of more, every second or third is left out, and so on."""

_UNSAID = ("date", "host")
"""Of an environment: the time is that of the record, and a reader needs the device, not the name of its machine."""

_ENDED = ("job", "ended", "epochs", "step", "steps")


class Provenance:
    """The records of a page, numbered in their order, and what they share.

    `commands` has for keys of records the command lines that measure them again, `places` for folders the names that
    the page has for them.
    """

    def __init__(
        self,
        records: Sequence[Record],
        certificates: Sequence[Certificate] = (),
        commands: Mapping[str, str] | None = None,
        places: Mapping[str, str] | None = None,
    ) -> None:
        self.records = records
        self._numbers: dict[str, list[int]] = {}
        for number, record in enumerate(records):
            self._numbers.setdefault(record.key, []).append(number)
        self._shared = Shared()
        self._places = places or {}
        self._commands = commands or {}
        self._certificates: dict[tuple[str, str], list[Certificate]] = {}
        for certificate in certificates:
            self._certificates.setdefault((certificate.attention, certificate.source), []).append(certificate)

    def number(self, key: Any, created: Any = None) -> int | None:
        """Return the number of the record with this key; of several, as of several folders, that of this time."""
        found = self._numbers.get(key, []) if isinstance(key, str) else []
        return next((each for each in found if self.records[each].created == created), found[0] if found else None)

    def data(self) -> dict[str, Any]:
        """Return plain JSON: the records, and the values that they refer to by number."""
        runs = [_run(record) for record in self.records]
        epochs = sum(len(run["epochs"]) for run in runs if run)
        every = max(1, -(-epochs // _POINTS))
        found = [self._record(record, run, every) for record, run in zip(self.records, runs, strict=True)]
        return {"records": found, "shared": self._shared.values}

    def _record(self, record: Record, run: dict[str, Any] | None, every: int) -> dict[str, Any]:
        backbone, environment = record.cell["backbone"], record.environment
        found: dict[str, Any] = {
            "key": record.key,
            "created": record.created,
            "status": record.status,
            "backbone": self._shared.number(backbone),
            "task": {name: self._part(without_places(value)) for name, value in record.cell["task"].items()},
            "environment": self._shared.number({k: v for k, v in environment.items() if k not in _UNSAID}),
            "names": self._shared.number(list(record.metrics)),
            "values": [plain(value) for value in record.metrics.values()],
        }
        if record.error:
            found["error"] = self._shared.number(record.error)
        if record.folder is not None:
            found["folder"] = self._shared.number(self._places.get(str(record.folder), str(record.folder)))
        if record.disturbed:
            found["disturbed"] = record.disturbed
        if command := self._commands.get(record.key):
            found["command"] = self._shared.number(command)
        source = environment.get(SOURCE)
        if certificates := self._certificates.get((backbone["attention"], str(source))):
            found["certificates"] = [self._shared.number(each) for each in _short(certificates)]
        elif source is not None and any(attention == backbone["attention"] for attention, _ in self._certificates):
            found["certificates"] = []
        if run:
            kept = run["epochs"][::every]
            kept = kept if kept[-1:] == run["epochs"][-1:] else [*kept, run["epochs"][-1]]
            found["run"] = {**run, "epochs": kept, "every": every}
        return found

    def _part(self, value: Any) -> Any:
        """Return a field of a task; an object is a reference."""
        return {"shared": self._shared.number(value)} if isinstance(value, dict) else value


def _short(certificates: Sequence[Certificate]) -> list[dict[str, Any]]:
    """Return certificates for people, each device and form once."""
    found: dict[str, dict[str, Any]] = {}
    for each in certificates:
        laws = [[law.law, law.verdict, law.detail] for law in each.laws]
        short = {"short": each.short, "form": each.form, "device": each.device, "laws": laws}
        found.setdefault(each.short, short | {"commit": each.environment.get("commit")})
    return list(found.values())


def _run(record: Record) -> dict[str, Any] | None:
    """Return what the run folder of a record says of each epoch and start, or why it cannot be read; None without."""
    if record.folder is None or record.cell["task"]["name"] != "train":
        return None
    folder = record.folder / record.key
    if not (folder / "metrics.jsonl").is_file():
        return None
    try:
        run = read_run(folder)
        starts = _starts(folder)
    except ValueError as problem:
        return {"epochs": [], "resumed": [], "starts": [], "problem": str(problem).removeprefix(f"{record.folder}/")}
    epochs = [[each["epoch"], *(plain(each.get(name)) for name in ("top1", "train_loss"))] for each in run.epochs]
    return {"epochs": epochs, "resumed": run.resumed, "starts": starts}


def _starts(folder: Path) -> list[dict[str, Any]]:
    """Return where each start of a run ran, and how it ended."""
    files = [read_json(path) for path in sorted((folder / "attempts").glob("*.json")) if path.stat().st_size]
    return [{name: each[name] for name in _ENDED if each.get(name) is not None} for each in files]


def as_json(value: Any) -> str:
    """Return JSON that is safe inside a script element of HTML, whatever its texts hold."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    # A lone surrogate stands for a byte of a file name that is not UTF-8: it cannot be encoded as it is.
    return re.sub("[<>&\u2028\u2029\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)
