"""What blocks are like, block by block: a panel per measure, a line per model, with intervals over images."""

from collections.abc import Sequence

import pandas as pd

from results.figures import marks
from results.figures.figure import SIZE, Figure, Scale, Spec, layer, specification
from results.figures.labels import text_width
from results.figures.styles import Style, styles
from results.tables.analyzed import MEASURES, analysis_notes
from results.tables.columns import rows_of

_WIDTH, _HEIGHT = 260, 150


def analysis(frame: pd.DataFrame, title: str | None = None) -> Figure:
    """Draw the measures of blocks over the depth of the models, for a frame as of `results.tables.analysis_sheet`.

    Raises ValueError where there is nothing to draw.
    """
    shown = [name for name in MEASURES if name in frame and frame[name].notna().any()]
    if not shown:
        raise ValueError("no block has any measure")
    models = list(dict.fromkeys(frame["model"]))
    first = frame.drop_duplicates("model")
    # A model under test may end in softmax blocks: it looks as its first attention does.
    looks = styles(first["attention"])
    style = dict(zip(first["model"], (looks[name] for name in first["attention"]), strict=True))
    if len(set(style.values())) < len(models):  # of one attention with other weights, say
        style = dict(zip(models, styles(models).values(), strict=True))
    depth = frame.groupby("model", sort=False).cumcount()
    specs = [_panel(frame.assign(depth=depth), name, models, style) for name in shown]
    notes = tuple(analysis_notes(frame))
    room = 60 + max(text_width(name, SIZE) for name in models)
    return Figure("analysis", specification(specs, 2, title, notes, room), frame, notes)


def _panel(frame: pd.DataFrame, name: str, models: Sequence[str], style: dict[str, Style]) -> Spec:
    known = frame[frame[name].notna()]
    ends = [value for column in (name, f"{name}_low", f"{name}_high") for value in known[column].dropna()]
    up = Scale(ends, _HEIGHT, turned=True, linear=True)
    x = {"field": "depth", "type": "quantitative", "axis": {"title": "block", "tickMinStep": 1, "grid": False}}
    x |= {"scale": {"domain": [-0.5, int(frame["depth"].max()) + 0.5], "nice": False}}
    y = {"field": "value", "type": "quantitative", "scale": up.vega(), "axis": {"title": None, "tickCount": 5}}
    layers, endings = [], []
    for model in models:
        rows = [
            {
                "label": model,
                "depth": row["depth"],
                "value": row[name],
                **({} if pd.isna(row[f"{name}_low"]) else {"low": row[f"{name}_low"], "high": row[f"{name}_high"]}),
                **marks.look(style[model]),
            }
            for row in rows_of(known[known["model"] == model])
        ]
        if not rows:
            continue
        line = {"type": "line", "color": style[model].colour, "strokeDash": style[model].dash, "strokeWidth": 1.2}
        layers.append(layer(rows, line, {"x": x, "y": y}))
        layers += marks.intervals([row for row in rows if "low" in row], x, y)
        layers.append(marks.points(rows, x, y, "label", "depth", "value", "low", "high", size=30))
        endings.append(marks.Ending(model, style[model], up.pixel(rows[-1]["value"])))
    return {
        "title": MEASURES[name],
        "width": _WIDTH,
        "height": _HEIGHT,
        "layer": [*layers, *marks.beside(endings, _WIDTH, _HEIGHT)],
    }
