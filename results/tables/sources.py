"""What sources print about the models of a paper beside its table: numbers that contradict it, and run times."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from results.tables.columns import rows_of
from results.tables.reproduction import ROUNDING, describe, read_table, tolerance

QUANTITIES = ("params_m", "gmacs", "top1")

_TIMES = {"flatten": "flatten_fig7"}


def contradictions(published: pd.DataFrame, quantities: Sequence[str] = QUANTITIES) -> list[str]:
    """Return a text for each model and quantity of which no number is within the rounding of all that are printed.

    As in "DeiT-T at 224: gmacs 1.2 and 1.26". `published` are the rows of `published_rows`.
    A quantity that was read from a plot has the error of the reading.
    """
    models: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows_of(published):
        if row["model"]:
            models.setdefault((row["model"], row["resolution"]), []).append(row)
    found = []
    for rows in models.values():
        for quantity in quantities:
            printed = [row for row in rows if row[quantity]]
            ends = [(float(row[quantity]), tolerance(row, quantity)) for row in printed]
            if ends and max(v - error for v, error in ends) > min(v + error for v, error in ends) + ROUNDING:
                texts = sorted({row[quantity] for row in printed}, key=lambda text: (float(text), text))
                found.append(f"{describe(rows[0])}: {quantity} {' and '.join(texts)}")
    return found


def published_times(paper: str) -> pd.DataFrame:
    """Return the run times that a paper prints or plots.

    Columns: model, resolution (an int), attention, hardware, ms (per image, as text), top1 (as text), source, note.
    """
    rows = read_table("efficiency.csv")
    rows = rows[(rows["group"] == _TIMES.get(paper)) & (rows["metric"] == "runtime")]
    rows = rows.assign(resolution=rows["resolution"].astype(int)).rename(columns={"value": "ms"})
    return rows[["model", "resolution", "attention", "hardware", "ms", "top1", "source", "note"]].reset_index(drop=True)
