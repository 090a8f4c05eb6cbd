"""A table ready for people: cells of text, shown on a terminal, as plain lines or as Markdown."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from results.garbage import no_collection
from results.wording import one_line

_GAP = "  "
_SHORT = 24
"""Characters that a cell of `asides` may have before it becomes a note."""

_LEAST = 12
"""Characters that are left of a cell when it is shortened."""


@dataclass(frozen=True)
class Sheet:
    """`rows` of text under `headers`; `right` has the positions of number columns; `notes` follow below.

    Where there is not enough width, long cells of the columns `asides` become notes, and then the columns `spare` are
    left out, the first one first; both are given by header. `best` and `second` are the cells, as (row, column), with
    the best and second best numbers that may be compared; `caption` says what the numbers are, and `spread` what ± is.
    `advice` is for the terminal alone.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: frozenset[int] = frozenset()
    notes: Sequence[str] = ()
    spare: Sequence[str] = ()
    asides: frozenset[str] = frozenset()
    best: frozenset[tuple[int, int]] = frozenset()
    second: frozenset[tuple[int, int]] = frozenset()
    caption: str = ""
    spread: str = ""
    advice: Sequence[str] = ()

    def __post_init__(self) -> None:
        # Names and errors are texts of anyone: a line break would tear a row apart.
        object.__setattr__(self, "headers", list(map(one_line, self.headers)))
        rows = [list(row) if "".join(row).isprintable() else list(map(one_line, row)) for row in self.rows]
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "notes", list(map(one_line, self.notes)))
        assert all(len(row) == len(self.headers) for row in self.rows)

    @property
    def title(self) -> str:
        """The caption of a form that has one."""
        return " ".join(filter(None, [self.caption, self._legend]))

    @property
    def below(self) -> list[str]:
        """The notes of a form without a caption, which say what ± is."""
        return [*filter(None, [self._legend]), *self.notes]

    @property
    def _legend(self) -> str:
        return f"±: {self.spread}." if self.spread and any(" ± " in cell for row in self.rows for cell in row) else ""

    def with_notes(self, lines: Iterable[str]) -> "Sheet":
        """Return the sheet with further notes."""
        return replace(self, notes=[*self.notes, *lines])

    def without(self, headers: Iterable[str]) -> "Sheet":
        """Return the sheet without columns."""
        left_out = set(headers)
        kept = [position for position, header in enumerate(self.headers) if header not in left_out]
        new = {position: number for number, position in enumerate(kept)}
        return replace(
            self,
            headers=[self.headers[position] for position in kept],
            rows=[[row[position] for position in kept] for row in self.rows],
            right=frozenset(new[position] for position in self.right if position in new),
            best=frozenset((row, new[position]) for row, position in self.best if position in new),
            second=frozenset((row, new[position]) for row, position in self.second if position in new),
        )

    def settled(self) -> "Sheet":
        """Return the sheet as for a paper: without the column of statuses where each is "done"."""
        position = list(self.headers).index("status") if "status" in self.headers else None
        all_done = position is not None and all(row[position] == "done" for row in self.rows)
        return self.without(["status"]) if all_done else self


@no_collection()
def to_plain(sheet: Sheet) -> str:
    """Return lines with columns aligned by spaces, never wrapped or cut; the notes follow after an empty line."""
    columns = zip(sheet.headers, *sheet.rows, strict=True)
    aligned = [_aligned(column, position in sheet.right) for position, column in enumerate(columns)]
    return _paragraphs([_GAP.join(row).rstrip() for row in zip(*aligned, strict=True)], sheet.below)


@no_collection()
def to_markdown(sheet: Sheet) -> str:
    """Return a Markdown table with numbers right-aligned; the notes follow as paragraphs."""

    def line(row: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"

    rule = ["---:" if position in sheet.right else "---" for position in range(len(sheet.headers))]
    lines = [line(sheet.headers), line(rule), *map(line, sheet.rows)]
    return _paragraphs(lines, [block for note in sheet.below for block in (note, "")][:-1])


def show(sheet: Sheet, console: Console, wide: bool = False) -> None:
    """Print a table: as wide as a terminal at most, framed if there is room; plain lines with `wide` and elsewhere."""
    if not console.is_terminal or wide:
        write_plain(to_plain(sheet), console)
        return
    table = Table()
    for position, header in enumerate(sheet.headers):
        table.add_column(Text(header), justify="right" if position in sheet.right else "left", no_wrap=True)
    for row in sheet.rows:
        table.add_row(*map(Text, row))
    if sum(_widths(sheet)) + 3 * len(sheet.headers) + 1 <= console.width:
        console.print(table)
        for note in sheet.below:
            console.print(Text(note))
    else:
        console.print(Text(to_plain(fitted(sheet, console.width))), soft_wrap=True, end="")


def write_plain(text: str, console: Console) -> None:
    """Write a text to the stream of a console as it is: rich takes seconds to pass on a hundred thousand lines."""
    if console.quiet:
        return
    try:
        console.file.write(text)
        console.file.flush()
    except BrokenPipeError:  # its reader has gone
        console.on_broken_pipe()


def fitted(sheet: Sheet, width: int) -> Sheet:
    """Return the sheet with rows of at most this many characters: with less in them, and notes for the rest."""
    notes = len(sheet.notes)
    if _width(sheet) > width:
        sheet = _with_asides(sheet)
    left_out: list[str] = []
    for header in (*sheet.spare, *reversed(sheet.headers[1:])):
        if _width(_shortened(sheet, width)) <= width:
            break
        if header in sheet.headers:
            sheet = sheet.without([header])
            left_out.append(header)
    if left_out:
        cells = {cell for row in sheet.rows for cell in row}
        asides = [note for note in sheet.notes[notes:] if note.partition(" ")[0] in cells]
        sheet = replace(sheet, notes=[*sheet.notes[:notes], *asides])
        line = f"Left out, as there is no room: {', '.join(left_out)}. With --wide, or into a file, all are written."
        sheet = sheet.with_notes([line])
    return _shortened(sheet, width)


def _with_asides(sheet: Sheet) -> Sheet:
    """Return the sheet with long cells of its `asides` as numbered notes."""
    numbers: dict[str, int] = {}
    positions = [position for position, header in enumerate(sheet.headers) if header in sheet.asides]
    rows = [list(row) for row in sheet.rows]
    for row in rows:
        for position in positions:
            if len(row[position]) > _SHORT:
                row[position] = f"({numbers.setdefault(row[position], len(numbers) + 1)})"
    return replace(sheet, rows=rows, notes=[*sheet.notes, *(f"({number}) {text}" for text, number in numbers.items())])


def _shortened(sheet: Sheet, width: int) -> Sheet:
    """Return the sheet with its widest texts cut, each to `_LEAST` characters at least, as far as need be."""
    widths = _widths(sheet)
    limits = list(widths)
    texts = [position for position in range(len(widths)) if position not in sheet.right]
    while sum(limits) + len(_GAP) * (len(limits) - 1) > width:
        widest = max(texts, key=limits.__getitem__, default=None)
        if widest is None or limits[widest] <= _LEAST:
            break
        limits[widest] -= 1
    if limits == widths:
        return sheet

    cut = {
        position: _cut([row[position] for row in sheet.rows], limit)
        for position, limit in enumerate(limits)
        if limit < widths[position]
    }
    return replace(
        sheet,
        headers=[_cut([header], limit)[header] for header, limit in zip(sheet.headers, limits, strict=True)],
        rows=[[cut.get(position, {}).get(cell, cell) for position, cell in enumerate(row)] for row in sheet.rows],
    )


def _cut(cells: Sequence[str], limit: int) -> dict[str, str]:
    """Return {cell: at most `limit` characters of it}: its beginning, and its end too where that tells cells apart."""
    found: dict[str, str] = {}
    for tail in (0, (limit - 1) // 2):
        head = limit - 1 - tail
        found = {c: c if _size(c) <= limit else f"{set_cell_size(c, head)}…{_last(c, tail)}" for c in cells}
        if len(set(found.values())) == len(found):
            break
    return found


def _last(text: str, size: int) -> str:
    """Return the end of a text that takes at most so much room."""
    start = len(text)
    while start and _size(text[start - 1 :]) <= size:
        start -= 1
    return text[start:]


def _widths(sheet: Sheet) -> list[int]:
    return [max(_sizes(column)) for column in zip(sheet.headers, *sheet.rows, strict=True)]


def _sizes(texts: Sequence[str]) -> list[int]:
    """Return the columns of a terminal that each text takes."""
    return list(map(len if "".join(texts).isascii() else _size, texts))


def _aligned(texts: Sequence[str], right: bool) -> list[str]:
    """Return the texts with spaces, all of one width."""
    sizes = _sizes(texts)
    width = max(sizes)
    gaps = [" " * (width - size) for size in sizes]
    return [gap + text if right else text + gap for gap, text in zip(gaps, texts, strict=True)]


def _size(text: str) -> int:
    """Return the columns of a terminal that a text takes: two for each Chinese character."""
    # Before the combining marks, as in "±", all characters are of one column.
    return len(text) if text.isascii() or max(text) < "\u0300" else cell_len(text)


def _width(sheet: Sheet) -> int:
    return sum(_widths(sheet)) + len(_GAP) * (len(sheet.headers) - 1)


def _paragraphs(lines: Sequence[str], notes: Sequence[str]) -> str:
    return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"
