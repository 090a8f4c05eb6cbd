"""A table ready for people: cells of text, shown on a terminal, as plain lines or as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

_GAP = "  "


@dataclass(frozen=True)
class Sheet:
    """`rows` of text under `headers`; `right` has the positions of number columns; `notes` follow below."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: frozenset[int] = frozenset()
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.headers) for row in self.rows)


def to_plain(sheet: Sheet) -> str:
    """Return lines with columns aligned by spaces, never wrapped or cut; the notes follow after an empty line."""
    widths = [max(map(len, column)) for column in zip(sheet.headers, *sheet.rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        aligned = (
            cell.rjust(width) if position in sheet.right else cell.ljust(width)
            for position, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return _GAP.join(aligned).rstrip()

    return _paragraphs([line(sheet.headers), *map(line, sheet.rows)], sheet.notes)


def to_markdown(sheet: Sheet) -> str:
    """Return a Markdown table with numbers right-aligned; the notes follow as paragraphs."""

    def line(row: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"

    rule = ["---:" if position in sheet.right else "---" for position in range(len(sheet.headers))]
    lines = [line(sheet.headers), line(rule), *map(line, sheet.rows)]
    return _paragraphs(lines, [block for note in sheet.notes for block in (note, "")][:-1])


def show(sheet: Sheet, console: Console) -> None:
    """Print a framed table on a terminal that is wide enough, otherwise the plain lines."""
    table = Table()
    for position, header in enumerate(sheet.headers):
        table.add_column(Text(header), justify="right" if position in sheet.right else "left", no_wrap=True)
    for row in sheet.rows:
        table.add_row(*map(Text, row))
    unbounded = console.options.update(max_width=10_000)
    if console.is_terminal and console.measure(table, options=unbounded).minimum <= console.width:
        console.print(table)
        for note in sheet.notes:
            console.print(Text(note))
    else:
        console.print(Text(to_plain(sheet)), soft_wrap=True, end="")


def _paragraphs(lines: Sequence[str], notes: Sequence[str]) -> str:
    return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"
