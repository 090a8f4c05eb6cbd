"""What several commands print: tables of records, sheets, CSV files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.app import CERTIFICATES, note, out_console, say, warn

if TYPE_CHECKING:
    import pandas as pd

    from results import Record
    from results.tables import Sheet

Expected = Sequence[tuple[str, dict[str, Any]]]
"""Cells that a table shows even if they have no record: key, and the cell as plain JSON."""


def read_records(out: Path) -> tuple[list[Record], list[str]]:
    """Read all valid records of a folder; warn about each damaged file, and return these warnings too."""
    import results

    if not out.is_dir():
        raise ValueError(f"there is no folder {out}; --out names the folder of the records")
    records, problems = results.read_all(out)
    for problem in problems:
        warn(f"damaged, skipped: {problem}")
    return records, problems


def frame_of(records: Sequence[Record], expected: Expected, out: Path) -> pd.DataFrame:
    """Return the frame of the records, with what the certificates in the folder say about their attentions."""
    import results
    from results import tables

    return tables.table(records, expected, results.certificates(out / CERTIFICATES))


def print_table(frame: pd.DataFrame, columns: Sequence[str] = (), markdown: bool = False) -> None:
    """Print a frame as a table: with its usual columns, or those named."""
    from results import tables

    print_sheet(tables.sheet(frame, tables.labelled(frame, columns)), markdown)


def print_sheet(sheet: Sheet, markdown: bool) -> None:
    """Print a sheet, as Markdown if asked to."""
    from results import tables

    if markdown:
        say(tables.to_markdown(sheet), end="")
    else:
        tables.show(sheet, out_console)


def write_csv(path: Path, text: str) -> None:
    """Write a table to the file that --csv names; raise ValueError where that is not possible."""
    import results

    if path.is_dir():
        raise ValueError(f"cannot write {path}: it is a folder")
    results.write_text(path, text)
    note(f"wrote {path}")
