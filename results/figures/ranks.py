"""Mean ranks of attentions over backbones, with the critical difference: how much a few backbones say."""

from typing import Any

import pandas as pd

from results.figures import marks
from results.figures.figure import SIZE, Figure, Scale, Spec, at_pixels, layer, specification
from results.figures.labels import text_width
from results.figures.marks import look
from results.figures.points import common_options
from results.figures.styles import GREY, INK, PALE, Style, styles
from results.statistics import Ranks, rank_over
from results.tables import schema
from results.tables.naming import shortened
from results.tables.pivot import pivoted
from results.tables.ranking import contests, countable_rows
from results.wording import and_more

_WIDTH, _LINE = 300, 22


def ranks(frame: pd.DataFrame, metric: str = "top1", title: str | None = None) -> Figure:
    """Draw the mean rank of each attention over the backbones that have all of them, with its 95 % interval.

    `metric` is what ranks, its better end first; seeds are averaged. An attention that some backbone lacks is left out.
    A backbone without any number is none of these, nor is one whose numbers are of unlike circumstances; numbers that
    were disturbed, or are of a run that failed, do not count. Raises ValueError for a metric without a better end, and
    where there are not two of each.
    """
    better = schema.better(metric)
    if not better:
        raise ValueError(f"{metric} has no better end, so it ranks nothing")
    if metric not in frame:
        raise ValueError(f"no row has a {metric}")
    countable, unlike = _countable(frame, metric)
    numbers, _ = pivoted(countable, "backbone x attention", [metric], asked="ranks")
    scores = numbers.set_index("backbone").dropna(axis="index", how="all")
    complete = scores.dropna(axis="columns")
    if min(complete.shape) < 2:
        raise ValueError(
            f"ranks need 2 attentions that have a {metric} in each of at least 2 backbones; "
            f"here are {complete.shape[1]} such attentions, and backbones: {len(scores)}"
        )
    found = rank_over(complete.to_numpy().tolist(), better == "higher")
    attentions = pd.Series([str(name) for name in complete.columns], dtype=object)
    short, _ = shortened(attentions)
    data = pd.DataFrame(
        {
            "attention": attentions,
            "label": attentions.map(short),
            "mean_rank": found.mean,
            "low": found.low,
            "high": found.high,
            "backbones": found.backbones,
            "critical_difference": found.critical,
            "p": found.p,
        }
    ).sort_values("mean_rank", kind="stable", ignore_index=True)
    # The last digits of a limit that was searched for depend on the processor; a figure does not.
    data = data.round({"low": 9, "high": 9})
    limit = float(data["mean_rank"].iloc[0]) + found.critical
    data["verdict"] = ["worse than the first" if rank > limit else "not distinguishable" for rank in data["mean_rank"]]
    data.loc[0, "verdict"] = "first"
    panel = _panel(data, limit, styles(attentions))
    notes = [*_notes(found, metric, [str(name) for name in complete.index]), *common_options(attentions)]
    if left_out := [str(name) for name in scores.columns if name not in complete.columns]:
        notes.append(f"Left out, as a backbone has none: {and_more(left_out)}.")
    if unlike:
        notes.append(f"Left out, as its numbers are of unlike circumstances: {and_more(unlike)}.")
    beside = 24 + 2 * max(text_width(text, SIZE) for text in data["label"])
    return Figure("ranks", specification([panel], 1, title, notes, beside), data, tuple(notes))


def _countable(frame: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows whose numbers rank, and the names of backbones whose numbers are of unlike circumstances."""
    found = frame[pd.Series(countable_rows(frame, metric), frame.index, dtype=bool) & frame[metric].notna()]
    circumstances: dict[str, set[tuple[Any, ...]]] = {}
    for backbone, contest in zip(found["backbone"], contests(found, metric), strict=True):
        circumstances.setdefault(backbone, set()).add(contest)
    unlike = [backbone for backbone, contest in circumstances.items() if len(contest) > 1]
    return found[~found["backbone"].isin(unlike)], unlike


def _panel(data: pd.DataFrame, limit: float, style: dict[str, Style]) -> Spec:
    rows: list[dict[str, Any]] = [
        {
            **{name: row[name] for name in ("label", "mean_rank", "low", "high", "verdict")},
            "middle": _LINE * (position + 0.5),
            **look(style[str(row["attention"])]._replace(filled=row["verdict"] != "not distinguishable")),
            "written": f"{row['mean_rank']:.2f}",
            "ink": INK,
        }
        for position, row in data.iterrows()
        if isinstance(position, int)
    ]
    scale = Scale([1.0, float(len(data)), *data["low"], *data["high"]], _WIDTH, linear=True)
    x = {"field": "mean_rank", "type": "quantitative", "scale": scale.vega()}
    x |= {"axis": {"title": "mean rank (1 is the best)", "tickCount": min(len(data), 8)}}
    y = at_pixels(y="middle")
    edge = min(limit, scale.domain[1])
    band = {"x": x | {"field": "from"}, "x2": {"field": "to"}}
    layers = [
        layer([{"from": float(data["mean_rank"].iloc[0]), "to": edge}], {"type": "rect", "color": PALE}, band),
        layer([{"from": 1.0}], {"type": "rule", "color": GREY, "strokeDash": [3, 3]}, {"x": x | {"field": "from"}}),
        *marks.lines(rows, x, y, _WIDTH, "label", "mean_rank", "low", "high", "verdict"),
    ]
    return {"title": "", "width": _WIDTH, "height": _LINE * len(data), "layer": layers}


def _notes(found: Ranks, metric: str, backbones: list[str]) -> list[str]:
    lines = [
        f"Mean ranks by {metric} over {found.backbones} backbones ({and_more(backbones, 6)}), with 95 % intervals for "
        "others like these.",
        "Grey: the critical difference from the first; whoever is within it is not told apart from the first at 95 %, "
        "all attentions considered (hollow).",
        f"p = {found.p:.2g} if all attentions ranked alike.",
    ]
    if found.backbones < 6:
        lines.append(
            f"{found.backbones} backbones are few: two attentions of which one is ahead in each of them differ with "
            f"p = {2 / 2**found.backbones:.2g}."
        )
    return lines
