"""Differences of accuracies from a baseline, one line per attention with its interval: a forest plot."""

from typing import Any

import pandas as pd

from results.figures import marks
from results.figures.figure import SIZE, Figure, Scale, Spec, at_pixels, layer, specification
from results.figures.labels import text_width
from results.figures.marks import look
from results.figures.panels import Panel, panel_notes, parted
from results.figures.points import common_options
from results.figures.styles import GREY, INK, Style, styles
from results.tables.columns import columns_of, rows_of
from results.tables.naming import shortened
from results.tables.paired_views import reservations
from results.tables.verdicts import BASELINE, BETTER, LEVEL, WORSE
from results.wording import and_more

_WIDTH, _LINE = 300, 22
_SIGNED = "datum.value == 0 ? '0' : format(datum.value, '+~g')"

_COLUMNS = (
    "panel", "backbone", "attention", "label", "baseline", "difference", "low", "high", "p", "p_holm", "verdict",
    "paired_seeds", "n_images", "weights",
)  # fmt: skip


def forest(comparisons: pd.DataFrame, title: str | None = None) -> Figure:
    """Draw the differences in a frame of `results.tables.comparisons`, a panel per backbone and way of training.

    Raises ValueError if there is none.
    """
    drawn = comparisons[comparisons["difference"].notna()]
    if drawn.empty:
        reasons = ", ".join(dict.fromkeys(comparisons["verdict"]))
        raise ValueError(f"no difference to draw: all attentions here are without a partner ({reasons})")
    short, _ = shortened(pd.concat([comparisons["attention"], comparisons["baseline"]]))
    groups = _panels(drawn)
    data = pd.concat([rows.assign(panel=name) for name, rows, _ in groups], ignore_index=True)
    data = data.assign(label=data["attention"].map(short))[list(_COLUMNS)]
    style = styles(comparisons["attention"])
    scale = Scale([*data["low"], *data["high"], 0.0], _WIDTH, linear=True)
    specs = [_panel(name, rows, scale, short, style) for name, rows in data.groupby("panel", sort=False)]
    notes = [*_notes(comparisons, data, short), *panel_notes(groups)]
    beside = 24 + sum(
        max(text_width(text, SIZE) for text in texts) for texts in (data["label"], map(_written, rows_of(data)))
    )
    return Figure("forest", specification(specs, 1, title, notes, beside), data, tuple(notes))


def _panels(drawn: pd.DataFrame) -> list[Panel]:
    """Return the rows of each group, titled by the backbone and the circumstances in which groups differ."""
    names = [column.name for column in columns_of(drawn) if column.kind in ("model", "task")]
    said = [{name: str(row[name]) for name in names} for row in rows_of(drawn)]
    return parted(drawn, list(drawn["backbone"]), said)


def _panel(name: Any, rows: pd.DataFrame, scale: Scale, short: dict[str, str], style: dict[str, Style]) -> Spec:
    height = _LINE * len(rows)
    values = [
        {
            **{k: row[k] for k in ("label", "difference", "low", "high", "verdict")},
            "middle": _LINE * (position + 0.5),
            **look(style[row["attention"]]._replace(filled=row["verdict"].startswith((BETTER, WORSE)))),
            "written": _written(row),
            "ink": INK,
        }
        for position, row in enumerate(rows_of(rows))
    ]
    baseline = short[rows["baseline"].iloc[0]]
    x = {"field": "difference", "type": "quantitative", "scale": scale.vega()}
    x |= {"axis": {"title": f"difference from {baseline} in points", "tickCount": 6, "labelExpr": _SIGNED}}
    y = at_pixels(y="middle")
    layers = [
        layer([{"zero": 0}], {"type": "rule", "color": GREY, "strokeDash": [3, 3]}, {"x": x | {"field": "zero"}}),
        *marks.lines(values, x, y, _WIDTH, "label", "difference", "low", "high", "verdict"),
    ]
    return {"title": name, "width": _WIDTH, "height": height, "layer": layers}


def _written(row: dict[str, Any]) -> str:
    text = f"{row['difference']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})".replace("-", "−")
    return text if pd.isna(row["p_holm"]) else f"{text}, {_p(row['p_holm'])}"


def _p(value: float) -> str:
    return "p < 0.0001" if value < 0.0001 else f"p = {value:#.2g}"


def _notes(comparisons: pd.DataFrame, data: pd.DataFrame, short: dict[str, str]) -> list[str]:
    several, one = data[data["paired_seeds"] > 1], data[data["paired_seeds"] == 1]
    images = and_more([f"{number:,}" for number in sorted(set(data["n_images"].dropna()))])
    average = " of the moving averages of the weights" if (data["weights"] == "ema").any() else ""
    lines = [f"Differences of top-1{average}, image by image on the same {images} images and seed by seed."]
    if len(several):
        seeds = and_more([str(number) for number in sorted(set(several["paired_seeds"]))])
        lines.append(
            f"Lines: 95 % intervals over {seeds} seeds and over images, each by itself. Filled: better or worse, where "
            f"p, two-sided and corrected for {len(several)} comparisons by Holm's method, is below {LEVEL}."
        )
    if len(one):
        lines.append("With one seed, the interval covers the choice of images but not the noise of the seed: hollow.")
    lines += common_options(pd.concat([comparisons["attention"], comparisons["baseline"]]))
    without = comparisons[comparisons["difference"].isna() & (comparisons["verdict"] != BASELINE)]
    if len(without):
        names = [f"{row['backbone']} {short[row['attention']]}: {row['verdict']}" for row in rows_of(without)]
        lines.append(f"Left out: {and_more(names)}.")
    return [*lines, *reservations(comparisons, short)]
