"""Accuracy over the values of an option of attentions, a curve per attention."""

import ast

import pandas as pd

from results.figures import marks
from results.figures.figure import SIZE, Figure, Spec, accuracy_scale, at_settings, layer, specification
from results.figures.labels import text_width
from results.figures.marks import look
from results.figures.panels import Panel, differing_fields, panel_notes, panels
from results.figures.points import Which, accuracies, common_options, interval_notes, reservations
from results.figures.styles import Style, styles
from results.tables.columns import Column, rows_of
from results.tables.naming import name_and_options, shortened
from results.wording import natural

_HEIGHT, _STEP = 230, 62

_COLUMNS = (
    "panel", "backbone", "attention", "series", "value", "top1", "low", "high", "seeds", "n_images", "interval",
)  # fmt: skip


def ablation(frame: pd.DataFrame, option: str, which: Which = "model", title: str | None = None) -> Figure:
    """Draw the accuracies in a frame of `results.tables.table` over the values of an option, a curve per attention.

    The option is one of an attention, or a field of the model, as in stages or window.
    A curve is of one attention whose other options are the same. Values are at equal distances, None and other texts
    before the numbers and apart from the line. Raises ValueError where no attention has two values of the option.
    """
    found = with_option(accuracies(frame, which), option)
    several = found.groupby(["backbone", "series"])["value"].nunique() if len(found) else pd.Series(dtype=int)
    if not (several > 1).any():
        raise ValueError(nothing_varies(frame, option))
    drawn = panels(found)
    data = pd.concat([_ordered(panel.points).assign(panel=panel.title) for panel in drawn], ignore_index=True)
    # The first variant of a series gives the series its look.
    first = data.drop_duplicates("series")
    looks = styles(first["attention"])
    style = {row["series"]: looks[row["attention"]] for row in rows_of(first)}
    specs = [_panel(Panel(str(name), rows), option, style) for name, rows in data.groupby("panel", sort=False)]
    notes = [*interval_notes(data, which), "Values are drawn at equal distances."]
    notes += [*panel_notes(drawn), *common_options(data["series"])]
    has_it = frame["attention"].map(lambda text: option in name_and_options(text)[1]).astype(bool)
    notes += reservations(frame[has_it], data, "an accuracy")
    room = 70 + max(text_width(text, SIZE) for text in shortened(data["series"])[0].values())
    columns = 2 if max(spec["width"] for spec in specs) <= 320 else 1
    return Figure("ablation", specification(specs, columns, title, notes, room), data[list(_COLUMNS)], tuple(notes))


def with_option(points: pd.DataFrame, *options: str) -> pd.DataFrame:
    """Return the points that have these options, of the attention or of the model, as in stages or window.

    Their values are the columns "value" and "other"; "series" is the attention and what else sets models apart.
    """
    rows = []
    for row, fields in zip(rows_of(points), differing_fields(points, options), strict=True):
        name, own = name_and_options(row["attention"])
        values = {Column.parse(field).label: value for field, value in row["model"].items()} | own
        if not set(options) <= values.keys():
            continue
        rest = ", ".join(f"{key}={value}" for key, value in own.items() if key not in options)
        found = dict(zip(("value", "other"), (values[option] for option in options), strict=False))
        series = " ".join([f"{name}({rest})" if rest else name, *fields])
        rows.append(row | found | {"series": series})
    return pd.DataFrame(rows)


def in_order(values: pd.Series) -> list[str]:
    """Return the distinct values of an option: texts and None first, then the numbers by their size."""
    return sorted(set(values), key=lambda text: (_number(text) is not None, _number(text) or 0.0, natural(text)))


def _number(text: str) -> float | None:
    """Return the number that the text of a value is, or None."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def nothing_varies(frame: pd.DataFrame, *options: str) -> str:
    values: dict[str, set[str]] = {}
    for text in frame["attention"].unique():
        for name, value in name_and_options(text)[1].items():
            values.setdefault(name, set()).add(value)
    varying = [name for name, found in values.items() if len(found) > 1]
    hint = f"; attentions here differ in: {', '.join(sorted(varying))}" if varying else ""
    return f"no attention here has accuracies for two values of {' and '.join(options)}{hint}"


def _ordered(points: pd.DataFrame) -> pd.DataFrame:
    order = {value: position for position, value in enumerate(in_order(points["value"]))}
    at = points["value"].map(order)
    return points.assign(at=at).sort_values(["series", "at"], key=_by_nature, kind="stable")


def _by_nature(column: pd.Series) -> pd.Series:
    if column.name != "series":
        return column
    ranks = {text: rank for rank, text in enumerate(sorted(set(column), key=natural))}
    return column.map(ranks)


def _panel(panel: Panel, option: str, style: dict[str, Style]) -> Spec:
    points = panel.points
    values = in_order(points["value"])
    series = list(dict.fromkeys(points["series"]))
    width = max(_STEP * len(values), 150)
    up = accuracy_scale([*points["low"], *points["high"]], _HEIGHT)
    # Intervals of several series at one value are side by side.
    apart = min(13.0, 0.7 * _STEP / len(series))
    shift = {name: apart * (position - (len(series) - 1) / 2) for position, name in enumerate(series)}
    per_value = width / len(values)
    rows = [
        {
            **{name: row[name] for name in ("label", "value", "top1", "low", "high", "seeds")},
            "at": row["at"] + shift[row["series"]] / per_value,
            "series": row["series"],
            "group": f"{row['series']} {_number(row['value']) is None and row['value']}",
            **look(style[row["series"]]),
        }
        for row in rows_of(points)
    ]
    x = at_settings(values, option)
    y = {"field": "top1", "type": "quantitative", "scale": up.vega(), "axis": {"title": "top-1 (%)", "tickCount": 6}}
    lines = []
    for name in series:
        line = [row for row in rows if row["series"] == name and _number(row["value"]) is not None]
        mark = {"type": "line", "color": style[name].colour, "strokeDash": style[name].dash, "strokeWidth": 1.5}
        if len(line) > 1:
            lines.append(layer([{"at": row["at"], "top1": row["top1"]} for row in line], mark, {"x": x, "y": y}))
    last = [[row for row in rows if row["series"] == name][-1] for name in series]
    short, _ = shortened(pd.Series(series))
    endings = [
        marks.Ending(short[name], style[name], up.pixel(row["top1"])) for name, row in zip(series, last, strict=True)
    ]
    layers = [
        *lines,
        *marks.intervals(rows, x, y),
        marks.points(rows, x, y, "label", "value", "top1", "low", "high", "seeds"),
        *marks.beside(endings, width, _HEIGHT),
    ]
    return {"title": panel.title, "width": width, "height": _HEIGHT, "layer": layers}
