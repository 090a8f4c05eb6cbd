"""The states of cells, for people: a heading, totals, a bar, and tables; plain lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from harness.jobs.states import STATES, Standing, State
from harness.status.rows import DIGITS, FACTS, Section, sections, short_labels, totals

WIDE = 110
"""Width of a terminal, in columns, from which the facts on a cell are beside its name rather than below it."""

STYLES: dict[State, str] = {
    "done": "green",
    "running": "cyan",
    "pending": "bright_black",
    "unsubmitted": "bright_black",
    "unknown": "yellow",
    "cancelled": "yellow",
    "dropped": "yellow",
    "failed": "red",
    "oom": "red",
}

JOB = [head for head, _, _ in FACTS].index("job")
"""Column of the job; the columns before it are numbers."""


@dataclass(frozen=True)
class Overview:
    """What one look has found, as a renderable for terminals of any width and as plain `lines`.

    `everything`: list every cell.
    """

    heading: str
    standing: Standing
    everything: bool = False

    def lines(self) -> Iterator[str]:
        """Yield plain lines of any length, one per row, which begin with the state."""
        yield self.heading
        yield totals(self.standing)
        yield from self._unreached()
        for section in sections(self.standing.cells, self.everything):
            for row in section.rows:
                name = f"{row.key}  {row.name}" if row.key else row.name
                yield f"{section.title:13}  {name}{f': {row.sentence}' if row.sentence else ''}"
            if section.hidden:
                yield f"{section.title:13}  {section.rest}"
        yield from self._hint()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.heading, style="bold")
        yield Text(totals(self.standing))
        yield _bar(self.standing, min(options.max_width, WIDE), "-" if options.ascii_only else "━")
        for line in self._unreached():
            yield Text(line, style="yellow")
        names = short_labels({cell.key: cell.label for cell in self.standing.cells})
        cells = [replace(cell, label=names[cell.key]) for cell in self.standing.cells]
        for section in sections(cells, self.everything):
            yield Text()
            wide = options.max_width >= WIDE and all(row.key for row in section.rows)
            yield _beside(section) if wide else _below(section)
            if section.hidden:
                yield Text(f"{'':{DIGITS}}  {section.rest}", style="dim")
        for line in self._hint():
            yield Text(f"\n{line}", style="dim")

    def _unreached(self) -> Iterator[str]:
        if self.standing.slurm is not None:
            why = self.standing.slurm.removeprefix("Slurm does not answer: ")
            yield f"Slurm does not answer ({why}): states are from the run folders alone"

    def _hint(self) -> Iterator[str]:
        if self.standing.count("failed"):
            yield (
                "`attention-bench logs CELL` shows how a cell failed; `attention-bench retry --failed`, or the command "
                "that ran it, runs it again"
            )


def _beside(section: Section) -> Table:
    """Return a table with the facts on each cell beside its name."""
    table = _table(section, ratio=1)
    columns = [*zip(*(row.facts for row in section.rows), strict=True)]
    # What a running cell reports has no column of its own: most are trainings, and report numbers.
    kept = [column for column, facts in enumerate(columns) if any(facts) and (column or len(columns) == 1)]
    for column in kept:
        if len(columns) == 1:
            table.add_column("", ratio=1)
        else:
            table.add_column(FACTS[column][0], no_wrap=True, justify="right" if column < JOB else "left")
    for row in section.rows:
        name = Text(row.name)
        if len(columns) > 1 and row.facts[0]:
            name.append(f"\n{row.facts[0]}", style=STYLES[section.state])
        table.add_row(Text(row.key), name, *(Text(row.facts[column]) for column in kept))
    return table


def _below(section: Section) -> Table:
    """Return a table with the facts on each cell below its name."""
    table = _table(section, ratio=None)
    for row in section.rows:
        name = Text(row.name)
        if row.sentence:
            name.append("\n" if row.key else ": ").append(row.sentence, style=STYLES[section.state])
        table.add_row(Text(row.key), name)
    return table


def _table(section: Section, ratio: int | None) -> Table:
    table = Table(box=None, expand=ratio is not None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("cell", no_wrap=True, width=DIGITS)
    table.add_column(Text(section.title, style=f"bold {STYLES[section.state]}"), ratio=ratio)
    return table


def _bar(standing: Standing, width: int, mark: str) -> Text:
    """Return a bar with a stretch for each state, and the number of cells done."""
    cells = len(standing.cells)
    ending = f" {standing.count('done'):,}/{cells:,} done"
    length, before, bar = width - len(ending), 0, Text()
    for state in STATES:
        upto = before + standing.count(state)
        stretch = round(length * upto / cells) - round(length * before / cells)
        bar.append(mark * stretch, style=STYLES[state])
        before = upto
    return bar.append(ending)
