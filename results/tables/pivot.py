"""One metric for each pair of values, as of attentions and backbones: the table of most papers."""

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from results.sheets import Sheet
from results.tables import schema
from results.tables.columns import Column, columns_of, is_figure, values_of
from results.tables.naming import shortened
from results.tables.notes import advice, notes
from results.tables.ranking import contests, countable_rows, ranked
from results.tables.selection import columns_named
from results.tables.texts import STANDARD_ERROR, number_text, texts_of

# Circumstances that are averaged over, or that change no number.
_FREE = ("seed", "workers", "root", "path", "cache", "digest", "run", "checkpoint_minutes", "tensorboard", "label")
# What tells apart the runs that are averaged over.
_RUNS = ("seed", "digest", "run")


def pivoted(
    frame: pd.DataFrame, layout: str, metrics: Sequence[str], asked: str = "--pivot"
) -> tuple[pd.DataFrame, Sheet]:
    """Return a metric by the values of two columns, as "attention x backbone": a frame of numbers, and a sheet.

    Rows that differ in their seed alone are one number, their mean, with the standard deviation over seeds behind it.
    Raises ValueError for anything but two columns and one metric, and for a pair of values with rows that differ in
    more than the seed; `asked` is what of a command line asked for it.
    """
    parts = re.fullmatch(r"\s*(\S+)\s+x\s+(\S+)\s*", layout)
    if parts is None:
        raise ValueError(f'--pivot {layout!r}: it takes two columns, as in "attention x backbone"')
    if len(metrics) != 1:
        raise ValueError("--pivot shows one metric: name it with --columns, as in --columns top1")
    down, across = (columns_named(frame, name, "--pivot")[0] for name in parts.groups())
    if down == across:
        raise ValueError(f"--pivot {layout!r}: rows and columns are both {down}; it takes two different columns")
    metric = metrics[0]
    if metric not in frame:
        raise ValueError(f"--pivot: no row has a {metric}")
    groups: dict[tuple[Any, Any], list[int]] = {}
    pairs = list(zip(values_of(frame[down]), values_of(frame[across]), strict=True))
    values, countable = values_of(frame[metric]), countable_rows(frame, metric)
    for row, pair in enumerate(pairs):
        if values[row] is not None:
            groups.setdefault(pair, []).append(row)
    numbers, texts, alike = {}, {}, {}
    contest = contests(frame, metric)
    shown = texts_of(frame, Column.parse(metric))
    seeds: set[int] = set()
    for pair, found in groups.items():
        rows = [row for row in found if is_figure(values[row])]
        if not rows:  # a text in place of a number
            texts[pair] = shown[found[0]]
            continue
        own = [row for row in rows if countable[row]]
        distinct = [values[row] for row in own or rows]
        if len(distinct) > 1:
            try:
                _check_alike(frame.iloc[own or rows], pair, metric)
                distinct = _once_per_run(frame.iloc[own or rows], pair, metric)
            except ValueError as problem:
                raise ValueError(f"{asked}: {problem}") from problem
        numbers[pair] = float(pd.Series(distinct, dtype=float).mean())
        if own:
            alike[pair] = frozenset(contest[row] for row in own)
        if len(set(distinct)) == 1 or not own:
            texts[pair] = shown[(own or rows)[0]]
            seeds |= {1} if " ± " in texts[pair] else set()
        else:
            spread = float(pd.Series(distinct, dtype=float).std(ddof=1))
            seeds.add(len(distinct))
            texts[pair] = f"{number_text(metric, numbers[pair])} ± {number_text(metric, spread)}"
    rows_, columns_ = (list(dict.fromkeys(each[axis] for each in pairs)) for axis in (0, 1))
    result = pd.DataFrame(
        [[name, *(numbers.get((name, other)) for other in columns_)] for name in rows_],
        columns=[down.rpartition(".")[2], *map(str, columns_)],
    )
    return result, _sheet(frame, metric, (down, across), (rows_, columns_), texts, numbers, alike, seeds)


def _sheet(
    frame: pd.DataFrame,
    metric: str,
    names: tuple[str, str],
    axes: tuple[list[Any], list[Any]],
    texts: dict[tuple[Any, Any], str],
    numbers: dict[tuple[Any, Any], float],
    alike: dict[tuple[Any, Any], frozenset[tuple[Any, ...]]],
    seeds: set[int],
) -> Sheet:
    down, across = axes
    short = dict(zip(down, map(str, down), strict=True))
    lines: list[str] = []
    if names[0] == "attention":
        found, lines = shortened(pd.Series(down, dtype=object))
        short |= found
    statuses = dict(zip(zip(frame[names[0]], frame[names[1]], strict=True), frame["status"], strict=True))
    rows = [[short[one], *(texts.get((one, two), _gap(statuses, one, two)) for two in across)] for one in down]
    best: set[tuple[int, int]] = set()
    second: set[tuple[int, int]] = set()
    unranked: list[str] = []
    if names == ("attention", "backbone") and not any("(disturbed)" in text for text in texts.values()):
        for position, two in enumerate(across, 1):
            if len({alike[one, two] for one in down if (one, two) in alike}) > 1:
                unranked.append(str(two))
                continue
            column = pd.DataFrame(
                {"attention": down, metric: [numbers[one, two] if (one, two) in alike else None for one in down]}
            )
            ranks = ranked(column.assign(backbone=two), metric, [row[position] for row in rows])
            best |= {(row, position) for row in ranks[0]}
            second |= {(row, position) for row in ranks[1]}
    if unranked:
        lines.append(f"Not ranked, as the numbers are of unlike circumstances: {', '.join(unranked)}.")
    meaning = schema.of_metric(metric)
    unit = f", {meaning.unit}" if meaning and meaning.unit not in ("", "1") else ""
    head = f"{metric}: {meaning.text}{unit}." if meaning else f"{metric}."
    spread = STANDARD_ERROR
    if several := seeds - {1}:
        least, most = min(several), max(several)
        over = f"the standard deviation over {least if least == most else f'{least} to {most}'} seeds"
        spread = f"{over}; of one seed, {spread}" if 1 in seeds else over
    headers = [names[0].rpartition(".")[2], *map(str, across)]
    return Sheet(
        headers=headers,
        rows=rows,
        right=frozenset(range(1, len(headers))),
        notes=[*lines, *notes(frame)],
        caption=head,
        spread=spread,
        advice=advice(frame),
        best=frozenset(best),
        second=frozenset(second),
    )


def _gap(statuses: dict[tuple[Any, Any], str], one: Any, two: Any) -> str:
    status = statuses.get((one, two), "done")
    return "-" if status == "done" else status


def _check_alike(rows: pd.DataFrame, pair: tuple[Any, Any], metric: str) -> None:
    """Raise ValueError where rows of one pair have unlike numbers and differ in more than the seed."""
    if rows[metric].nunique() <= 1:
        return
    differing = [
        column.name
        for column in columns_of(rows)
        if column.kind in ("model", "task") and column.path[-1] not in _FREE and rows[column.name].nunique() > 1
    ]
    if differing:
        said = ", ".join(f"{name} ({', '.join(map(str, rows[name].dropna().unique()))})" for name in differing[:3])
        where = " and ".join(map(str, pair))
        raise ValueError(f"several rows for {where}, which differ in {said}: choose with --where")


def _once_per_run(rows: pd.DataFrame, pair: tuple[Any, Any], metric: str) -> list[Any]:
    """Return the number of each run; raise ValueError where one run has several, as from the folders of two people."""
    columns = [c.name for c in columns_of(rows) if c.kind == "task" and c.path[-1] in _RUNS]
    found: dict[str, list[Any]] = {}
    runs = zip(*(values_of(rows[name]) for name in columns), strict=True) if columns else [()] * len(rows)
    for run, value in zip(runs, values_of(rows[metric]), strict=True):
        found.setdefault(str(run), []).append(value)
    if rows[metric].nunique(dropna=False) > 1:
        for same in found.values():
            if len(distinct := list(dict.fromkeys(map(str, same)))) > 1:
                where = " and ".join(map(str, pair))
                hint = ": choose with --where folder=..." if "folder" in rows else ""
                raise ValueError(f"{where} has unlike numbers of one run, {' and '.join(distinct)}{hint}")
    return [same[0] for same in found.values()]
