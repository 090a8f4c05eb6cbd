"""`attention-bench status`: show the states of cells, once or repeatedly, for people and for machines.

Imports no torch, as it must answer at once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from harness.jobs.states import STATES, Standing, State, begun_in, look_at
from harness.jobs.submissions import Submission, labels_of, nothing_found, of_sweep, read_existing, warn_damaged
from harness.status.overview import Overview
from harness.status.rows import totals
from results.wording import and_more, count, one_line

ENDED_BADLY: tuple[State, ...] = ("failed", "dropped", "cancelled")

SWEEPS_NAMED = 5


@dataclass(frozen=True)
class Seen:
    """What one look has found: the submissions asked for, oldest first, and the states of the cells."""

    submissions: Sequence[Submission]
    standing: Standing
    time: datetime  # in UTC


def show_status(
    sweep: str | None,
    out: Path,
    console: Console,
    warn: Callable[[str], None],
    labels: Callable[[str], Mapping[str, str]],
    *,
    every: float | None = None,
    everything: bool = False,
    as_json: bool = False,
) -> int:
    """Print the states of the cells; with `every`, look again after that many seconds until no cell is live.

    `labels`: returns the labels by key of the cells of a sweep that was never submitted.

    Returns 1 if files are damaged, and with `every` also if cells have failed or were dropped or cancelled; else 0.
    Raises ValueError if there is nothing to show.
    """
    by_hand = _by_hand(sweep, out, labels)
    said: set[str] = set()

    def look() -> Seen:
        seen = _look(sweep, out, by_hand)
        if not as_json:
            warn_damaged([problem for problem in seen.standing.problems if problem not in said], warn)
            said.update(seen.standing.problems)
        return seen

    def view(seen: Seen) -> Overview:
        return Overview(_heading(sweep, out, seen), seen.standing, everything)

    if every is not None:
        seen = _watch(look, view, console, every)
    elif as_json:
        seen = look()
        console.out(_json(sweep, seen), highlight=False)
    else:
        seen = look()
        _print(view(seen), console)
    badly = every is not None and any(cell.state in ENDED_BADLY for cell in seen.standing.cells)
    return 1 if badly or seen.standing.problems else 0


def _watch(look: Callable[[], Seen], view: Callable[[Seen], Overview], console: Console, every: float) -> Seen:
    """Keep the view up to date on a terminal; elsewhere print a line whenever the counts change, and the last view."""
    seen = look()
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            while seen.standing.live:
                when = f"as of {seen.time.astimezone():%H:%M:%S}, updated every {every:g} s"
                hint = f"{when}; Ctrl-C stops watching, not the jobs"
                live.update(Group(view(seen), Text(f"\n{hint}", style="dim")), refresh=True)
                time.sleep(every)
                seen = look()
            live.update(view(seen), refresh=True)
        return seen
    before = ""
    while seen.standing.live:
        line = totals(seen.standing, speed=False)
        if seen.standing.slurm is not None:
            line += "; Slurm does not answer"
        if line != before:
            console.print(Text(f"{seen.time.astimezone():%H:%M:%S}  {line}"), soft_wrap=True)
        before = line
        time.sleep(every)
        seen = look()
    _print(view(seen), console)
    return seen


def _look(sweep: str | None, out: Path, by_hand: Mapping[str, str]) -> Seen:
    now = datetime.now(UTC)
    known, problems = read_existing(out)
    chosen = of_sweep(sweep, known)
    cells = labels_of(chosen)
    cells |= {key: label for key, label in by_hand.items() if key not in cells}
    if sweep is None:
        cells |= {key: label for key, label in begun_in(out).items() if key not in cells}
    if not cells:
        raise ValueError("; ".join([nothing_found(sweep, out, known), *problems]))
    # All submissions count: another sweep may have submitted some of the cells as well, and later.
    found = look_at(out, cells, known)
    return Seen(chosen, replace(found, problems=[*problems, *found.problems]), now)


def _by_hand(sweep: str | None, out: Path, labels: Callable[[str], Mapping[str, str]]) -> Mapping[str, str]:
    """Return the labels by key of a sweep that was not submitted; `attention-bench run` may be running it."""
    known, _ = read_existing(out)
    if sweep is None or of_sweep(sweep, known):
        return {}
    try:
        return labels(sweep)
    except ValueError as problem:
        raise ValueError(f"{nothing_found(sweep, out, known)}; {problem}") from problem


def _heading(sweep: str | None, out: Path, seen: Seen) -> str:
    """Say which sweeps were submitted, where, and when, and how many cells are in none of them."""
    submissions = seen.submissions
    if not submissions:
        return f"{sweep or 'cells started'} in {out}, never submitted"
    sweeps = and_more(list(dict.fromkeys(submission.sweep for submission in submissions)), SWEEPS_NAMED)
    where = ", ".join(dict.fromkeys(submission.cluster.name for submission in submissions))
    last = f"{datetime.fromtimestamp(submissions[-1].created):%d %b %H:%M}"
    when = last if len(submissions) == 1 else f"{len(submissions)} times, last {last}"
    others = len({cell.key for cell in seen.standing.cells} - labels_of(submissions).keys())
    beside = f"; and {count(others, 'cell')} begun by other commands" if others else ""
    return f"{sweeps} on {where}, submitted {when}{beside}"


def _print(view: Overview, console: Console) -> None:
    if console.is_terminal:
        console.print(view)
        return
    for line in view.lines():
        console.print(Text(one_line(line)), soft_wrap=True)


def _json(sweep: str | None, seen: Seen) -> str:
    """Return one object: sweep, cells (all fields of CellState), totals (by state), slurm, problems, time (ISO)."""
    found = seen.standing
    values = {
        "sweep": sweep,
        "cells": [asdict(cell) for cell in found.cells],
        "totals": {state: number for state in STATES if (number := found.count(state))},
        "slurm": found.slurm,
        "problems": found.problems,
        "time": seen.time.isoformat(timespec="seconds"),
    }
    return json.dumps(values, indent=1)
