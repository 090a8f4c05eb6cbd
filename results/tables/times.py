"""Measured times: which others can disturb, and in which circumstances two of them may be compared."""

import pandas as pd

TIMES = (
    ("infer", "speed", ("images_per_s", "latency_ms")),
    ("train", "speed", ("train_images_per_s", "train_step_ms")),
    ("loop", "train", ("loop_images_per_s",)),
)
"""What is measured, by which task, and the beginnings of the metrics of it."""

HARDWARE = ("device_name", "threads")
"""Of the hardware: a time on another device, or with another number of threads, is another time."""

_MEMORY = "_peak_"


def disturbed_rows(frame: pd.DataFrame, metric: str) -> list[bool] | None:
    """Return for each row whether the measurement of a metric was disturbed; None if none was, or it is no time."""
    for measured, task, times in TIMES:
        if metric.startswith((*times, *(f"{task}_{time}" for time in times))):
            names = (f"{measured}_disturbed", f"{task}_{measured}_disturbed")
            found = [frame[name].map(lambda reason: isinstance(reason, str)) for name in names if name in frame]
            return found[0].tolist() if found else None
    return None


def task_of_time(metric: str) -> str | None:
    """Return the task that measures a time or a peak of memory; None for another metric."""
    if _MEMORY in metric:
        return "speed"
    for _, task, times in TIMES:
        if metric.startswith((*times, *(f"{task}_{time}" for time in times))):
            return task
    return None
