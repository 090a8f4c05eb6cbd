"""A table's frame as a sheet for people: columns that tell rows apart, sensible digits, and notes."""

import ast
import difflib
import math
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from results.sheets import Sheet
from results.tables import BREAKDOWN, METRICS, SOURCE, named, shown_metrics

# Circumstances named below the table even where all rows share them: no number stands without its own.
_HEADLINES = {
    "speed": ("device", "precision", "mode", "channels_last", "batch"),
    "train": ("data", "epochs", "seed"),
    "evaluate": (
        "data", "preprocessing", "crop_pct", "interpolation", "weights", "digest", "run", "which", "ema", "strict",
    ),
}  # fmt: skip
# Of a circumstance: where an image set, a file of weights or a cache lies. Its name or digest says what it is.
_PLACES = (".root", ".path", ".cache")
# An evaluation is of the training in its row where these are equal.
_RUN, _TRAINING = "evaluate.weights.run", "record.train.key"
# Endings of dotted columns which name the whole that they are a part of.
_NAMING = (".name", ".kind")
# The share of a training loop's time, waiting for images, above which its device was starved.
_STARVED = 0.10
# Of an environment: what any two records differ in, or what other columns say better.
_INCIDENTAL = ("date", "host", "device", SOURCE)
# Of an environment: what a measured time depends on, unlike an accuracy or a counted cost.
_HARDWARE = ("device_name", "driver", "cuda", "cudnn", "threads", "platform")
_DIGITS = {"params_m": 2, "gmacs": 3, "images_per_s": 0, "_ms": 2, "_mib": 0, "top1": 2, "top5": 2}


def sheet(frame: pd.DataFrame, columns: Sequence[str] | None = None) -> Sheet:
    """What identifies a row, its metrics, the circumstances in which rows differ, its status; and notes.

    `columns` are the metrics to show, e.g. (*METRICS, *BREAKDOWN); None shows those of METRICS that have a
    value. Raises ValueError for a column that the frame lacks. The order of the rows is the frame's.
    """
    if columns is None:
        columns = [name for name in shown_metrics(frame) if name in frame and frame[name].notna().any()]
    for column in columns:
        if column not in frame and column not in (*METRICS, *BREAKDOWN):
            near = difflib.get_close_matches(column, frame.columns, n=3)
            hint = f"; near: {', '.join(near)}" if near else ""
            raise ValueError(f"no column {column!r} in these records{hint}")
    columns = [found for name in columns for found in named(frame.columns, name)]
    same_label = frame.groupby(["backbone", "attention"], sort=False)
    models = [name for name in _under(frame, "model") if (same_label[name].nunique(dropna=False) > 1).any()]
    tasks = {name.split(".")[1] for name in _under(frame, "record")}
    circumstances = [name for task in _HEADLINES | dict.fromkeys(tasks) for name in _under(frame, task)]
    differing = [name for name in circumstances if frame[name].nunique() > 1 and not _is_said(frame, name)]
    stood = ["certificate"] if "certificate" in frame else []
    shown = list(dict.fromkeys(["backbone", "attention", *models, *columns, *differing, *stood, "status"]))
    numbers = [name in columns or (name in frame and _is_number(frame[name])) for name in shown]
    short, common_options = shortened(frame["attention"])
    rows = [{**row, "attention": short.get(row["attention"], row["attention"])} for row in frame.to_dict("records")]
    return Sheet(
        headers=[_weights_label(frame, name, header) for name, header in zip(shown, headers_of(shown), strict=True)],
        rows=[[_text(row, name) for name in shown] for row in rows],
        right=frozenset(position for position, number in enumerate(numbers) if number),
        notes=[*common_options, *notes(frame)],
    )


def notes(frame: pd.DataFrame) -> list[str]:
    """What a reader must know before comparing rows: circumstances, environments, doubtful training, failures."""
    lines = []
    for task, headlines in _HEADLINES.items():
        columns = [name for name in _under(frame, task) if _label(name) in headlines]
        common = [name for name in columns if set(frame[name].dropna()) not in (set(), {"none"})]
        common = [name for name in common if frame[name].nunique() == 1]
        if common:
            named = ", ".join(f"{_label(name)} {frame[name].dropna().iloc[0]}" for name in common)
            lines.append(f"{task}, all rows: {named}.")
        if task == "speed" and (differing := [name for name in columns if frame[name].nunique() > 1]):
            named = ", ".join(f"{_label(name)} ({_listed(frame[name])})" for name in differing)
            lines.append(f"Rows differ in {named}: their speeds do not compare, and no row is ranked.")
    if mixed := mixed_environments(frame):
        lines.append(f"Measured under differing environments: {', '.join(mixed)}.")
    lines += [*_weights_note(frame), *_doubts(frame)]
    if "certificate" in frame:
        lines.append("certificate: laws that hold (attention-bench check) of the attention whose code was measured.")
    failed = frame[frame["error"].notna()]
    lines += [f"{row['backbone']}, {row['attention']}: {row['error']}" for row in failed.to_dict("records")]
    return list(dict.fromkeys(lines))


def _is_said(frame: pd.DataFrame, column: str) -> bool:
    """Whether a circumstance tells no more than another does.

    Where a thing lies, its hash beside its name, and a run that was evaluated beside the training itself.
    """
    whole, _, last = column.rpartition(".")
    if column in ("evaluate.weights.name", "evaluate.weights.run") and {_RUN, _TRAINING} <= set(frame.columns):
        return bool((frame[_RUN] == frame[_TRAINING])[frame["evaluate.weights.name"].notna()].all())
    name = f"{whole}.name"
    hash_of_named = last in ("digest", "run") and name in frame and frame[name].nunique() == frame[column].nunique()
    return column.endswith(_PLACES) or hash_of_named


def _average_of(frame: pd.DataFrame, column: str) -> str | None:
    """The column with the accuracy of the moving average beside the one of the weights as trained, if it has values."""
    ema = f"{column}_ema"
    return ema if column.endswith("top1") and ema in frame and frame[ema].notna().any() else None


def _weights_label(frame: pd.DataFrame, column: str, header: str) -> str:
    """Says in a header which weights an accuracy is of, where a table has both."""
    if _average_of(frame, column):
        return f"{header} (raw)"
    if column.endswith("top1_ema") and frame.get(column, pd.Series(dtype=object)).notna().any():
        return f"{header.removesuffix('_ema')} (EMA)"
    return header


def _weights_note(frame: pd.DataFrame) -> list[str]:
    pairs = [(name, ema) for name in frame.columns if (ema := _average_of(frame, name))]
    return [f"(raw): by the weights as trained, {name}; (EMA): by their moving average, {ema}." for name, ema in pairs]


def _doubts(frame: pd.DataFrame) -> list[str]:
    """Rows whose training waited for images or skipped updates, or whose weights fit in part only."""
    lines = []
    for column in (name for name in ("data_wait_share", "train_data_wait_share") if name in frame):
        waited = pd.to_numeric(frame[column], errors="coerce") > _STARVED
        starved = frame[waited & (_of_train(frame, "device") == "cuda") | waited & (_of_train(frame, "workers") != 0)]
        shares = [f"{100 * share:.0f} % of the time for images" for share in starved[column]]
        lines += _of_rows(starved, "Trained on a starved device, its speed is that of the loading: waited", shares)
    for column in (name for name in ("nonfinite_steps", "train_nonfinite_steps") if name in frame):
        skipped = frame[pd.to_numeric(frame[column], errors="coerce") > 0]
        steps = [f"{count:.0f} {'step' if count == 1 else 'steps'}" for count in skipped[column]]
        lines += _of_rows(skipped, "Gradients were not finite in", steps)
    parts = [name for name in ("weights_missing", "weights_reshaped") if name in frame]
    if parts:
        left = frame[parts].apply(pd.to_numeric, errors="coerce").sum(axis=1)
        counts = [f"{count:.0f} {'tensor' if count == 1 else 'tensors'}" for count in left[left > 0]]
        lines += _of_rows(frame[left > 0], "Weights fit in part only, and left as initialised are", counts)
    return lines


def _of_train(frame: pd.DataFrame, name: str) -> pd.Series:
    """A circumstance of training in each row; a CPU that reads its images itself is not kept waiting for them."""
    return frame.get(f"train.{name}", pd.Series(index=frame.index, dtype=object))


def _of_rows(rows: pd.DataFrame, what: str, values: Sequence[str]) -> list[str]:
    """One line: what happened, how much of it in which rows; of more than four rows only the first three."""
    short, _ = shortened(rows["attention"])
    parts = []
    for row, value in zip(rows.to_dict("records"), values, strict=True):
        seed = row.get("train.seed")
        parts.append(
            f"{value} ({row['backbone']}, {short[row['attention']]}{'' if pd.isna(seed) else f', seed {seed}'})"
        )
    parts = list(dict.fromkeys(parts))
    if len(parts) > 4:
        parts = [*parts[:3], f"and {len(parts) - 3} rows more"]
    return [f"{what} {', '.join(parts)}."] if parts else []


def shortened(attentions: pd.Series) -> tuple[dict[str, str], list[str]]:
    """Each attention by its name and the options in which rows of that name differ; and notes of the common ones."""
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
    """Name and options, as texts, of an attention such as `focused(focusing_factor=3, kernel_size=None)`."""
    try:
        call = ast.parse(attention, mode="eval").body
    except SyntaxError:
        return attention, {}
    if not isinstance(call, ast.Call):
        return attention, {}
    return ast.unparse(call.func), {str(each.arg): ast.unparse(each.value) for each in call.keywords}


def _under(frame: pd.DataFrame, prefix: str) -> list[str]:
    return [name for name in frame.columns if name.startswith(f"{prefix}.")]


def mixed_environments(frame: pd.DataFrame) -> list[str]:
    """Environment fields in which records differ: hardware of the speeds, code and versions of all records."""
    fields: dict[str, list[pd.Series]] = {}
    for name in _under(frame, "record"):
        task, part, *path = name.split(".")[1:]
        if part != "environment" or path[-1] in _INCIDENTAL:
            continue
        if task == "speed" or path[0] not in _HARDWARE:
            fields.setdefault(".".join(path), []).append(frame[name])
    columns = {name: pd.concat(found) for name, found in fields.items()}
    return [f"{name} ({_listed(values)})" for name, values in columns.items() if values.nunique() > 1]


def _listed(values: pd.Series) -> str:
    """The distinct values, commits cut to ten digits, of more than four only the first three."""
    texts = [re.sub("^([0-9a-f]{10})[0-9a-f]{30}$", r"\1", str(value)) for value in values.dropna().unique()]
    return ", ".join(texts) if len(texts) <= 4 else f"{', '.join(texts[:3])} and {len(texts) - 3} more"


def _label(column: str) -> str:
    """The last part of a dotted column; of `train.data.name` it is `data`, of `preprocessing.kind` `preprocessing`."""
    for ending in _NAMING:
        column = column.removesuffix(ending)
    return column.rsplit(".", 1)[-1]


def headers_of(columns: Sequence[str]) -> list[str]:
    labels = [_label(column) for column in columns]
    return [label if labels.count(label) == 1 else column for label, column in zip(labels, columns, strict=True)]


def _is_number(values: Any) -> bool:
    return bool(pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values))


def _text(row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    if pd.isna(value):
        return "-"
    if column == "status" and value != "done":
        tasks = [name.split(".")[1] for name in row if name.endswith(".status") and row[name] == value]
        return f"{value} ({', '.join(tasks)})"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    text = _number(column, value)
    stderr = _standard_error(row, column)
    return text if stderr is None else f"{text} ± {_number('top1', stderr)}"


def _standard_error(row: dict[str, Any], column: str) -> float | None:
    """Of an accuracy in percent, in points: as recorded, or that of as many right images of as many."""
    task, accuracy, average = column.partition("top1")
    if not accuracy or average not in ("", "_ema") or "." in column:
        return None
    recorded, images = row.get(f"{task}top1{average}_stderr"), row.get(f"{task}n_images")
    if not pd.isna(recorded):
        return float(recorded)  # type: ignore[arg-type]
    if not average or pd.isna(images):
        return None
    p = row[column] / 100
    return 100 * math.sqrt(p * (1 - p) / float(images))  # type: ignore[arg-type]


def _number(column: str, value: float) -> str:
    digits = next((digits for part, digits in _DIGITS.items() if part in column), None)
    if digits is None or "." in column:
        return str(value) if isinstance(value, int) else f"{value:.4g}"
    # Two digits at least: 0.4 images/s are not none, and 0.008 GMACs are too few digits to compare.
    return f"{value:.{digits}f}" if abs(value) >= 10 ** (1 - digits) or value == 0 else f"{value:#.2g}"
