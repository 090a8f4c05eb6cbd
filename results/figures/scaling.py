"""Times, ratios and memory of attentions over the number of tokens, as `attention-bench scaling` has measured them."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from results.figures import marks
from results.figures.figure import SIZE, Figure, Scale, Spec, layer, literal, specification
from results.figures.labels import text_width
from results.figures.styles import GREY, MARKS, Style, styles
from results.records import read_json
from results.tables.columns import rows_of
from results.wording import and_more

_WIDTH, _HEIGHT, _ROOF = 300, 210, 9
"""Of a panel; how far below its upper edge stands what ran out of memory. In pixels."""

WORKS = {"forward": "a forward pass", "both": "forward and backward", "train": "a training step with AdamW"}

_PANELS = {
    "ms": ("ms_p50", "ms_p25", "ms_p75", "time (ms)"),
    "ratio": ("ratio", "ratio_low", "ratio_high", "time over that of {baseline}"),
    "peak": ("peak_mib", None, None, "peak memory (MiB)"),
}
"""What is drawn, with which interval, and the title of the panel."""

_COLUMNS = (
    "tokens", "image_size", "windows", "candidate", "problem", "ms_p25", "ms_p50", "ms_p75", "ratio", "ratio_low",
    "ratio_high", "decided", "disturbed", "peak_mib", "saved_mib",
)  # fmt: skip


def scaling(path: Path, title: str | None = None) -> Figure:
    """Draw what `attention-bench scaling -o FILE.json` has written: a panel each of time, ratio and memory.

    Raises ValueError, in one line with the path, for any other file, and where nothing was measured.
    """
    plain = read_json(path)
    try:
        if plain["kind"] != "scaling":
            raise KeyError("kind")
        data, fitted, notes = _frame(plain), dict(plain["fitted"]), _notes(plain)
        exponents = {name: each["exponent_of_seconds"] for name, each in fitted.items()}
        crossings = {name: each["faster_from"] for name, each in fitted.items()}
        names = [name for name in fitted if data.loc[data["candidate"] == name, "ms_p50"].notna().any()]
        if not names:
            raise ValueError(f"{path}: nothing was measured: {and_more(list(dict.fromkeys(data['problem'].dropna())))}")
        style, x = looks(names), _across(data)
        labels = {name: _label(name, exponents[name]) for name in names}
        baseline = next(iter(fitted))
        crossed = [_crossing(name, crossings[name], style[name]) for name in names if crossings[name]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: no file that `attention-bench scaling ... -o x.json` has written") from error
    panels = []
    for kind, (value, low, high, heading) in _PANELS.items():
        rows = data[data[value].notna() & (data[value] > 0)]
        if len(rows):
            spec = _panel(rows, value, low, high, style, labels if kind == "ms" else {name: name for name in names}, x)
            spec["title"] = heading.format(baseline=baseline)
            if kind == "ms":
                spec["layer"] += _out_of_memory(data, style, x)
            if kind == "ratio":
                spec["layer"] += _crossings([each for each in crossed if each["at"] is not None], x)
            panels.append(spec)
    room = 75 + max(text_width(text, SIZE) for text in labels.values())
    return Figure("scaling", specification(panels, 2, title, notes, room), data, notes)


def looks(candidates: Sequence[str]) -> dict[str, Style]:
    """Return the style of each candidate of a race: the colour of its attention, however it is run."""
    names = {}
    for at, label in enumerate(candidates):
        # A foreign one, as in my_kernel.py:attention, is no attention of ours.
        name = label if ":" in label else label.partition("#")[0].partition("@")[0].partition("(")[0].strip()
        names[label] = f"{name}(candidate={at})"
    found = styles(names.values())
    return {label: found[name] for label, name in names.items()}


def _frame(plain: dict[str, Any]) -> pd.DataFrame:
    rows = [
        {"tokens": size["tokens"], "image_size": size.get("image_size"), "windows": size.get("windows"), **result}
        for size in plain["sizes"]
        for result in size["results"]
    ]
    frame = pd.DataFrame(rows).reindex(columns=list(_COLUMNS))
    numbers = [name for name in _COLUMNS if name not in ("windows", "candidate", "problem", "decided", "disturbed")]
    spare = [name for name in ("image_size", "windows") if frame[name].isna().all()]
    return frame.assign(**{name: pd.to_numeric(frame[name]) for name in numbers}).drop(columns=spare)


def _across(data: pd.DataFrame) -> Spec:
    """Return the horizontal encoding: pixels of a side of an image, or tokens."""
    field = "image_size" if "image_size" in data else "tokens"
    sizes = sorted(int(number) for number in set(data[field]))
    heading = "side of the image (pixels)" if field == "image_size" else "tokens"
    scale = Scale([float(number) for number in sizes], _WIDTH, log=True)
    axis = {"title": heading, "values": sizes, "grid": False, "format": ",d", "labelOverlap": True}
    return {"field": field, "type": "quantitative", "scale": scale.vega(), "axis": axis}


def _label(name: str, exponent: dict[str, float] | None) -> str:
    if exponent is None:
        return name
    return f"{name}, exponent {exponent['value']:.2f} ({exponent['low']:.2f} to {exponent['high']:.2f})"


def _panel(
    rows: pd.DataFrame,
    value: str,
    low: str | None,
    high: str | None,
    style: dict[str, Style],
    labels: dict[str, str],
    x: Spec,
) -> Spec:
    ends = [number for name in (value, low, high) if name is not None for number in rows[name].dropna() if number > 0]
    if value == "ratio":
        ends.append(1.0)
    up = Scale(ends, _HEIGHT, turned=True, log=True, margin=0.1)
    y = {"field": value, "type": "quantitative", "scale": up.vega()}
    y |= {"axis": {"title": None, "format": "~g", **_ticks(*up.domain)}}
    layers, endings = list[Spec](), list[marks.Ending]()
    if value == "ratio":
        layers.append(layer([{value: 1.0}], {"type": "rule", "color": GREY, "strokeDash": [3, 3]}, {"y": y}))
    for name in labels:
        own = [
            {"label": name, x["field"]: row[x["field"]], value: row[value], **marks.look(style[name])}
            | ({} if low is None or high is None else {"low": row[low], "high": row[high]})
            for row in rows_of(rows[rows["candidate"] == name])
        ]
        if not own:
            continue
        line = {"type": "line", "color": style[name].colour, "strokeDash": style[name].dash, "strokeWidth": 1.2}
        layers.append(layer(own, line, {"x": x, "y": y}))
        interval = ["low", "high"] if low else []
        if interval:
            layers += marks.intervals(own, x, y)
        layers.append(marks.points(own, x, y, "label", x["field"], value, *interval, size=38))
        endings.append(marks.Ending(labels[name], style[name], up.pixel(own[-1][value])))
    return {"width": _WIDTH, "height": _HEIGHT, "layer": [*layers, *marks.beside(endings, _WIDTH, _HEIGHT)]}


def _ticks(low: float, high: float) -> Spec:
    """Return where the ticks of a logarithmic axis are: 1, 2, 5, 10, ... or powers of 10, if they are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1,)):
        found = [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]
        if 3 <= len(found) <= 9:
            return {"values": found}
    return {"tickCount": 5}


def _out_of_memory(data: pd.DataFrame, style: dict[str, Style], x: Spec) -> list[Spec]:
    """Return crosses at the top, where candidates ran out of memory first; those at one size are below each other."""
    first = data[data["problem"] == "out of memory"].drop_duplicates("candidate")
    rows = [
        {
            "label": row["candidate"],
            x["field"]: row[x["field"]],
            "top": _ROOF + 11 * sum(first["tokens"][:at] == row["tokens"]),
            "colour": style[row["candidate"]].colour,
            "shape": MARKS["x"],
        }
        for at, row in enumerate(rows_of(first))
        if row["candidate"] in style
    ]
    if not rows:
        return []
    top = {"field": "top", "type": "quantitative", "scale": None, "axis": None}
    colours = literal(colour="fill", shape="shape")
    return [
        layer(rows, {"type": "point", "size": 40, "strokeWidth": 0, "opacity": 1}, {"x": x, "y": top, **colours}),
        layer(
            rows,
            {"type": "text", "align": "right", "baseline": "middle", "dx": -8},
            {"x": x, "y": top, "text": {"field": "label", "type": "nominal"}},
        ),
    ]


def _crossing(name: str, found: dict[str, Any], style: Style) -> dict[str, Any]:
    return {
        "label": name,
        "at": found["at"],
        "written": None if found["at"] is None else f"{found['at']:,.0f}",
        "one": 1.0,
        "low": found["low"],
        "high": found["high"],
        **marks.look(style._replace(filled=found["decided"])),
    }


def _crossings(rows: Sequence[Spec], x: Spec) -> list[Spec]:
    """Return marks on the line of equal times, with the sizes between which that is decided; hollow if it is not."""
    if not rows:
        return []
    at, y = x | {"field": "at"}, {"field": "one", "type": "quantitative"}
    decided = [row for row in rows if row["low"] is not None and row["high"] is not None]
    ends = {"x": x | {"field": "low"}, "x2": {"field": "high"}, "y": y}
    text = {"type": "text", "baseline": "bottom", "dy": -7}
    written = {"x": at, "y": y, "text": {"field": "written", "type": "nominal"}}
    return [
        layer(decided, {"type": "rule", "strokeWidth": 3, "opacity": 0.45}, ends | literal(colour="stroke")),
        marks.points(rows, at, y, "label", "at", size=60),
        layer(rows, text | {"stroke": "white", "strokeWidth": 3}, written),
        layer(rows, text, written),
    ]


def _notes(plain: dict[str, Any]) -> tuple[str, ...]:
    about, sizes = plain["environment"], plain["sizes"]
    threads = f", threads: {about['threads']}" if about["device"] == "cpu" else ""
    lines = [
        f"Medians of {WORKS[plain['work']]}, batch {plain['batch']}, with quartiles; ratios, measured in turn at each "
        "size, with 95 % intervals. Both axes are logarithmic.",
        f"{about['device_name'] or about['device']}{threads}; torch {about['torch']}.",
    ]
    fitted = plain["fitted"].values()
    if any(each["exponent_of_seconds"] for each in fitted):
        lines.append("Exponent: of the number of tokens, at the last sizes, with its 95 % interval.")
    if any(each["faster_from"] and each["faster_from"]["at"] for each in fitted):
        lines.append(
            "Marks on the line of equal times: from where on an attention is faster, and the sizes between which that "
            "is decided; hollow where it is not."
        )
    if plain["backbone"] is None:
        lines.append("The whole map is one window.")
    else:
        lines += [f"{plain['backbone']} at {s['image_size']}: tokens meet in {s['windows']}." for s in sizes]
    problems = {(each["candidate"], each["problem"]) for size in sizes for each in size["results"] if each["problem"]}
    if hungry := sorted(name for name, problem in problems if problem == "out of memory"):
        lines.append(f"Crosses at the top: where {and_more(hungry)} ran out of memory.")
    lines += [f"{name}: {problem}." for name, problem in sorted(problems) if problem != "out of memory"]
    if disturbed := [str(size["place"]) for size in sizes if size["disturbed"]]:
        lines.append(f"Disturbed, so that nothing is decided there: {and_more(disturbed)}.")
    return tuple(lines)
