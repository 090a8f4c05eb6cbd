"""What comparisons share: which images were right, and what is said of a difference."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from results.correctness import read_correct
from results.records import Record
from results.wording import and_more

Which = Literal["model", "ema"]

BASELINE = "baseline"
BETTER, WORSE, UNCLEAR = "better", "worse", "not distinguishable"
ONE_SEED, NO_COMMON_SEED, NO_BASELINE = "one seed", "no common seed", "no baseline"
NO_IMAGES = "images not known"

LEVEL = 0.05
"""The chance to call any difference of a table better or worse where there is none."""

_FILES: dict[str, str] = {"model": "correct.npy", "ema": "correct_ema.npy"}
METRIC_OF: dict[str, str] = {"model": "top1", "ema": "top1_ema"}


def check_rope(rope: float | None) -> None:
    """Raise ValueError for a region of practical equivalence that is none."""
    if rope is not None and not 0 < rope < 100:
        raise ValueError(
            f"rope, the difference that is too small to matter, is in points between 0 and 100, got {rope:g}"
        )


def verdict_of(p_holm: float, row: Mapping[str, Any], rope: float | None) -> str:
    """Return what is said of a row's difference and its interval, `low` to `high`, given its corrected p-value."""
    found = UNCLEAR
    if p_holm < LEVEL:
        found = BETTER if row["difference"] > 0 else WORSE
    if rope is None or not -rope < row["low"] <= row["high"] < rope:
        return found
    equal = f"practically equal within {rope:g} points"
    return equal if found == UNCLEAR else f"{found}, but {equal}"


def known_bits(records: Mapping[int, Record], weights: Which = "model") -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """Return which images were right, from the run folder beside each record, and why that of others is not known."""
    known: dict[int, np.ndarray] = {}
    unknown: dict[int, str] = {}
    for name, record in records.items():
        try:
            known[name] = _bits_of(record, weights)
        except ValueError as problem:
            # A page is sent around: where the folder is on this machine is nobody's business.
            unknown[name] = str(problem).removeprefix(f"{record.folder}/")
    return known, unknown


def check_any_compared(rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise ValueError if no row has a difference since it is not known which images were right."""
    reasons = [row["images_unknown"] for row in rows if row.get("images_unknown")]
    if reasons and not any("p" in row for row in rows):
        raise ValueError(f"nothing to compare, as it is not known which images were right: {and_more(reasons, 1)}")


def images_note(row: Mapping[str, Any], name: str) -> list[str]:
    """Return the line, if any, about what of a row is not compared."""
    reasons = row["images_unknown"]
    return [f"{name}: not compared, as it is not known which images were right: {reasons}."] if reasons else []


def _bits_of(record: Record, weights: Which) -> np.ndarray:
    """Return which images were right; raise ValueError where that is missing, damaged, or not of this record."""
    if record.folder is None:
        raise ValueError("the record is not from a file")
    if not isinstance(record.metrics.get("n_images"), int):
        raise ValueError(f"{record.key}.json does not say of how many images")
    path = record.folder / record.key / _FILES[weights]
    bits = read_correct(path, record.metrics["n_images"])
    ours, theirs = 100 * bits.mean(), record.metrics[METRIC_OF[weights]]
    # Bits of another run would be paired wrongly, and nothing else would show it.
    if not np.isclose(ours, theirs, rtol=0, atol=1e-6):
        raise ValueError(
            f"{path}: {ours:.4f} % are right, but its record says {theirs:.4f}: they are from different runs"
        )
    return bits


def p_text(value: Any) -> str:
    """Return a p-value for people."""
    if pd.isna(value):
        return "-"
    return "< 0.0001" if value < 0.0001 else f"{value:#.2g}"


def file_of(record: Record) -> Path:
    """Return the file of a record, in the folder as it was given."""
    return (record.folder or Path()) / f"{record.key}.json"


def run_name(record: Record) -> str:
    """Return a training in words."""
    backbone = record.cell["backbone"]
    return f"{backbone['name']} {backbone['attention']} seed {record.cell['task']['seed']}"
