"""What several commands share that show records: which records they are about, and where a table goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.app import CERTIFICATES, RUNS, note, out_console, warn
from harness.cli.outputs import check_files, write_files

if TYPE_CHECKING:
    import pandas as pd

    from harness.cli.options import OutputOptions
    from results import Certificate, Record
    from results.tables import Sheet

Expected = Sequence[tuple[str, dict[str, Any]]]
"""Cells that a table shows even if they have no record: key, and the cell as plain JSON."""


@dataclass
class Recorded:
    """The records that a command is about, and lines about them: `problems` of damaged files, `conflicts` of cells that
    were measured more than once."""

    folders: list[Path]
    records: list[Record]
    expected: Expected = ()
    problems: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)

    @cached_property
    def certificates(self) -> list[Certificate]:
        """The certificates in the folders."""
        import results

        return [found for folder in self.folders for found in results.certificates(folder / CERTIFICATES)]

    def frame(self, where: Sequence[str] = (), sort: Sequence[str] = ()) -> pd.DataFrame:
        """Return the table of the records, with what the certificates in their folders say about their attentions.

        Raises ValueError for an unknown column and for conditions that no row fulfils.
        """
        from results import tables

        frame = tables.table(self.records, self.expected, self.certificates)
        return tables.in_order(tables.where(frame, where), sort)

    def of_rows(self, where: Sequence[str]) -> list[Record]:
        """Return the records of the rows that fulfil the conditions; raise ValueError as `frame` does."""
        if not where:
            return self.records
        frame = self.frame(where)
        kept: set[tuple[Any, Any]] = set()
        for key in (
            str(name) for name in frame.columns if str(name).startswith("record.") and str(name).endswith(".key")
        ):
            kept |= set(zip(frame[key], frame[f"{key.removesuffix('key')}created"], strict=True))
        return [record for record in self.records if (record.key, record.created) in kept]

    @property
    def status(self) -> int:
        """The exit status of a command that shows them: 1 if a file is damaged."""
        return 1 if self.problems else 0


def recorded(sources: Sequence[str], out: Sequence[Path]) -> Recorded:
    """Read the records that sources mean, sweeps or folders; warn about each damaged file.

    `out` are further folders, by default RUNS where no source is a folder. With sweeps, only their cells are meant.

    Raises:
        ValueError: for a folder that is not there, an unknown sweep, and where there is nothing to show.
    """
    import results
    from harness.cli.catalogue import sweeps

    known = sweeps()
    folders = [Path(source) for source in sources if source not in known and Path(source).is_dir()]
    names = [source for source in sources if source in known or not Path(source).is_dir()]
    for name in names:
        if name in known or ".py" in name or ":" in name:
            continue
        if Path(name).exists():
            raise ValueError(f"{name} is a file; allowed are folders of records, and sweeps")
        if "/" in name:
            raise ValueError(f"there is no folder {name}")
        from attentions import unknown

        raise ValueError(f"there is no folder {name}; {unknown('sweep', name, [*known, 'my_sweeps.py:name'])}")
    given = [*folders, *(out or ([] if folders else [RUNS]))]
    # A folder may be given by several paths, and is read once.
    folders = list({folder.resolve(): folder for folder in reversed(given)}.values())[::-1]
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}; --out names the folder of the records")
    expected: list[tuple[str, dict[str, Any]]] = []
    if names:
        from harness.sweeps.expand import expand

        expected = [(cell.key, cell.to_json()) for name in names for cell in expand(name)]
    found = results.read_folders(folders)
    for problem in found.problems:
        warn(f"damaged, skipped: {problem}")
    wanted = {key for key, _ in expected}
    records = [record for record in found.records if not names or record.key in wanted]
    if not records and not expected:
        raise ValueError(f"there are no {'whole ' * bool(found.problems)}records in {', '.join(map(str, folders))}")
    return Recorded(folders, records, expected, found.problems, found.conflicts)


def print_sheet(sheet: Sheet, wide: bool = False) -> None:
    """Print a table, and beside it what may be done about its rows."""
    from results import tables

    tables.show(sheet, out_console, wide)
    for line in sheet.advice:
        note(line)


def output_format(options: OutputOptions, folders: Sequence[Path]) -> str:
    """Return the format of a table; raise ValueError as `emit` does, before there is one."""
    from results import tables

    check_files([path for path in (options.output, options.csv) if path is not None], folders)
    return tables.format_of(options.output, options.format)


def emit(
    sheet: Callable[[], Sheet],
    frame: pd.DataFrame,
    options: OutputOptions,
    folders: Sequence[Path],
    complete: pd.DataFrame | None = None,
) -> None:
    """Print a table, or write it as the options say: the sheet for people, made if need be, or the frame for programs.

    `complete` is what --csv and timm's format take, by default the frame. In the `folders` no file is replaced.

    Raises:
        ValueError: for a format that does not fit the ending of the file, and for a file that cannot be written.
    """
    from results import tables

    complete = frame if complete is None else complete
    form = output_format(options, folders)
    files: list[tuple[Path, str | bytes]] = []
    if form == "text" and options.output is None:
        print_sheet(sheet(), options.wide)
    else:
        content = tables.rendered(form, complete if form == "timm" else frame, sheet)
        if options.output is not None:
            files.append((options.output, content))
        elif isinstance(content, bytes):
            raise ValueError(f"--format {form} is no text: -o FILE names a file for it")
        else:
            tables.write_plain(content, out_console)
    if options.csv is not None:
        files.append((options.csv, tables.to_csv(complete)))
    write_files(files, folders)
