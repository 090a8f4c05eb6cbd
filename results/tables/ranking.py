"""The best and the second best number of a column, among rows that may be compared."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from results.tables import schema
from results.tables.columns import columns_of, is_figure, values_of
from results.tables.times import HARDWARE, disturbed_rows, task_of_time

# Circumstances in which rows may differ and still be compared.
_FREE = ("seed", "workers", "root", "path", "cache", "checkpoint_minutes", "tensorboard", "min_seconds")

_RUN = ("evaluate.weights.name", "evaluate.weights.run")
_IMAGES = ("n_images", "val_list")


def ranked(frame: pd.DataFrame, metric: str, texts: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return the rows whose number is the best, and the second best, of those that may be compared with it.

    These are rows of one backbone whose number was measured in the same circumstances; only with several attentions
    among them is one the best. Rows are compared by their `texts`, so what reads alike ranks alike. A metric that is no
    merit, a disturbed time, a number of a run that failed, a text in place of a number, and an attention with several
    rows, as of several seeds, are not ranked.
    """
    better = schema.better(metric)
    best: list[int] = []
    second: list[int] = []
    if not better or metric not in frame:
        return best, second
    countable = countable_rows(frame, metric)
    groups: dict[tuple[Any, ...], list[int]] = {}
    values = values_of(frame[metric])
    for row, (group, value) in enumerate(zip(contests(frame, metric), values, strict=True)):
        if is_figure(value) and value == value and countable[row]:
            groups.setdefault(group, []).append(row)
    attentions = frame["attention"].tolist()
    for rows in groups.values():
        if len({attentions[row] for row in rows}) < len(rows) or len(rows) < 2:
            continue
        ordered = sorted(rows, key=lambda row: values[row], reverse=better == "higher")
        levels = list(dict.fromkeys(texts[row] for row in ordered))
        best += [row for row in rows if texts[row] == levels[0]]
        if len(levels) > 1:
            second += [row for row in rows if texts[row] == levels[1]]
    return best, second


def contests(frame: pd.DataFrame, metric: str) -> list[tuple[Any, ...]]:
    """Return for each row what is the same in rows whose numbers may be compared.

    These are the backbone with every field of its model, and the circumstances of the tasks that the number depends on.
    """
    task = task_of_time(metric)
    # An accuracy of an evaluation is that of a training, too, where the row has one.
    tasks = {*schema.tasks_of(metric), *(("train", "evaluate") if "top" in metric else ())}
    # What is known of an evaluated run is its training, in the same row; which run it was is no circumstance.
    of_runs = "record.train.key" in frame
    names = ["backbone"]
    for column in columns_of(frame):
        is_free = column.path[-1] in _FREE or (of_runs and column.name in _RUN)
        is_circumstance = column.kind == "task" and column.task in tasks and not is_free
        of_hardware = task and column.task == task and column.path[0] == "environment" and column.path[-1] in HARDWARE
        # Folders of images have no name, so only the list of the images says whether two of them are the same.
        of_images = column.name in {name for each in tasks for part in _IMAGES for name in (part, f"{each}_{part}")}
        if is_circumstance or of_hardware or (of_images and not task) or column.kind == "model":
            names.append(column.name)
    # Most circumstances are the same in all rows, and tell none of them apart.
    columns: list[list[Any]] = [values_of(frame[name]) for name in names if name == "backbone" or _differs(frame[name])]
    return list(zip(*columns, strict=True))


def _differs(column: pd.Series) -> bool:
    return len(column) > 0 and column.nunique(dropna=False) > 1


def countable_rows(frame: pd.DataFrame, metric: str) -> list[bool]:
    """Return for each row whether its number of a metric may be ranked, and averaged with others.

    It may not where its measurement was disturbed or its record is not done: a run that failed may hold numbers.
    """
    disturbed = disturbed_rows(frame, metric) or [False] * len(frame)
    found = [name for task in schema.tasks_of(metric) if (name := f"record.{task}.status") in frame]
    statuses = list(zip(*(values_of(frame[name]) for name in found), strict=True)) or [("done",)] * len(frame)
    return ["done" in own and not spoiled for own, spoiled in zip(statuses, disturbed, strict=True)]
