"""The analysis of blocks, as `attention-bench analyze` makes it, as a table for people."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from results.sheets import Sheet
from results.tables.columns import rows_of

MEASURES: Mapping[str, str] = {
    "rank": "rank of the map",
    "rank_attention": "rank without the convolution",
    "effective_rank": "effective rank of the map",
    "entropy": "entropy of a query's weights (nats)",
    "distance_px": "mean distance to the keys (pixels)",
    "focus": "share of the top 10 % of the keys",
    "head_similarity": "cosine between maps of heads",
    "token_cosine": "cosine between tokens after the block",
    "norm_growth": "length of tokens, after over before",
    "convolution_share": "share of the convolution in what is added",
    "attention_time_share": "share of the attention in the forward time",
    "block_time_share": "share of the block in the forward time",
}
"""What is known of a block, and what it is, in words."""

_DIGITS = {"rank": 1, "rank_attention": 1, "effective_rank": 1, "distance_px": 1}
_SPARE = ("block_time_share", "norm_growth", "head_similarity", "rank_attention", "distance_px")


def analysis_sheet(frame: pd.DataFrame) -> Sheet:
    """Return the means of every measure that any block has, a row per model and block.

    `frame` has the columns model, stage, block, attention, kind, images and, for each of MEASURES, its mean and the
    ends of its interval (`_low`, `_high`).
    """
    shown = [name for name in MEASURES if name in frame and frame[name].notna().any()]
    headers = ["model", "stage", "block", *shown]
    rows = [
        [row["model"], str(row["stage"]), str(row["block"]), *(_text(name, row) for name in shown)]
        for row in rows_of(frame)
    ]
    right = frozenset(range(1, len(headers)))
    return Sheet(headers, rows, right, analysis_notes(frame), _SPARE, frozenset())


def analysis_notes(frame: pd.DataFrame) -> list[str]:
    """Return what a reader must know: how many images, which maps are no products, which were looked at in part."""
    images = sorted(set(frame["images"]))
    lines = [
        f"Means over {' or '.join(f'{number:,}' for number in images)} images, ± half the 95 % interval (Student)."
    ]
    for kind, said in (
        ("per channel", "each channel has a map of its own; measures are of the mean over the channels of a head"),
        ("jacobian", "not linear in the values channel by channel; measures are of norms of its Jacobian"),
        ("no map: the values are not read", "reads no values, so it has no map"),
    ):
        if names := list(dict.fromkeys(frame[frame["kind"] == kind]["attention"])):
            lines.append(f"{', '.join(names)}: {said}.")
    return lines


def _text(name: str, row: Mapping[str, Any]) -> str:
    value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    if pd.isna(value):
        return "-"
    digits = _DIGITS.get(name, 3)
    text = f"{value:.{digits}f}"
    return text if pd.isna(low) else f"{text} ± {(high - low) / 2:.{digits}f}"
