"""What a reader must know before comparing rows of a table: circumstances, environments, doubts, failures."""

import re
from collections.abc import Sequence

import pandas as pd

from results.records import SOURCE
from results.tables.columns import Column, columns_of, rows_of
from results.tables.naming import shortened
from results.tables.times import TIMES
from results.wording import and_more, count

# Circumstances named below the table even if all rows share them: no number is shown without its own.
HEADLINES = {
    "speed": ("device", "precision", "mode", "channels_last", "batch", "runtime", "version"),
    "train": ("data", "epochs", "seed"),
    "evaluate": (
        "data", "preprocessing", "crop_pct", "interpolation", "weights", "digest", "run", "which", "ema", "strict",
    ),
    "imported": ("device", "tool", "version", "precision", "batch"),
}  # fmt: skip
# The share of the time of a training loop spent waiting for images, above which its device was starved.
_STARVED = 0.10
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
# Tasks with an accuracy. On a CPU it depends on the number of threads as well, as that decides the order of sums.
_WITH_ACCURACY = ("train", "evaluate")


def notes(frame: pd.DataFrame) -> list[str]:
    """Return what a reader must know before comparing rows: circumstances, environments, doubts, failures."""
    lines = []
    for task, headlines in HEADLINES.items():
        columns = [column for column in of_task(frame, task) if column.label in headlines]
        common = [(c.label, frame[c.name].dropna().iloc[0]) for c in columns if frame[c.name].nunique() == 1]
        said = ", ".join(f"{label} {value}" for label, value in common if value != "none")
        if said:
            lines.append(f"{task}, all rows: {said}.")
        differing = [
            f"{c.label} ({_listed(frame[c.name])})"
            for c in columns
            if frame[c.name].nunique() > 1 and not tells_runtime(frame, c)
        ]
        if task == "speed" and differing:
            lines.append(
                f"Rows differ in {', '.join(differing)}: their speeds are not comparable, and no row is ranked."
            )
    if mixed := mixed_environments(frame):
        lines.append(f"Measured under differing environments: {', '.join(mixed)}.")
    lines += [*_weights_note(frame), *_disturbances(frame), *_doubts(frame), *_unfused(frame), *_wrong(frame)]
    if "certificate" in frame:
        lines.append(
            "certificate: laws that hold (attention-bench check) for the code of the attention that was measured."
        )
    failed = frame.loc[frame["error"].notna(), ["backbone", "attention", "error"]]
    lines += [f"{row['backbone']}, {row['attention']}: {row['error']}" for row in rows_of(failed)]
    return list(dict.fromkeys(lines))


def _weights_note(frame: pd.DataFrame) -> list[str]:
    pairs = [(name, ema) for name in frame.columns if (ema := average_of(frame, name))]
    return [f"(raw): of the weights as trained, {name}; (EMA): of their moving average, {ema}." for name, ema in pairs]


def _disturbances(frame: pd.DataFrame) -> list[str]:
    """Return lines about times that were measured while others used the machine; why is in the records."""
    words = {"infer": "Speed of inference", "train": "Time of a training step", "loop": "Speed of training"}
    lines = []
    for measured, rows in _disturbed(frame).items():
        found = (
            f"{len(rows)} of {count(len(frame), 'row')} ({and_more(list(dict.fromkeys(_names(rows))), separator='; ')})"
        )
        lines.append(f"{words[measured]}, disturbed by other work and not ranked: {found}.")
    return lines


def _disturbed(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows whose times were disturbed, by what was measured."""
    found: dict[str, pd.DataFrame] = {}
    for measured, task, _ in TIMES:
        for column in (name for name in (f"{measured}_disturbed", f"{task}_{measured}_disturbed") if name in frame):
            if len(rows := frame[frame[column].notna()]):
                found[measured] = rows
    return found


def advice(frame: pd.DataFrame) -> list[str]:
    """Return what the reader of a terminal may do about the rows; no table that is written has it."""
    speeds = {measured for measured, task, _ in TIMES if task == "speed"}
    again = "attention-bench run --retry-disturbed measures again what was disturbed."
    return [again] if speeds & _disturbed(frame).keys() else []


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


def _wrong(frame: pd.DataFrame) -> list[str]:
    """Return a line for each row whose outputs are wrong in its runtime."""
    if "runtime_outputs" not in frame:
        return []
    rows = frame[frame["runtime_outputs"].astype("string").str.startswith("wrong").fillna(False).astype(bool)]
    runtimes = rows.get("speed.runtime.runtime", pd.Series("its runtime", rows.index))
    told = zip(_names(rows), runtimes, rows["runtime_outputs"], strict=True)
    return [f"{name}, in {runtime}, so without a time: {outputs}." for name, runtime, outputs in told]


def tells_runtime(frame: pd.DataFrame, column: Column) -> bool:
    """Return whether a column is the version of runtimes of which each has one: it tells no more rows apart."""
    runtime = column.beside("runtime").name
    if column.path[-1] != "version" or runtime not in frame:
        return False
    return bool((frame.groupby(runtime)[column.name].nunique() <= 1).all())


def _of_train(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return a circumstance of training for each row."""
    return frame.get(f"train.{name}", pd.Series(index=frame.index, dtype=object))


def _of_rows(rows: pd.DataFrame, what: str, values: Sequence[str]) -> list[str]:
    """Return one line, or none without rows: what happened, and how much of it in the first few rows."""
    parts = [f"{value} ({name})" for name, value in zip(_names(rows), values, strict=True)]
    return [f"{what} {and_more(list(dict.fromkeys(parts)))}."] if parts else []


def _names(rows: pd.DataFrame) -> list[str]:
    """Return each row in words, as "swin_t, softmax, seed 1"."""
    short, _ = shortened(rows["attention"])
    names = [name for name in ("backbone", "attention", "train.seed") if name in rows]
    return [
        f"{row['backbone']}, {short[row['attention']]}"
        + ("" if pd.isna(seed := row.get("train.seed")) else f", seed {seed}")
        for row in rows_of(rows[names])
    ]


def of_task(frame: pd.DataFrame, task: str) -> list[Column]:
    return [column for column in columns_of(frame) if column.kind == "task" and column.task == task]


def mixed_environments(frame: pd.DataFrame) -> list[str]:
    """Return environment fields in which records differ: hardware for speeds, code and versions for all records.

    And the number of threads for accuracies that were computed on a CPU, among those of one task: what a model was
    trained with need not be what it was evaluated with.
    """
    fields: dict[tuple[str, str], list[pd.Series]] = {}
    for column in columns_of(frame):
        part, *path = column.path
        if column.kind != "record" or part != "environment" or path[-1] in _INCIDENTAL:
            continue
        if column.task == "speed" or path[0] not in _HARDWARE:
            fields.setdefault((".".join(path), ""), []).append(frame[column.name])
        elif path == ["threads"] and column.task in _WITH_ACCURACY:
            device = column.beside("device").name
            on_cpu = frame[device] != "cuda" if device in frame else slice(None)
            fields["threads", column.task] = [frame.loc[on_cpu, column.name]]
    columns = [(name, pd.concat(found)) for (name, _), found in fields.items()]
    return list(dict.fromkeys(f"{name} ({_listed(values)})" for name, values in columns if values.nunique() > 1))


def _listed(values: pd.Series) -> str:
    """Return the first few of the distinct values, with commits cut to ten digits."""
    texts = [re.sub("^([0-9a-f]{10})[0-9a-f]{30}$", r"\1", str(value)) for value in values.dropna().unique()]
    return and_more(texts)


def average_of(frame: pd.DataFrame, column: str) -> str | None:
    """Return the column of the moving average's accuracy, given that of the weights as trained, if it has values."""
    ema = f"{column}_ema"
    return ema if column.endswith("top1") and ema in frame and frame[ema].notna().any() else None
