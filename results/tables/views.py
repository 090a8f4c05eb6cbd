"""The frame of a table as a sheet for people: columns that distinguish rows, sensible digits, and notes."""

import ast
import difflib
import math
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from results.records import SOURCE
from results.tables.columns import Column, columns_of, rows_of
from results.tables.frames import BREAKDOWN, METRICS, named, shown_metrics
from results.tables.sheets import Sheet
from results.wording import and_more, count

# Circumstances named below the table even if all rows share them: no number is shown without its own.
_HEADLINES = {
    "speed": ("device", "precision", "mode", "channels_last", "batch"),
    "train": ("data", "epochs", "seed"),
    "evaluate": (
        "data", "preprocessing", "crop_pct", "interpolation", "weights", "digest", "run", "which", "ema", "strict",
    ),
}  # fmt: skip
# Fields that say where an image set, a file of weights or a cache is. Its name or digest says what it is.
_PLACES = ("root", "path", "cache")
# An evaluation uses the weights of the training in its row if the last two are equal.
_WEIGHTS, _RUN, _TRAINING = "evaluate.weights.name", "evaluate.weights.run", "record.train.key"
# The share of the time of a training loop spent waiting for images, above which its device was starved.
_STARVED = 0.10
# Measurements that others can disturb: what is measured, by which task, and the beginnings of the metrics of it.
_TIMES = (
    ("infer", "speed", ("images_per_s", "latency_ms")),
    ("train", "speed", ("train_images_per_s", "train_step_ms")),
    ("loop", "train", ("loop_images_per_s",)),
)
# Metrics that say which kernels scaled_dot_product_attention ran, and when; "math" is not fused.
_KERNELS = {
    "sdpa_kernel": "inference",
    "train_sdpa_kernel": "a training step",
    "loop_sdpa_kernel": "training",
}
# Fields of an environment in which any two records differ, or that other columns say better.
_INCIDENTAL = ("date", "host", "device", SOURCE)
# Fields of an environment on which a measured time depends, unlike an accuracy or a counted cost.
_HARDWARE = ("device_name", "driver", "cuda", "cudnn", "threads", "wait_policy", "platform")
_DIGITS = {"params_m": 2, "gmacs": 3, "images_per_s": 0, "_ms": 2, "_mib": 0, "top1": 2, "top5": 2}


def sheet(frame: pd.DataFrame, columns: Sequence[str] | None = None) -> Sheet:
    """Return what identifies a row, its metrics, the circumstances in which rows differ, its status; and notes.

    `columns` are the metrics to show, e.g. (*METRICS, *BREAKDOWN); None shows those of METRICS that have a value.
    Raises ValueError for a column that the frame lacks. The order of the rows is the frame's.
    """
    present = columns_of(frame)
    if columns is None:
        columns = [name for name in shown_metrics(present) if name in frame and frame[name].notna().any()]
    for column in columns:
        if column not in frame and column not in (*METRICS, *BREAKDOWN):
            near = difflib.get_close_matches(column, frame.columns, n=3)
            hint = f"; near: {', '.join(near)}" if near else ""
            raise ValueError(f"no column {column!r} in these records{hint}")
    columns = [found for name in columns for found in named(present, name)]
    same_label = frame.groupby(["backbone", "attention"], sort=False)
    models = [c.name for c in present if c.kind == "model" and (same_label[c.name].nunique(dropna=False) > 1).any()]
    tasks = dict.fromkeys([*_HEADLINES, *(column.task for column in present if column.kind == "record")])
    circumstances = [column for task in tasks for column in _of_task(frame, task)]
    differing = [c.name for c in circumstances if frame[c.name].nunique() > 1 and not _is_said(frame, c)]
    verdicts = [name for name in ("certificate", "warning") if name in frame]
    names = dict.fromkeys(["backbone", "attention", *models, *columns, *differing, *verdicts, "status"])
    shown = [Column.parse(name) for name in names]
    numbers = [name in columns or (name in frame and _is_number(frame[name])) for name in names]
    short, common_options = shortened(frame["attention"])
    rows = [{**row, "attention": short.get(row["attention"], row["attention"])} for row in rows_of(frame)]
    return Sheet(
        headers=[_weights_label(frame, name, header) for name, header in zip(names, headers_of(shown), strict=True)],
        rows=[[_text(row, column, present) for column in shown] for row in rows],
        right=frozenset(position for position, number in enumerate(numbers) if number),
        notes=[*common_options, *notes(frame)],
    )


def notes(frame: pd.DataFrame) -> list[str]:
    """Return what a reader must know before comparing rows: circumstances, environments, doubts, failures."""
    lines = []
    for task, headlines in _HEADLINES.items():
        columns = [column for column in _of_task(frame, task) if column.label in headlines]
        common = [(c.label, frame[c.name].dropna().iloc[0]) for c in columns if frame[c.name].nunique() == 1]
        said = ", ".join(f"{label} {value}" for label, value in common if value != "none")
        if said:
            lines.append(f"{task}, all rows: {said}.")
        differing = [f"{c.label} ({_listed(frame[c.name])})" for c in columns if frame[c.name].nunique() > 1]
        if task == "speed" and differing:
            lines.append(
                f"Rows differ in {', '.join(differing)}: their speeds are not comparable, and no row is ranked."
            )
    if mixed := mixed_environments(frame):
        lines.append(f"Measured under differing environments: {', '.join(mixed)}.")
    lines += [*_weights_note(frame), *_disturbances(frame), *_doubts(frame), *_unfused(frame)]
    if "certificate" in frame:
        lines.append(
            "certificate: laws that hold (attention-bench check) for the code of the attention that was measured."
        )
    failed = frame[frame["error"].notna()]
    lines += [f"{row['backbone']}, {row['attention']}: {row['error']}" for row in rows_of(failed)]
    return list(dict.fromkeys(lines))


def _is_said(frame: pd.DataFrame, column: Column) -> bool:
    """Return whether a circumstance says no more than another one does.

    These are the place of a thing, its hash beside its name, and the run that was evaluated beside the training itself.
    """
    if column.name in (_WEIGHTS, _RUN) and {_RUN, _TRAINING} <= set(frame.columns):
        return bool((frame[_RUN] == frame[_TRAINING])[frame[_WEIGHTS].notna()].all())
    if column.path[-1] in _PLACES:
        return True
    named = column.beside("name").name
    is_hash = column.path[-1] in ("digest", "run") and named in frame
    return is_hash and frame[named].nunique() == frame[column.name].nunique()


def _average_of(frame: pd.DataFrame, column: str) -> str | None:
    """Return the column of the moving average's accuracy, given that of the weights as trained, if it has values."""
    ema = f"{column}_ema"
    return ema if column.endswith("top1") and ema in frame and frame[ema].notna().any() else None


def _weights_label(frame: pd.DataFrame, column: str, header: str) -> str:
    """Return a header that says which weights an accuracy is of, if the table has both."""
    if _average_of(frame, column):
        return f"{header} (raw)"
    if column.endswith("top1_ema") and frame.get(column, pd.Series(dtype=object)).notna().any():
        return f"{header.removesuffix('_ema')} (EMA)"
    return header


def _weights_note(frame: pd.DataFrame) -> list[str]:
    pairs = [(name, ema) for name in frame.columns if (ema := _average_of(frame, name))]
    return [f"(raw): of the weights as trained, {name}; (EMA): of their moving average, {ema}." for name, ema in pairs]


def _disturbances(frame: pd.DataFrame) -> list[str]:
    """Return lines about times that were measured while others used the machine."""
    lines: dict[str, list[str]] = {"speed": [], "train": []}
    words = {"infer": "The speed of inference", "train": "The time of a training step", "loop": "The speed of training"}
    for measured, task, _ in _TIMES:
        for column in (name for name in (f"{measured}_disturbed", f"{task}_{measured}_disturbed") if name in frame):
            rows = frame[frame[column].notna()]
            what = f"{words[measured]} was disturbed, and is not to be compared or ranked:"
            lines[task] += _of_rows(rows, what, [str(reason) for reason in rows[column]])
    again = "attention-bench run --retry-disturbed measures what was disturbed again."
    return [*lines["speed"], *([again] if lines["speed"] else []), *lines["train"]]


def _doubts(frame: pd.DataFrame) -> list[str]:
    """Return lines about rows that waited for images or skipped updates, or whose weights fit only in part."""
    lines = []
    for column in (name for name in ("data_wait_share", "train_data_wait_share") if name in frame):
        waited = pd.to_numeric(frame[column], errors="coerce") > _STARVED
        # A CPU that reads its images itself does not wait for them.
        starved = frame[waited & (_of_train(frame, "device") == "cuda") | waited & (_of_train(frame, "workers") != 0)]
        shares = [f"{100 * share:.0f} % of the time for images" for share in starved[column]]
        lines += _of_rows(starved, "Trained on a starved device, so the speed is that of loading: waited", shares)
    for column in (name for name in ("nonfinite_steps", "train_nonfinite_steps") if name in frame):
        skipped = frame[pd.to_numeric(frame[column], errors="coerce") > 0]
        steps = [count(int(number), "step") for number in skipped[column]]
        lines += _of_rows(skipped, "Gradients were not finite in", steps)
    if "warning" in frame:
        warned = frame[frame["warning"].notna()]
        lines += _of_rows(warned, "Evaluated with weights that fit only in part:", list(warned["warning"]))
    return lines


def _unfused(frame: pd.DataFrame) -> list[str]:
    """Return lines about rows in which scaled_dot_product_attention ran as separate products."""
    lines = []
    for column, when in ((name, when) for name, when in _KERNELS.items() if name in frame):
        rows = frame[frame[column].astype("string").str.contains("math").fillna(False).astype(bool)]
        what = f"In {when}, scaled_dot_product_attention was not fused everywhere; its kernels were"
        lines += _of_rows(rows, what, list(rows[column]))
    return lines


def _of_train(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return a circumstance of training for each row."""
    return frame.get(f"train.{name}", pd.Series(index=frame.index, dtype=object))


def _of_rows(rows: pd.DataFrame, what: str, values: Sequence[str]) -> list[str]:
    """Return one line, or none without rows: what happened, and how much of it in the first few rows."""
    short, _ = shortened(rows["attention"])
    parts = []
    for row, value in zip(rows_of(rows), values, strict=True):
        seed = row.get("train.seed")
        parts.append(
            f"{value} ({row['backbone']}, {short[row['attention']]}{'' if pd.isna(seed) else f', seed {seed}'})"
        )
    return [f"{what} {and_more(list(dict.fromkeys(parts)))}."] if parts else []


def shortened(attentions: pd.Series) -> tuple[dict[str, str], list[str]]:
    """Return each attention by its name and the options in which rows of that name differ, and notes of common ones."""
    options: dict[str, dict[str, dict[str, str]]] = {}
    for text in attentions.dropna().unique():
        name, found = name_and_options(text)
        options.setdefault(name, {})[text] = found
    short, lines = {}, []
    for name, variants in options.items():
        everywhere = set.intersection(*(set(found.items()) for found in variants.values()))
        for text, found in variants.items():
            own = ", ".join(f"{option}={value}" for option, value in found.items() if (option, value) not in everywhere)
            short[text] = f"{name}({own})" if own else name
        first = next(iter(variants.values()))
        common = ", ".join(f"{option}={value}" for option, value in first.items() if (option, value) in everywhere)
        if common:
            lines.append(f"{name}, all rows: {common}.")
    return short, lines


def name_and_options(attention: str) -> tuple[str, dict[str, str]]:
    """Return name and options, as texts, of an attention such as `focused(focusing_factor=3, kernel_size=None)`."""
    try:
        call = ast.parse(attention, mode="eval").body
    except SyntaxError:
        return attention, {}
    if not isinstance(call, ast.Call):
        return attention, {}
    return ast.unparse(call.func), {str(each.arg): ast.unparse(each.value) for each in call.keywords}


def _of_task(frame: pd.DataFrame, task: str) -> list[Column]:
    return [column for column in columns_of(frame) if column.kind == "task" and column.task == task]


def mixed_environments(frame: pd.DataFrame) -> list[str]:
    """Return environment fields in which records differ: hardware for speeds, code and versions for all records."""
    fields: dict[str, list[pd.Series]] = {}
    for column in columns_of(frame):
        part, *path = column.path
        if column.kind != "record" or part != "environment" or path[-1] in _INCIDENTAL:
            continue
        if column.task == "speed" or path[0] not in _HARDWARE:
            fields.setdefault(".".join(path), []).append(frame[column.name])
    columns = {name: pd.concat(found) for name, found in fields.items()}
    return [f"{name} ({_listed(values)})" for name, values in columns.items() if values.nunique() > 1]


def _listed(values: pd.Series) -> str:
    """Return the first few of the distinct values, with commits cut to ten digits."""
    texts = [re.sub("^([0-9a-f]{10})[0-9a-f]{30}$", r"\1", str(value)) for value in values.dropna().unique()]
    return and_more(texts)


def headers_of(columns: Sequence[Column]) -> list[str]:
    """Return the label of each column, or its name if another one has the same label."""
    labels = [column.label for column in columns]
    return [column.label if labels.count(column.label) == 1 else column.name for column in columns]


def _is_number(values: Any) -> bool:
    return bool(pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values))


def _text(row: dict[str, Any], column: Column, columns: Sequence[Column]) -> str:
    """Return the value of a row in a column as text for people; `columns` are those of the frame."""
    value = row.get(column.name)
    if pd.isna(value):
        return "-"
    if column.name == "status" and value != "done":
        tasks = [c.task for c in columns if c.kind == "record" and c.path == ("status",) and row[c.name] == value]
        return f"{value} ({', '.join(tasks)})"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if column.kind != "metric":
        return str(value) if isinstance(value, int) else f"{value:.4g}"
    text = _number(column.name, value)
    if _disturbance(row, column.name) is not None:
        return f"{text} (disturbed)"
    stderr = _standard_error(row, column.name)
    return text if stderr is None else f"{text} ± {_number('top1', stderr)}"


def _disturbance(row: dict[str, Any], metric: str) -> str | None:
    """Return what disturbed the measurement of a metric; None if nothing did, or it is no time."""
    for measured, task, times in _TIMES:
        if metric.startswith((*times, *(f"{task}_{time}" for time in times))):
            reason: Any = row.get(f"{measured}_disturbed", row.get(f"{task}_{measured}_disturbed"))
            return reason if isinstance(reason, str) else None
    return None


def _standard_error(row: dict[str, Any], metric: str) -> float | None:
    """Return the standard error, in points, of an accuracy in percent: the recorded or else the binomial one."""
    task, accuracy, average = metric.partition("top1")
    if not accuracy or average not in ("", "_ema"):
        return None
    recorded: Any = row.get(f"{task}top1{average}_stderr")
    images: Any = row.get(f"{task}n_images")
    if not pd.isna(recorded):
        return float(recorded)
    if not average or pd.isna(images):
        return None
    p = row[metric] / 100
    return 100 * math.sqrt(p * (1 - p) / float(images))


def _number(metric: str, value: float) -> str:
    digits = next((digits for part, digits in _DIGITS.items() if part in metric), None)
    if digits is None:
        return str(value) if isinstance(value, int) else f"{value:.4g}"
    # At least two digits: 0.4 images/s are not 0, and 0.008 GMACs have too few digits to compare.
    return f"{value:.{digits}f}" if abs(value) >= 10 ** (1 - digits) or value == 0 else f"{value:#.2g}"
