"""Running cells in order: recorded cells are not measured again, and what a cell needs comes before it."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

import results
from attentions import source_digest
from harness.cells import Cell, distinct, in_order
from harness.process.ranks import ranks
from harness.runner.checks import check_needs, check_runnable, check_writable
from harness.runner.progress import CellProgress
from harness.runner.records import is_disturbed, outcome, recorded, set_aside
from harness.runner.run import run, run_apart
from results import SOURCE, Record
from results.wording import one_line


def run_all(
    cells: Sequence[Cell], out: Path, console: Console, isolate: bool = False, retry_disturbed: bool = False
) -> list[Record]:
    """Return the records of all cells, in order; with `isolate`, measure each cell in a process of its own.

    With `retry_disturbed`, cells whose recorded measurement was disturbed are measured again. A cell that needs another
    is measured after it; if that one failed, it fails too, and the others still run.

    Raises:
        ValueError: before anything is measured, for a missing device, missing data or missing needed weights, or a
            folder that cannot be written.
    """
    group = ranks()
    records, todo = group.agreed(lambda: _records_and_todo(cells, out, group.world, retry_disturbed))
    if records:
        found = [cell for cell in cells if cell.key in records]
        console.print(f"{len(found)} of {len(cells)} cells are recorded in {out} already", highlight=False)
        for line in _of_other_code([(cell, records[cell.key]) for cell in found]):
            console.print(one_line(line), markup=False, highlight=False, soft_wrap=True)
    if todo:
        with set_aside(todo if group.first else (), out), CellProgress(len(todo), console) as progress:
            for cell in todo:
                progress.start(cell.label)
                progress.finish(outcome(run_apart(cell, out) if isolate else run(cell, out, progress.report)))
    # Every process returns what the first one wrote, not a measurement of its own.
    records |= {cell.key: results.read(out / f"{cell.key}.json") for cell in todo}
    return [records[cell.key] for cell in cells]


def _records_and_todo(
    cells: Sequence[Cell], out: Path, world: int, retry_disturbed: bool
) -> tuple[dict[str, Record], list[Cell]]:
    """Return the final records by key, and the other cells in the order in which they are measured.

    With `retry_disturbed`, a record that is disturbed is not final.

    Raises ValueError for what would keep these from being measured.
    """
    found = ((cell, recorded(cell, out)) for cell in distinct(cells))
    records = {
        cell.key: record
        for cell, record in found
        if record is not None and not (retry_disturbed and is_disturbed(record, cell))
    }
    todo = in_order(cell for cell in cells if cell.key not in records)
    check_needs(todo, out)
    check_runnable(todo, world)
    check_writable(out)
    return records, todo


def _of_other_code(found: Sequence[tuple[Cell, Record]]) -> list[str]:
    """Return a line for each attention whose code has changed since its records; a key does not depend on code."""
    changed: Counter[str] = Counter()
    for cell, record in found:
        name = cell.backbone.attention.name
        if record.environment.get(SOURCE, source_digest(name)) != source_digest(name):
            changed[name] += 1
    return [
        f"{number} of them with another version of {name} than there is now: with another --out they are measured again"
        for name, number in changed.items()
    ]
