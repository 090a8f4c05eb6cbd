"""The frame of a table as a sheet for people: columns that distinguish rows, sensible digits, and notes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from results.garbage import no_collection
from results.sheets import Sheet
from results.tables.columns import Column, columns_of
from results.tables.frames import shown_metrics
from results.tables.naming import shortened
from results.tables.notes import HEADLINES, advice, average_of, notes, of_task, tells_runtime
from results.tables.ranking import ranked
from results.tables.texts import STANDARD_ERROR, texts_of

# Fields that say where an image set, a file of weights or a cache is. Its name or digest says what it is.
_PLACES = ("root", "path", "cache")
# An evaluation uses the weights of the training in its row if the last two are equal.
_WEIGHTS, _RUN, _TRAINING = "evaluate.weights.name", "evaluate.weights.run", "record.train.key"
# What a narrow table can do without, the first one first; then circumstances.
_SPARE = ("certificate", "gmacs_fvcore", "train_peak_allocated_mib", "train_step_ms_p50")


def shown_columns(frame: pd.DataFrame, chosen: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return {column: label, "" for the usual one} of a table: what identifies a row, the metrics, the circumstances in
    which rows differ, verdicts, the status.

    `chosen` are other columns in place of the usual metrics, {} of METRICS that have a value.
    """
    present = columns_of(frame)
    if not chosen:
        usual = shown_metrics(present)
        chosen = {name: "" for name in usual if name in frame and frame[name].notna().any()}
    models = [column.name for column in telling_fields(frame, ["backbone", "attention"])]
    tasks = dict.fromkeys([*HEADLINES, *(column.task for column in present if column.kind == "record")])
    circumstances = [column for task in tasks for column in of_task(frame, task)]
    differing = [c.name for c in circumstances if frame[c.name].nunique() > 1 and not _is_said(frame, c)]
    verdicts = [name for name in ("certificate", "warning", "folder") if name in frame]
    before = [name for name in ("backbone", "attention", *models) if name not in chosen]
    return {**dict.fromkeys(before, ""), **chosen, **_others([*differing, *verdicts, "status"], chosen)}


def telling_fields(frame: pd.DataFrame, names: list[str]) -> list[Column]:
    """Return the fields of models in which rows differ that have the same values of these columns.

    Of two backbones most fields differ, as their family does, and say no more than their names.
    """
    fields = [column for column in columns_of(frame) if column.kind == "model"]
    several = [column for column in fields if frame[column.name].nunique(dropna=False) > 1]
    alike = frame.groupby(names, sort=False)
    return [column for column in several if (alike[column.name].nunique(dropna=False) > 1).any()]


def _others(names: Sequence[str], chosen: Mapping[str, str]) -> dict[str, str]:
    return {name: "" for name in names if name not in chosen}


@no_collection()
def sheet(frame: pd.DataFrame, chosen: Mapping[str, str] | None = None) -> Sheet:
    """Return the columns of `shown_columns` for people, and notes. The order of the rows is the frame's."""
    names = shown_columns(frame, chosen)
    shown = [Column.parse(name) for name in names]
    numbers = [column.kind == "metric" or (column.name in frame and _is_number(frame[column.name])) for column in shown]
    short, common_options = shortened(frame["attention"])
    named_shortly = frame.assign(attention=frame["attention"].map(short))
    texts = [texts_of(named_shortly, column) for column in shown]
    best, second = set(), set()
    for position, column in enumerate(shown):
        ranks = ranked(frame, column.name, texts[position])
        best |= {(row, position) for row in ranks[0]}
        second |= {(row, position) for row in ranks[1]}
    headers = [
        label or _weights_label(frame, name, header)
        for (name, label), header in zip(names.items(), headers_of(shown), strict=True)
    ]
    spare = [*_SPARE, *(c.name for c in reversed(shown) if c.kind in ("task", "model")), *_settled(frame)]
    by_name = dict(zip(names, headers, strict=True))
    return Sheet(
        headers=headers,
        rows=[list(row) for row in zip(*texts, strict=True)],
        right=frozenset(position for position, number in enumerate(numbers) if number),
        notes=[*common_options, *notes(frame)],
        spare=[by_name[name] for name in spare if name in by_name and name not in (chosen or {})],
        asides=frozenset(by_name[name] for name in ("warning", "folder") if name in by_name),
        best=frozenset(best),
        second=frozenset(second),
        caption=_caption(frame, names),
        spread=STANDARD_ERROR,
        advice=advice(frame),
    )


def _caption(frame: pd.DataFrame, names: Iterable[str]) -> str:
    """Return what the numbers are: the convention of multiply-adds, and what an accuracy is of."""
    parts = []
    if any("gmacs" in name for name in names):
        parts.append("gmacs: one multiply-add counts as one; papers often print it as FLOPs.")
    images = sorted({int(n) for name in frame if str(name).endswith("n_images") for n in frame[name].dropna()})
    if images and any("top1" in name for name in names):
        said = " or ".join(f"{number:,}" for number in images)
        parts.append(f"top1: percent of {said} images.")
    return " ".join(parts)


def _settled(frame: pd.DataFrame) -> list[str]:
    return ["status"] if (frame["status"] == "done").all() else []


def _is_said(frame: pd.DataFrame, column: Column) -> bool:
    """Return whether a circumstance says no more than another one does.

    These are the place of a thing, its hash beside its name, the version of a runtime beside that, and the run that was
    evaluated beside the training itself.
    """
    if column.name in (_WEIGHTS, _RUN) and {_RUN, _TRAINING} <= set(frame.columns):
        return bool((frame[_RUN] == frame[_TRAINING])[frame[_WEIGHTS].notna()].all())
    if column.path[-1] in _PLACES or tells_runtime(frame, column):
        return True
    named = column.beside("name").name
    is_hash = column.path[-1] in ("digest", "run") and named in frame
    return is_hash and frame[named].nunique() == frame[column.name].nunique()


def _weights_label(frame: pd.DataFrame, column: str, header: str) -> str:
    """Return a header that says which weights an accuracy is of, if the table has both."""
    if average_of(frame, column):
        return f"{header} (raw)"
    if column.endswith("top1_ema") and frame.get(column, pd.Series(dtype=object)).notna().any():
        return f"{header.removesuffix('_ema')} (EMA)"
    return header


def headers_of(columns: Sequence[Column]) -> list[str]:
    """Return the label of each column, or its name if another one has the same label."""
    labels = [column.label for column in columns]
    return [column.label if labels.count(column.label) == 1 else column.name for column in columns]


def _is_number(values: Any) -> bool:
    return bool(pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values))
