"""Values of a table as texts for people: sensible digits, standard errors, disturbed figures marked."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import pandas as pd

from results.tables.columns import Column, columns_of, is_figure, values_of
from results.tables.times import disturbed_rows

STANDARD_ERROR = "the standard error from the choice of the images, in points"
"""What ± is behind an accuracy."""

_DIGITS = {"params_m": 2, "gmacs": 3, "images_per_s": 0, "_ms": 2, "_mib": 0, "top1": 2, "top5": 2}


def texts_of(frame: pd.DataFrame, column: Column) -> list[str]:
    """Return the values of a column as texts for people."""
    if column.name not in frame:
        return ["-"] * len(frame)
    values = values_of(frame[column.name])
    if column.name == "status":
        return _statuses(frame, values)
    if column.kind != "metric":
        return ["-" if value is None else _plain(value) for value in values]
    texts = [_metric(column.name, value) for value in values]
    disturbed, errors = disturbed_rows(frame, column.name), _standard_errors(frame, column.name)
    if disturbed is not None:
        marked = zip(texts, values, disturbed, strict=True)
        texts = [f"{text} (disturbed)" if reason and is_figure(value) else text for text, value, reason in marked]
    elif errors is not None:
        known = zip(texts, values, errors, strict=True)
        texts = [
            text if not is_figure(value) or pd.isna(e) else f"{text} ± {number_text('top1', e)}"
            for text, value, e in known
        ]
    return texts


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _metric(name: str, value: Any) -> str:
    if value is None:
        return "-"
    return number_text(name, value) if is_figure(value) else str(value)


def _statuses(frame: pd.DataFrame, values: Sequence[str]) -> list[str]:
    """Return each status, with the tasks that have it where it is not "done"."""
    of_tasks = {c.task: frame[c.name] for c in columns_of(frame) if c.kind == "record" and c.path == ("status",)}
    texts = list(values)
    for row, value in enumerate(values):
        if value != "done":
            texts[row] = f"{value} ({', '.join(task for task, found in of_tasks.items() if found.iat[row] == value)})"
    return texts


def _standard_errors(frame: pd.DataFrame, metric: str) -> list[float] | None:
    """Return the standard errors, in points, of an accuracy in percent: the recorded or else the binomial ones."""
    task, accuracy, average = metric.partition("top1")
    if not accuracy or average not in ("", "_ema"):
        return None
    none = pd.Series(math.nan, index=frame.index)
    recorded = pd.to_numeric(frame.get(f"{task}top1{average}_stderr", none), errors="coerce").astype(float)
    if average:
        images = pd.to_numeric(frame.get(f"{task}n_images", none), errors="coerce").astype(float)
        p = pd.to_numeric(frame[metric], errors="coerce").astype(float) / 100
        recorded = recorded.fillna(100 * (p * (1 - p) / images) ** 0.5)
    return recorded.tolist()


def number_text(metric: str, value: float) -> str:
    """Return a value of a metric with as many digits as say something."""
    digits = _digits(metric)
    if digits is None:
        return str(value) if isinstance(value, int) else f"{value:.4g}"
    # At least two digits: 0.4 images/s are not 0, and 0.008 GMACs have too few digits to compare.
    if abs(value) >= 10 ** (1 - digits) or value == 0:
        return f"{value:.{digits}f}"
    return f"{value:#.2g}".removesuffix(".")


@cache
def _digits(metric: str) -> int | None:
    return next((digits for part, digits in _DIGITS.items() if part in metric), None)
