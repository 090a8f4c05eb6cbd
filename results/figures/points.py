"""Accuracies to be drawn: one point per model, training and speed, with its interval; and what to say about them."""

from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd

from results.statistics import mean_interval, wilson
from results.tables.columns import Column, columns_of, is_figure, rows_of
from results.tables.naming import shortened
from results.tables.notes import mixed_environments
from results.tables.paired import INCIDENTAL
from results.wording import and_more, count

Which = Literal["model", "ema"]

_IMAGES = "interval over images"
_SEEDS = "interval over seeds"
NO_INTERVAL = "no interval"


def metric_of(row: dict[str, Any], metric: str, *tasks: str) -> Any:
    """Return a metric of a row, of the first of these tasks that is done and has it, or None."""
    for task in tasks:
        if row.get(f"record.{task}.status") != "done":
            continue
        # With several tasks that report it, each has a column of its own.
        for name in (f"{task}_{metric}", metric):
            if (value := row.get(name)) is not None and not pd.isna(value):
                return value
    return None


def accuracies(frame: pd.DataFrame, which: Which = "model", beside: Sequence[Column] = ()) -> pd.DataFrame:
    """Return a row per model and training or evaluation, its seeds together; see the columns at the end.

    `frame` is that of `results.tables.table`. `beside` are further columns by which points are kept apart, such as
    those of the circumstances of a speed; their values are columns, too.
    """
    metric = "top1" if which == "model" else "top1_ema"
    columns = columns_of(frame)
    model = [column for column in columns if column.kind == "model"]
    training = [column for column in columns if column.task == "train" and _is_circumstance(column)]
    evaluation = [column for column in columns if column.task == "evaluate" and _is_circumstance(column)]
    # Environments are most of a frame.
    needed = [c.name for c in columns if c.kind != "record" or c.path in (("key",), ("status",)) or c in beside]
    points: dict[str, dict[str, Any]] = {}
    for row in rows_of(frame[needed]):
        source = next((task for task in ("train", "evaluate") if is_figure(metric_of(row, metric, task))), None)
        if source is None:
            continue
        circumstances = {c.name: str(row.get(c.name)) for c in (training if source == "train" else evaluation)}
        circumstances |= {name: str(metric_of(row, name, source)) for name in ("n_images", "val_list")}
        fields = {column.name: str(row[column.name]) for column in model}
        weights = {n: str(row[n]) for n in row if n.startswith("evaluate.weights.") and source == "evaluate"}
        apart = {column.name: row[column.name] for column in beside}
        identity = str((row["backbone"], row["attention"], fields, circumstances, weights, apart))
        point = points.setdefault(
            identity,
            {
                "backbone": row["backbone"],
                "attention": row["attention"],
                "source": source,
                "found": {},
                "n_images": metric_of(row, "n_images", source),
                "model": fields,
                "circumstances": circumstances,
                **apart,
            },
        )
        seed = row.get("train.seed") if source == "train" else None
        outcome = (row[f"record.{source}.key"], metric_of(row, metric, source))
        earlier = point["found"].setdefault(seed, outcome)
        if earlier != outcome:
            both = " and ".join(f"{key} ({value:.2f} %)" for key, value in (earlier, outcome))
            raise ValueError(
                f"{row['backbone']} {row['attention']} seed {seed}: two records of one run, {both}; leave one out"
            )
    return pd.DataFrame([_with_interval(point) for point in points.values()])


def _is_circumstance(column: Column) -> bool:
    # The weights of an evaluation belong to its model: they do not set it apart from others.
    leaves = column.path[-1] in INCIDENTAL or column.path == ("seed",) or column.path[0] == "weights"
    return column.kind == "task" and not leaves


def _with_interval(point: dict[str, Any]) -> dict[str, Any]:
    values = [value for _, value in point.pop("found").values()]
    mean, images = sum(values) / len(values), point["n_images"]
    low = high = mean
    kind = NO_INTERVAL
    if len(values) > 1:
        ends = mean_interval(values)
        low, high = max(ends.low, 0.0), min(ends.high, 100.0)  # no accuracy is beyond
        kind = _SEEDS
    elif images is not None:
        low, high = (100 * end for end in wilson(mean / 100, images))
        kind = _IMAGES
    return point | {"top1": mean, "low": low, "high": high, "seeds": len(values), "interval": kind}


def interval_notes(points: pd.DataFrame, which: Which) -> list[str]:
    """Return what accuracies and their intervals mean, from how many seeds and images."""
    lines = []
    images = sorted({int(number) for number in points["n_images"].dropna()})
    of = f" of {and_more([f'{number:,}' for number in images])} images" if images else ""
    average = " of the moving averages of the weights" if which == "ema" else ""
    lines.append(f"Top-1{average}{of}.")
    seeds = sorted({int(number) for number in points["seeds"][points["interval"] == _SEEDS]})
    if seeds:
        lines.append(
            f"Means over {and_more([str(number) for number in seeds])} seeds, with the 95 % interval of Student's t "
            "over the seeds, on these images."
        )
    if (points["interval"] == _IMAGES).any():
        lines.append(
            "With one seed, the 95 % interval (Wilson) covers the choice of images but not the noise of the seed."
            if len(seeds) or (points["source"] == "train").any()
            else "The 95 % intervals (Wilson) cover the choice of images."
        )
    if (points["interval"] == NO_INTERVAL).any():
        lines.append("Points without an interval do not say on how many images they were evaluated.")
    return lines


def common_options(attentions: pd.Series) -> list[str]:
    """Return one line about options that all variants of an attention share, which its labels leave out."""
    said = [line.replace(", all rows:", "").removesuffix(".") for line in sorted(shortened(attentions)[1])]
    return [f"Options that are not written: {'; '.join(said)}."] if said else []


def common_values(frame: pd.DataFrame, columns: Sequence[Column]) -> list[str]:
    """Return one line about the values of columns that are the same in all rows."""
    same = [(column.label, frame[column.name].dropna()) for column in columns]
    said = ", ".join(f"{label} {values.iloc[0]}" for label, values in same if values.nunique() == 1)
    return [f"Measured with {said}."] if said else []


def reservations(frame: pd.DataFrame, data: pd.DataFrame, number: str) -> list[str]:
    """Return lines about models of the frame that are not in the data drawn, as they lack a number, about failures, and
    about what else a reader must know before comparing."""
    short, _ = shortened(frame["attention"])

    def names(rows: pd.DataFrame) -> list[str]:
        return [f"{b} {short[a]}" for b, a in zip(rows["backbone"], rows["attention"], strict=True)]

    lines = []
    drawn = set(zip(data["backbone"], data["attention"], strict=True))
    missing = list(dict.fromkeys(names(frame[of_other_models(frame, drawn)])))
    if missing:
        lines.append(f"Left out, without {number}: {count(len(missing), 'model')} ({and_more(missing)}).")
    failed = frame[frame["error"].notna()].drop_duplicates(["backbone", "attention", "error"])
    if len(failed):
        texts = [f"{name}: {error}" for name, error in zip(names(failed), failed["error"], strict=True)]
        lines.append(f"Failed: {and_more(texts, separator='; ')}.")
    if "warning" in frame and len(warned := frame[frame["warning"].notna()]):
        lines.append(f"Evaluated with weights that fit only in part: {and_more(list(dict.fromkeys(names(warned))))}.")
    if mixed := mixed_environments(frame):
        lines.append(f"Measured under differing environments: {', '.join(mixed)}.")
    return lines


def of_other_models(frame: pd.DataFrame, models: set[tuple[str, str]]) -> pd.Series:
    """Return for each row whether its backbone and attention are not among these."""
    rows = zip(frame["backbone"], frame["attention"], strict=True)
    return pd.Series([row not in models for row in rows], frame.index, dtype=bool)
