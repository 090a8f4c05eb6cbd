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
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import PurePath
from typing import Any, NamedTuple, get_args

import pandas as pd

from results.certificates import Certificate, certificate_summary
from results.garbage import no_collection
from results.records import SOURCE, Record, model_of
from results.tables.assembly import ABSENT, Columns, once_per_object
from results.tables.columns import Column, Kind
from results.wording import count, natural

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
IMPORTED = ("imported_images_per_s",)
"""Shown beside METRICS, but no merit of ours: others have measured them."""
BREAKDOWN = ("gmacs_attention", "gmacs_projections", "gmacs_convolutions", "gmacs_mlp", "gmacs_norms")

# The first columns of every frame.
_ALWAYS = tuple(Column.parse(name) for name in ("backbone", "attention", "status", "error"))
_WORST_FIRST = ("failed", "oom", "missing", "done")


class _Entry(NamedTuple):
    """A cell that has a record or is expected to have one."""

    key: str
    cell: dict[str, Any]
    record: Record | None


_Row = dict[str, _Entry]
"""One entry per task."""


@no_collection()
def table(
    records: Sequence[Record],
    expected: Sequence[tuple[str, dict[str, Any]]] = (),
    certificates: Sequence[Certificate] = (),
) -> pd.DataFrame:
    """Return the frame described above. `expected` lists (key, cell as JSON) of the cells that the table is about.

    Records of one model (the same `backbone` except for the label `name`) share rows. A model has one row per speed
    record and training record, with the other numbers repeated; an evaluation of the weights of a training is in the
    rows of that training only, and what others have measured is in rows of its own. Rows keep the order of `expected`;
    records not in it follow, sorted by backbone and attention.
    """
    model = once_per_object(model_of)
    models: dict[tuple[str, bool], dict[str, list[_Entry]]] = {}
    for entry in _entries(records, expected):
        task = entry.cell["task"]["name"]
        tasks = models.setdefault((model(entry.cell["backbone"]), task == "imported"), {})
        tasks.setdefault(task, []).append(entry)
    rows = [
        dict(zip(tasks, entries, strict=True))
        for model_tasks in models.values()
        for tasks in _by_run(model_tasks)
        for entries in itertools.product(*tasks.values())
    ]
    found = Columns(rows)
    _identify(found, rows, certificates)
    _describe(found, rows, _metrics_of_several_tasks(records))
    present = found.in_order()
    metrics = map(Column.parse, (*shown_metrics(present), *BREAKDOWN))
    preferred = dict.fromkeys([*_ALWAYS, *metrics, *present])
    return found.frame(sorted((column for column in preferred if column in found or column in _ALWAYS), key=_block))


def shown_metrics(columns: Iterable[Column]) -> list[str]:
    """Return METRICS and IMPORTED as they are named among the columns."""
    present = set(columns)
    return [name for metric in (*METRICS, *IMPORTED) for name in named(present, metric)]


def named(columns: Iterable[Column], metric: str) -> list[str]:
    """Return the names of a metric: its own, or one per task if several report it; its own if there is none."""
    names = {column.name for column in columns}
    if metric in names:
        return [metric]
    tasks = sorted({column.task for column in columns if column.kind == "record"})
    return [name for task in tasks if (name := f"{task}_{metric}") in names] or [metric]


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
    yield from (_Entry(record.key, record.cell, record) for record in in_natural_order(rest))


def _by_run(tasks: dict[str, list[_Entry]]) -> list[dict[str, list[_Entry]]]:
    """Return the entries of a model by task: once, or once per training if evaluations are of one of them."""
    trainings, evaluations = tasks.get("train", []), tasks.get("evaluate", [])
    runs = {entry.key: _run_of(entry) for entry in evaluations}
    own = {entry.key for entry in trainings}.intersection(runs.values())
    if not own:
        return [tasks]
    of_run: dict[str | None, list[_Entry]] = {}
    for entry in evaluations:
        of_run.setdefault(runs[entry.key], []).append(entry)
    of_others = [entry for run, entries in of_run.items() if run not in own for entry in entries]
    parts = []
    for training in trainings:
        beside = sorted([*of_others, *of_run.get(training.key, [])], key=evaluations.index) if of_others else None
        part = {**tasks, "train": [training], "evaluate": beside or of_run.get(training.key, [])}
        parts.append({name: entries for name, entries in part.items() if entries})
    return parts


def _run_of(entry: _Entry) -> str | None:
    """Return the key of the training whose weights an entry is about."""
    weights = entry.cell["task"].get("weights")
    return weights.get("run") if isinstance(weights, dict) else None


def in_natural_order(records: Iterable[Record]) -> list[Record]:
    """Return the records by backbone, attention and task, and then by what else differs in their cells.

    Numbers inside texts compare as numbers: focusing factor 4 comes before 32.
    """
    parts = cache(natural)
    alike: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        backbone, task = record.cell["backbone"], record.cell["task"]
        alike.setdefault((backbone["name"], backbone["attention"], task["name"]), []).append(record)
    ordered = []
    for names in sorted(alike, key=lambda names: [parts(name) for name in names]):
        found = alike[names]
        if len(found) == 1:
            ordered += found
            continue
        differing = [
            (part, name) for part in ("backbone", "task") for name in _differing([r.cell[part] for r in found])
        ]
        ordered += sorted(found, key=lambda r: [parts(_text(r.cell[part].get(name))) for part, name in differing])
    return ordered


def _differing(objects: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names, sorted, whose values are not equal in all the objects."""
    names = sorted(set().union(*dict.fromkeys(map(tuple, objects))))
    return [name for name in names if not _all_equal([each.get(name) for each in objects])]


def _all_equal(values: Sequence[Any]) -> bool:
    first, *others = dict(zip(map(id, values), values, strict=True)).values()
    return all(value == first for value in others)


def _text(value: Any) -> str:
    return str(value) if type(value) is int else json.dumps(value, sort_keys=True)


def _metrics_of_several_tasks(records: Sequence[Record]) -> set[str]:
    tasks: dict[str, dict[str, None]] = {}
    for task, names in dict.fromkeys((record.cell["task"]["name"], tuple(record.metrics)) for record in records):
        tasks.setdefault(task, {}).update(dict.fromkeys(names))
    several = {name for name, number in Counter(itertools.chain(*tasks.values())).items() if number > 1}
    # train_top1 beside a top1_ema without a task would read as if the two came from different records.
    return several | {
        name for names in tasks.values() for name in names for each in several if name.startswith(f"{each}_ema")
    }


def _identify(found: Columns, rows: Sequence[_Row], certificates: Sequence[Certificate]) -> None:
    """Add what a row is, and what is to be known of it."""
    first = [next(iter(row.values())).cell["backbone"] for row in rows]
    attentions = [backbone["attention"] for backbone in first]
    recorded = [[entry.record for entry in row.values() if entry.record] for row in rows]
    warnings = [_joined(map(_warning, records)) for records in recorded]
    of_attention: dict[str, list[Certificate]] = {}
    for certificate in certificates:
        of_attention.setdefault(certificate.attention, []).append(certificate)

    @cache
    def summary(attention: str, sources: frozenset[str]) -> str | None:
        return certificate_summary(attention, sources, of_attention.get(attention, ()))

    sources = [
        frozenset(str(r.environment[SOURCE]) for r in records if SOURCE in r.environment) for records in recorded
    ]
    verdicts = list(map(summary, attentions, sources))
    columns: dict[str, list[Any]] = {
        "backbone": [backbone["name"] for backbone in first],
        "attention": attentions,
        "status": [min(map(_status, row.values()), key=_WORST_FIRST.index) for row in rows],
        "error": [_joined(itertools.starmap(_failure, row.items())) for row in rows],
        "warning": [warning or ABSENT for warning in warnings],
        "certificate": [verdict or ABSENT for verdict in verdicts],
    }
    folders = [dict.fromkeys(str(record.folder) for record in records if record.folder) for records in recorded]
    if len(set(itertools.chain(*folders))) > 1:
        columns["folder"] = [", ".join(each) or ABSENT for each in folders]
    for name, values in columns.items():
        found.add("", Column("identity", "", (name,)), values)


def _describe(found: Columns, rows: Sequence[_Row], ambiguous: set[str]) -> None:
    """Add metrics and circumstances. A metric that several tasks report is prefixed with its task."""
    backbones = [next(iter(row.values())).cell["backbone"] for row in rows]
    found.add_fields("model", "", (), backbones, left_out=("name", "attention"))
    for task in dict.fromkeys(itertools.chain(*rows)):

        def column_of(metric: str, task: str = task) -> Column:
            # A metric of a user's task may have any name; one with dots is read as the column that it looks like.
            return Column.parse(f"{task}_{metric}" if metric in ambiguous else metric)

        entries = [row.get(task) for row in rows]
        records = [entry.record if entry else None for entry in entries]
        tasks = _with_runtimes([_with_named_weights(entry.cell["task"]) if entry else None for entry in entries])
        found.add_fields("task", task, (), tasks, left_out=("name",))
        found.add(task, Column("record", task, ("status",)), [_status(entry) if entry else ABSENT for entry in entries])
        found.add_metrics(task, column_of, [record.metrics if record else None for record in records])
        for name in ("key", "created"):
            values = [getattr(record, name) if record else ABSENT for record in records]
            found.add(task, Column("record", task, (name,)), values)
        environments = [record.environment if record else None for record in records]
        found.add_fields("record", task, ("environment",), environments)


def _status(entry: _Entry) -> str:
    return entry.record.status if entry.record else "missing"


def _joined(texts: Iterable[str | None]) -> str | None:
    return "; ".join(filter(None, texts)) or None


def _failure(task: str, entry: _Entry) -> str | None:
    """Return one line about a record that is not done, from the last line of its traceback."""
    record = entry.record
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


def _with_named_weights(task: dict[str, Any]) -> dict[str, Any]:
    """Return a task whose weights, if any, have a name: that of their file, or the label of their run."""
    match task.get("weights"):
        case {"run": run, "label": label, **rest}:
            return {**task, "weights": {"name": label, "run": run, **rest}}
        case {"path": str(path), **rest} if path and "name" not in rest:
            return {**task, "weights": {"name": PurePath(path).name, **task["weights"]}}
    return task


def _with_runtimes(tasks: Sequence[dict[str, Any] | None]) -> Sequence[dict[str, Any] | None]:
    """Return the tasks; where some are of another runtime than torch, the others say that theirs is torch."""
    where = [task.get("runtime") if task else None for task in tasks]
    if not any(isinstance(each, dict) and "runtime" in each for each in where):
        return tasks

    @once_per_object
    def told(runtime: dict[str, Any]) -> dict[str, Any]:
        return runtime | {"runtime": "torch", "version": None} | runtime

    return [
        {**task, "runtime": told(each)} if task and isinstance(each, dict) else task
        for task, each in zip(tasks, where, strict=True)
    ]


def _block(column: Column) -> int:
    """Return the position of the kind of a column in the list at the top of this file."""
    return get_args(Kind).index(column.kind)
