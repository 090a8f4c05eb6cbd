"""A paired comparison for people: accuracies, differences with intervals, verdicts, and what they hold for."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from results.sheets import Sheet
from results.tables.columns import columns_of, rows_of
from results.tables.naming import shortened
from results.tables.verdicts import LEVEL, NO_BASELINE, images_note, p_text
from results.tables.views import headers_of, telling_fields


def paired_sheet(frame: pd.DataFrame) -> Sheet:
    """Return the comparison for people: what distinguishes groups, accuracies, differences with intervals, verdicts."""
    tasks = [column for column in columns_of(frame) if column.kind == "task"]
    groups = [*telling_fields(frame, ["backbone"]), *(c for c in tasks if frame[c.name].astype(str).nunique() > 1)]
    short, lines = shortened(pd.concat([frame["attention"], frame["baseline"]]))
    unpaired = bool(((frame["seeds_left_out"] != "") | (frame["images_unknown"] != "")).any())
    headers = ["backbone", "attention", *headers_of(groups), "seeds", "top1", "SD"]
    headers += [*(["compared"] if unpaired else []), "difference", "95 % interval", "p", "verdict"]
    rows = []
    for row in rows_of(frame):
        cells = [row["backbone"], short[row["attention"]], *(_text(row[column.name]) for column in groups)]
        cells += [str(row["seeds"]), f"{row['top1']:.2f}", _text(row["top1_sd"], ".2f")]
        cells += [_text(row["paired_seeds"])] if unpaired else []
        interval = "-" if pd.isna(row["low"]) else f"{row['low']:+.2f} to {row['high']:+.2f}"
        rows.append([*cells, _text(row["difference"], "+.2f"), interval, p_text(row["p_holm"]), row["verdict"]])
    numbers = ("seeds", "top1", "SD", "compared", "difference", "95 % interval", "p")
    right = frozenset(position for position, header in enumerate(headers) if header in numbers)
    baselines = dict.fromkeys(short[text] for text in frame["baseline"].dropna())
    caption = f"Top-1 accuracies, and their differences from {' or '.join(baselines)}."
    return Sheet(headers, rows, right, [*lines, *_notes(frame, short)], spare=("SD", "p"), caption=caption)


def _notes(frame: pd.DataFrame, short: dict[str, str]) -> list[str]:
    lines = ["top1: mean over seeds, percent; SD: standard deviation over seeds, in points."]
    if (frame["weights"] == "ema").any():
        lines.append("All accuracies are those of the moving average of the weights (EMA).")
    compared = frame[frame["difference"].notna()]
    if len(compared):
        images = compared[["n_images", "val_list"]].drop_duplicates().itertuples(index=False)
        lists = " and ".join(f"{count:,} images (list {digest})" for count, digest in images)
        lines.append(f"Differences from the baseline in points, seed by seed on the same {lists}.")
    several, one = compared[compared["paired_seeds"] > 1], compared[compared["paired_seeds"] == 1]
    if len(several):
        lines.append(
            "The 95 % intervals cover the choice of the images and of the seeds: they hold for further seeds and for "
            "further images of the same kind."
        )
    if (several["paired_seeds"] <= 3).any():
        lines.append("From 2 or 3 seeds their noise is hardly known, which makes the intervals wide.")
    if len(one):
        lines.append(
            "One seed: the interval covers the choice of images but not the noise of the seed, so there is no verdict."
        )
    if len(several):
        number = f", corrected for the {len(several)} comparisons by Holm's method" if len(several) > 1 else ""
        lines.append(
            f"p: two-sided{number}. Better and worse are said where it is below {LEVEL}: of 20 such tables without any "
            "difference, at most about one says so somewhere."
        )
    if len(several) > 1:
        lines.append("Each interval holds by itself, so it may exclude 0 where the corrected p does not.")
    lines += reservations(frame, short)
    if (frame["verdict"] == NO_BASELINE).any():
        lines.append("No baseline: no run with the baseline attention differs from the row in the attention alone.")
    return list(dict.fromkeys(lines))


def reservations(frame: pd.DataFrame, short: Mapping[str, str]) -> list[str]:
    """Return lines about rows whose seeds are not all compared, or whose records are of differing environments.

    `short` has the names of attentions as they are shown.
    """
    lines = []
    for row in rows_of(frame):
        name = f"{row['backbone']}, {short[row['attention']]}"
        if row["seeds_left_out"]:
            lines.append(f"{name}: seeds without a partner are left out: {row['seeds_left_out']}.")
        lines += images_note(row, name)
        if row["environments"]:
            lines.append(f"{name}: compared across differing environments: {row['environments']}.")
    return lines


def _text(value: Any, form: str = "") -> str:
    return "-" if pd.isna(value) else format(value, form)
