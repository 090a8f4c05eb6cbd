"""Frames as the tables of a page: texts as printed, values to sort by and copy, the records behind."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from results.records import Record
from results.report.provenance import Provenance
from results.report.shared import coded, plain
from results.sheets import Sheet
from results.statistics import wilson
from results.tables import schema
from results.tables.columns import Column, columns_of, values_of
from results.tables.naming import shortened
from results.tables.views import sheet, shown_columns

Spec = dict[str, Any]


def results_table(frame: pd.DataFrame, provenance: Provenance) -> Spec:
    """Return the records as a table: the columns of the table command, and hidden ones in which rows differ."""
    usual = list(shown_columns(frame))
    columns = columns_of(frame)
    metrics = [c for c in columns if c.kind == "metric" and frame[c.name].notna().any()]
    differing = [c for c in columns if c.kind in ("model", "task") and frame[c.name].nunique() > 1]
    further = {c.name: "" for c in (*metrics, *differing) if c.name not in usual}
    before = [name for name in usual if name not in ("certificate", "warning", "folder", "status")]
    found = sheet(frame, {name: "" for name in before if name not in ("backbone", "attention")} | further)
    names = list(shown_columns(frame, {name: "" for name in before if name not in ("backbone", "attention")} | further))
    sources = _tasks_of(provenance.records)
    listed = []
    for position, name in enumerate(names):
        column = Column.parse(name)
        own = _column(name, found, position, frame, column, hidden=name not in usual)
        if column.kind == "metric":
            own["task"] = sources.get(name, "")
            own |= _spread(frame, name)
        listed.append(own)
    keys = [c for c in columns if c.kind == "record" and c.path == ("key",)]
    rows: list[dict[str, int]] = [{} for _ in range(len(frame))]
    for key in keys:
        created = frame.get(key.beside("created").name)
        times = values_of(created) if created is not None else [None] * len(frame)
        for row, value, time in zip(rows, values_of(frame[key.name]), times, strict=True):
            if (number := provenance.number(value, time)) is not None:
                row[key.task] = number
    return {"columns": listed, "rows": rows, "count": len(frame), "notes": found.below}


def sheet_table(found: Sheet, sources: Sequence[Sequence[int]], numbers: Sequence[str] = ()) -> Spec:
    """Return a sheet as a table; `sources` has the records of each row, which open from the columns `numbers`."""
    listed = []
    for position, header in enumerate(found.headers):
        texts = [row[position] for row in found.rows]
        own = {"name": _unique(found.headers, position), "label": header, **coded(texts)}
        if position in found.right:
            own |= {"right": True, "values": [_number(text) for text in texts]}
        if header in numbers:
            own["opens"] = True
        listed.append(own)
    rows = [{"records": list(each)} for each in sources]
    return {"columns": listed, "rows": rows, "count": len(found.rows), "notes": found.below}


def lacking_table(
    records: Sequence[Record], expected: Sequence[tuple[str, dict[str, Any]]], provenance: Provenance
) -> Spec:
    """Return the cells that failed, ran out of memory or are not recorded, with the reason of each."""
    recorded = {record.key for record in records}
    rows: list[tuple[dict[str, Any], str, str, list[int]]] = []
    for key, cell in dict(expected).items():
        if key not in recorded:
            rows.append((cell, "missing", "not measured yet", []))
    for number, record in enumerate(provenance.records):
        if record.status != "done":
            rows.append((record.cell, record.status, record.reason or "no error was recorded", [number]))
    attentions = pd.Series([cell["backbone"]["attention"] for cell, *_ in rows], dtype="str")
    short, _ = shortened(attentions)
    cells = [
        [c["backbone"]["name"], short[c["backbone"]["attention"]], c["task"]["name"], _seed(c), status, reason]
        for c, status, reason, _ in rows
    ]
    headers = ("backbone", "attention", "task", "seed", "status", "reason")
    found = sheet_table(Sheet(headers, cells, frozenset({3})), [numbers for *_, numbers in rows], ("reason",))
    found["columns"][1] |= {"attention": list(attentions)}
    return found


def with_attentions(table: Spec, attentions: Sequence[str], header: str = "attention") -> Spec:
    """Return a table whose column of attentions also says which each is, with all options."""
    for column in table["columns"]:
        if column["label"] == header:
            column["attention"] = list(attentions)
    return table


def _seed(cell: dict[str, Any]) -> str:
    seed = cell["task"].get("seed")
    return "-" if seed is None else str(seed)


def _unique(headers: Sequence[str], position: int) -> str:
    """Return a header, numbered where an earlier column has it too."""
    earlier = list(headers[:position]).count(headers[position])
    return f"{headers[position]}.{earlier + 1}" if earlier else headers[position]


def _number(text: str) -> float | None:
    """Return the number at the start of a text of a sheet, by which the column is sorted."""
    first = text.replace("−", "-").split(" ")[0].lstrip("<")
    try:
        return float(first) if first else float(text.split(" ")[1])
    except (ValueError, IndexError):
        return None


def _column(name: str, found: Sheet, position: int, frame: pd.DataFrame, column: Column, *, hidden: bool) -> Spec:
    texts = [row[position] for row in found.rows]
    own: Spec = {"name": name, "label": found.headers[position], **coded(texts)}
    if meaning := schema.meaning(column):
        own |= {"help": meaning.text, "unit": "" if meaning.unit == "1" else meaning.unit, "better": meaning.better}
    if hidden:
        own["hidden"] = True
    if position in found.right:
        own |= {"right": True, "values": [plain(value) for value in values_of(frame[name])] if name in frame else []}
    if column.kind == "metric":
        own["opens"] = True
    for what, cells in (("best", found.best), ("second", found.second)):
        if rows := sorted(row for row, at in cells if at == position):
            own[what] = rows
    if name == "attention":
        own["attention"] = values_of(frame["attention"])
    return own


def _tasks_of(records: Sequence[Record]) -> dict[str, str]:
    """Return by the name of a metric, and by that with the task in front, the task that measures it."""
    forms = dict.fromkeys((record.cell["task"]["name"], tuple(record.metrics)) for record in records)
    found: dict[str, str] = {}
    for task, names in forms:
        for name in names:
            found[f"{task}_{name}"] = task
            found.setdefault(name, task)
    return found


def _spread(frame: pd.DataFrame, name: str) -> Spec:
    """Return the interval of each value: of an accuracy over the images, of a median time its quartiles."""
    if name.endswith("_p50") and {f"{name[:-2]}25", f"{name[:-2]}75"} <= set(frame.columns):
        ends = [[plain(v) for v in values_of(frame[f"{name[:-2]}{end}"])] for end in (25, 75)]
        return {"low": ends[0], "high": ends[1], "spread": "quartiles"}
    task, accuracy, _ = name.partition("top")
    images = frame.get(f"{task}n_images")
    if not accuracy or name.split("_")[-1] not in ("top1", "top5", "ema") or images is None:
        return {}
    pairs = list(map(_wilson, values_of(frame[name]), values_of(images)))
    return {"low": [p[0] for p in pairs], "high": [p[1] for p in pairs], "spread": "95 % interval over images (Wilson)"}


def _wilson(percent: Any, images: Any) -> tuple[float | None, float | None]:
    numbers = isinstance(percent, int | float) and isinstance(images, int | float)  # not so in a foreign record
    if not numbers or not 0 <= percent <= 100:
        return None, None
    low, high = wilson(percent / 100, images)
    return round(100 * low, 4), round(100 * high, 4)
