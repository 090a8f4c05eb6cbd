"""The states of cells in words: totals, and rows for cells worth a look. The layout is in overview.py."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from harness.jobs.states import STATES, CellState, Standing, State
from harness.process.attempts import STALE
from results.wording import count, duration

ROWS = 40
"""About how many rows are shown unless all are asked for."""

DIGITS = 8
"""How many digits of a cell's key are shown: enough to tell the cells of a folder apart."""

TITLES: dict[State, str] = {"oom": "out of memory", "unsubmitted": "not started"}
"""States that are shown under another name."""

BLOCKS: tuple[tuple[State, ...], ...] = (
    ("running",),
    ("failed", "oom", "dropped", "cancelled"),
    ("unknown", "pending", "unsubmitted"),
)
"""The states in the order shown; no block can push the others off the screen."""

GROUPED = BLOCKS[-1]
"""States whose cells share a row if they have the same sentence."""

FACTS: tuple[tuple[str, str, Callable[[CellState], str]], ...] = (
    ("", "{}", lambda cell: _says(cell)),
    ("epoch", "epoch {}", lambda cell: "" if cell.epoch is None else f"{cell.epoch}/{cell.epochs}"),
    ("step", "step {}", lambda cell: "" if cell.step is None else f"{cell.step:,}/{cell.steps:,}"),
    ("images/s", "{} images/s", lambda cell: _number(cell.images_per_s)),
    ("to go", "{} to go", lambda cell: "" if cell.left_s is None else duration(cell.left_s)),
    ("seen", "seen {}", lambda cell: "" if cell.beat_age_s is None else f"{duration(cell.beat_age_s)} ago"),
    ("job", "job {}", lambda cell: cell.job or ""),
    ("interrupted", "interrupted {}", lambda cell: _times(cell.interrupted)),
)
"""Facts of a running cell: the column's header, the form in a sentence, and the value."""

_OPTIONS = r"(\w+)\(([^()]*)\)"


class Row(NamedTuple):
    """One cell, or several that share a row. `facts`: as in FACTS, or a single sentence."""

    key: str
    name: str
    facts: tuple[str, ...]
    cells: int = 1

    @property
    def sentence(self) -> str:
        if len(self.facts) == 1:
            return self.facts[0]
        return ", ".join(form.format(fact) for (_, form, _), fact in zip(FACTS, self.facts, strict=True) if fact)


class Section(NamedTuple):
    """The rows of one state, and the number of cells not shown."""

    state: State
    rows: Sequence[Row]
    hidden: int

    @property
    def title(self) -> str:
        return TITLES.get(self.state, self.state)

    @property
    def rest(self) -> str:
        return f"and {self.hidden:,} more: --all shows them"


def sections(cells: Sequence[CellState], everything: bool) -> Iterator[Section]:
    """Yield what is worth a look in about ROWS rows; with `everything`, every cell."""
    by_state = {state: [cell for cell in cells if cell.state == state] for state in STATES}
    if everything:
        order = [state for block in BLOCKS for state in block] + ["done"]
        yield from (Section(state, rows, 0) for state in order if (rows := [*_rows(by_state[state])]))
        return
    blocks = [{state: [*_grouped(state, by_state[state])] for state in block} for block in BLOCKS]
    sizes = [sum(map(len, block.values())) for block in blocks]
    for block, size in zip(blocks, sizes, strict=True):
        room = max(ROWS // len(BLOCKS), ROWS - (sum(sizes) - size))
        for state, rows in block.items():
            if rows:
                shown, hidden = rows[:room], rows[room:]
                yield Section(state, shown, sum(row.cells for row in hidden))
                room -= len(shown)


def totals(standing: Standing, speed: bool = True) -> str:
    """Return one line: the cells per state and, with `speed`, the speed and time left of running trainings."""
    counts = [f"{number:,} {TITLES.get(state, state)}" for state in STATES if (number := standing.count(state))]
    line = f"{count(len(standing.cells), 'cell')}: {', '.join(counts)}"
    running = [cell for cell in standing.cells if cell.state == "running" and speed]
    if rates := [cell.images_per_s for cell in running if cell.images_per_s]:
        line += f"; running at {_number(sum(rates))} images/s{' together' * (len(rates) > 1)}"
    if left := [cell.left_s for cell in running if cell.left_s is not None]:
        line += f", {'at most ' * (len(left) > 1)}{duration(max(left))} to go"
    return line


def short_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels without the options of those attentions that have the same options in all labels."""
    options: dict[str, set[str]] = {}
    for label in labels.values():
        for name, values in re.findall(_OPTIONS, label):
            options.setdefault(name, set()).add(values)

    def short(found: re.Match[str]) -> str:
        return found[1] if len(options[found[1]]) == 1 else found[0]

    return {key: re.sub(_OPTIONS, short, label) for key, label in labels.items()}


def _grouped(state: State, cells: Sequence[CellState]) -> Iterator[Row]:
    if state not in GROUPED:
        yield from _rows(cells)
        return
    groups: dict[str, list[CellState]] = {}
    for cell in cells:
        groups.setdefault(cell.detail, []).append(cell)
    for detail, members in sorted(groups.items(), key=lambda group: -len(group[1])):
        if len(members) == 1:
            yield from _rows(members)
        else:
            again = _times(sum(cell.interrupted for cell in members))
            yield Row("", count(len(members), "cell"), (_with(detail, "", again),), len(members))


def _rows(cells: Iterable[CellState]) -> Iterator[Row]:
    for cell in cells:
        if cell.state == "running":
            facts = tuple(fact(cell) for _, _, fact in FACTS)
        else:
            job = cell.job if cell.state not in ("done", "unsubmitted") else None
            facts = (_with(cell.detail, job or "", _times(cell.interrupted)),)
        yield Row(cell.key[:DIGITS], cell.label, facts)


def _with(detail: str, job: str, interrupted: str) -> str:
    """Return a sentence and what else is known, in one line."""
    more = ", ".join(filter(None, [job and f"job {job}", interrupted and f"interrupted {interrupted}"]))
    return " ".join(f"{detail} {f'({more})' if more else ''}".split())


def _says(cell: CellState) -> str:
    """Return what the cell reports; of a training with a recent heartbeat, the other facts say it."""
    heard = cell.beat_age_s is not None and cell.beat_age_s < STALE
    return "" if heard and cell.epoch is not None else " ".join(cell.detail.split())


def _number(value: float | None) -> str:
    return "" if not value else f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _times(number: int) -> str:
    return ("", "once", "twice")[number] if number < 3 else f"{number} times"
