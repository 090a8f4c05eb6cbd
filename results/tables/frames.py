"""Records as a table: one row per model, circumstances of speed and circumstances of training; nothing is averaged.

Columns of the frame, in this order (`<task>` is costs, speed, train or evaluate):

    backbone, attention, status, error      label, attention, the worst status of its records, what went wrong
    warning                                 why a number of a row is less than it seems, if one is
    certificate                             the laws that hold for the attention, if the measured code was tested
    params_m, images_per_s, top1, ...       the metrics under their own names, which carry the units
    model.image_size, ...                   the other fields of the model
    speed.runtime.batch, train.seed, ...    the circumstances: every field of the tasks
    record.<task>.status, .key, .created    the records from which the row was made
    record.<task>.environment.commit, ...   where and with what they were measured
"""

import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple, get_args

import pandas as pd

from results.certificates import Certificate, certificate_summary
from results.records import SOURCE, Record, model_of
from results.tables.columns import Column, Kind, flattened
from results.wording import count

# The metrics that a table shows by default, if they were measured.
METRICS = (
    "params_m",
    "gmacs",
    "gmacs_fvcore",
    "images_per_s",
    "train_step_ms_p50",
    "train_peak_allocated_mib",
    "top1",
    "top1_ema",
)
BREAKDOWN = ("gmacs_attention", "gmacs_projections", "gmacs_convolutions", "gmacs_mlp", "gmacs_norms")

# The first columns of every frame.
_ALWAYS = tuple(Column.parse(name) for name in ("backbone", "attention", "status", "error"))
# Of hexadecimal digits, one in 750 of 16: only decimal ones, or decimal ones around an e. No published number, and no
# version, has as many.
_NUMERIC_HASH = re.compile(r"(?=.{8,})\d+(e\d+)?")
_WORST_FIRST = ("failed", "oom", "missing", "done")


class _Entry(NamedTuple):
    """A cell that has a record or is expected to have one."""

    key: str
    cell: dict[str, Any]
    record: Record | None


def table(
    records: Sequence[Record],
    expected: Sequence[tuple[str, dict[str, Any]]] = (),
    certificates: Sequence[Certificate] = (),
) -> pd.DataFrame:
    """Return the frame described above. `expected` lists (key, cell as JSON) of the cells that the table is about.

    Records of one model (the same `backbone` except for the label `name`) share rows. A model has one row per speed
    record and training record, with the other numbers repeated; an evaluation of the weights of a training is in the
    rows of that training only. Rows keep the order of `expected`; records not in it follow, sorted by backbone and
    attention.
    """
    models: dict[str, dict[str, list[_Entry]]] = {}
    for entry in _entries(records, expected):
        models.setdefault(model_of(entry.cell["backbone"]), {}).setdefault(entry.cell["task"]["name"], []).append(entry)
    ambiguous = _metrics_of_several_tasks(records)
    rows = [
        _row(dict(zip(tasks, entries, strict=True)), ambiguous, certificates)
        for model_tasks in models.values()
        for tasks in _by_run(model_tasks)
        for entries in itertools.product(*tasks.values())
    ]
    present = set(_ALWAYS).union(*rows)
    metrics = map(Column.parse, (*shown_metrics(present), *BREAKDOWN))
    preferred = dict.fromkeys([*_ALWAYS, *metrics, *itertools.chain(*rows)])
    columns = sorted((column for column in preferred if column in present), key=_block)
    names = [column.name for column in columns]
    frame = pd.DataFrame([{c.name: value for c, value in row.items()} for row in rows], columns=names, dtype=object)
    integers = [name for name in names if _holds_integers(frame[name].dropna())]
    # Int64 rather than int64: a gap in the column must not turn a batch of 64 into 64.0.
    return frame.astype(dict.fromkeys(integers, "Int64")).infer_objects()


def shown_metrics(columns: Iterable[Column]) -> list[str]:
    """Return METRICS as they are named among the columns."""
    present = set(columns)
    return [name for metric in METRICS for name in named(present, metric)]


def named(columns: Iterable[Column], metric: str) -> list[str]:
    """Return the names of a metric: its own, or one per task if several report it; its own if there is none."""
    names = {column.name for column in columns}
    if metric in names:
        return [metric]
    tasks = sorted({column.task for column in columns if column.kind == "record"})
    return [name for task in tasks if (name := f"{task}_{metric}") in names] or [metric]


def to_csv(frame: pd.DataFrame) -> str:
    """Return every column of the frame at full precision under one header line; fields without a value are empty.

    A hash that a reader would take for a number, as 9253954e51983261 for infinity, has an apostrophe in front, which is
    how spreadsheets mark a text.
    """
    texts = frame.select_dtypes(exclude=["number", "bool"]).columns
    marked = frame.assign(**{str(name): frame[name].map(_marked) for name in texts})
    return str(marked.to_csv(index=False, lineterminator="\n"))


def _marked(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and _NUMERIC_HASH.fullmatch(value) else value


def _entries(records: Sequence[Record], expected: Sequence[tuple[str, dict[str, Any]]]) -> Iterator[_Entry]:
    by_key: dict[str, list[Record]] = {}
    for record in records:
        by_key.setdefault(record.key, []).append(record)
    cells: dict[str, dict[str, Any]] = {}
    for key, cell in expected:
        cells.setdefault(key, cell)
    for key, cell in cells.items():
        found = by_key.pop(key, [])
        # The label of the expected cell is the one asked for; that of the record may be another name of the same model.
        yield from [_Entry(key, cell, record) for record in found] or [_Entry(key, cell, None)]
    rest = [record for found in by_key.values() for record in found]
    yield from (_Entry(record.key, record.cell, record) for record in sorted(rest, key=natural_order))


def _by_run(tasks: dict[str, list[_Entry]]) -> list[dict[str, list[_Entry]]]:
    """Return the entries of a model by task: once, or once per training if evaluations are of one of them."""
    trainings, evaluations = tasks.get("train", []), tasks.get("evaluate", [])
    runs = {entry.key: _run_of(entry) for entry in evaluations}
    own = {entry.key for entry in trainings}.intersection(runs.values())
    if not own:
        return [tasks]
    parts = []
    for training in trainings:
        beside = [entry for entry in evaluations if runs[entry.key] not in own - {training.key}]
        part = {**tasks, "train": [training], "evaluate": beside}
        parts.append({name: entries for name, entries in part.items() if entries})
    return parts


def _run_of(entry: _Entry) -> str | None:
    """Return the key of the training whose weights an entry is about."""
    weights = entry.cell["task"].get("weights")
    return weights.get("run") if isinstance(weights, dict) else None


def natural_order(record: Record) -> list[list[str | int]]:
    """Return a sort key by which numbers inside texts compare as numbers: focusing factor 4 comes before 32."""
    backbone, task = record.cell["backbone"], record.cell["task"]
    rest = json.dumps(record.cell, sort_keys=True)
    texts = (backbone["name"], backbone["attention"], task["name"], rest)
    return [
        [int(part) if position % 2 else part for position, part in enumerate(re.split("([0-9]+)", text))]
        for text in texts
    ]


def _metrics_of_several_tasks(records: Sequence[Record]) -> set[str]:
    tasks: dict[str, set[str]] = {}
    for record in records:
        for name in record.metrics:
            tasks.setdefault(name, set()).add(record.cell["task"]["name"])
    several = {name for name, found in tasks.items() if len(found) > 1}
    # train_top1 beside a top1_ema without a task would read as if the two came from different records.
    return several | {name for name in tasks for each in several if name.startswith(f"{each}_ema")}


def _row(parts: dict[str, _Entry], ambiguous: set[str], certificates: Sequence[Certificate]) -> dict[Column, Any]:
    """Return one row from one entry per task. A metric that several tasks report is prefixed with its task."""
    backbone = next(iter(parts.values())).cell["backbone"]
    statuses = {task: entry.record.status if entry.record else "missing" for task, entry in parts.items()}
    failures = filter(None, (_failure(task, entry.record) for task, entry in parts.items()))
    row = {
        "backbone": backbone["name"],
        "attention": backbone["attention"],
        "status": min(statuses.values(), key=_WORST_FIRST.index),
        "error": "; ".join(failures) or None,
    }
    records = [entry.record for entry in parts.values() if entry.record]
    if warnings := "; ".join(filter(None, map(_warning, records))):
        row["warning"] = warnings
    sources = {str(record.environment[SOURCE]) for record in records if SOURCE in record.environment}
    if summary := certificate_summary(row["attention"], sources, certificates):
        row["certificate"] = summary
    found: dict[Column, Any] = {Column("identity", "", (name,)): value for name, value in row.items()}
    found |= flattened("model", "", {k: v for k, v in backbone.items() if k not in ("name", "attention")})
    for task, (_, cell, record) in parts.items():
        found |= flattened("task", task, _named({k: v for k, v in cell["task"].items() if k != "name"}))
        found[Column("record", task, ("status",))] = statuses[task]
        if record is None:
            continue
        for name, value in record.metrics.items():
            # A metric of a user's task may have any name; one with dots is read as the column that it looks like.
            column = Column.parse(f"{task}_{name}" if name in ambiguous else name)
            found[column] = math.nan if value is None else value
        found |= flattened("record", task, {"key": record.key, "created": record.created})
        found |= flattened("record", task, record.environment, ("environment",))
    return found


def _failure(task: str, record: Record | None) -> str | None:
    """Return one line about a record that is not done, from the last line of its traceback."""
    if record is None or record.status == "done":
        return None
    return f"{task} {record.status}: {record.reason or 'no error was recorded'}"


def _warning(record: Record) -> str | None:
    """Return what of the evaluated weights was not in their file."""
    left = sum(record.metrics.get(name) or 0 for name in ("weights_missing", "weights_reshaped"))
    if not left:
        return None
    head = "untrained head: " if record.metrics.get("head_trained") is False else ""
    return f"{head}{count(left, 'tensor')} as initialised"


def _named(task: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a task; its weights, if any, get a name: that of their file, or the label of their run."""
    match task.get("weights"):
        case {"run": run, "label": label, **rest}:
            return {**task, "weights": {"name": label, "run": run, **rest}}
        case {"path": str(path), **rest} if path and "name" not in rest:
            return {**task, "weights": {"name": PurePath(path).name, **task["weights"]}}
    return task


def _block(column: Column) -> int:
    """Return the position of the kind of a column in the list at the top of this file."""
    return get_args(Kind).index(column.kind)


def _holds_integers(values: pd.Series) -> bool:
    return len(values) > 0 and all(isinstance(value, int) and not isinstance(value, bool) for value in values)
