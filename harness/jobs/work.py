"""`CellsJob`: the cells that one allocation runs. It can be ended at any time, and restarted as often as needed.

Its whole state is on disk: a recorded cell is not run again, and a training continues from its checkpoint. A cell that
has failed since the submission is not tried again: in a job of several processes, one that fails ends all of them, and
Slurm restarts the job.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

import results
from attentions import load_file
from harness.cells import Cell
from harness.process.attempts import attempts
from harness.process.ranks import process_group
from harness.process.stopping import Stopped, TakenOver
from harness.runner.checks import check_needs
from harness.runner.records import ended_at, failed_record, recorded
from harness.runner.run import JobFailed, PeerLost
from harness.runner.run_all import run_all
from harness.training import checkpoints
from results.wording import and_more
from slurm import this_job


@dataclass(frozen=True)
class CellsJob:
    """Run cells in sequence, in every process of a job, and write their records to the folder `out`.

    `pickled`: the cells, which can be read once the user's own `files` (sweeps, attentions, tasks) are loaded.
    `failed`: the time of failure, by key, of cells that had failed before the submission; these are run again.
    """

    pickled: bytes
    files: tuple[Path, ...]
    out: Path
    failed: Mapping[str, str]

    def __call__(self) -> None:
        """Run what is left to do. Exits with 128 + signal when asked to stop, and with 1 if a rank has failed."""
        self.cells()  # in every process, as what follows is sent from rank 0 to the others
        elsewhere: set[str] = set()
        with process_group() as group:
            console = Console(width=160, soft_wrap=True, highlight=False, emoji=False, quiet=not group.first)
            try:
                while todo := [cell for cell in group.agreed(self._ready) if cell.key not in elsewhere]:
                    try:
                        run_all(todo, self.out, console)
                    except TakenOver as taken:
                        console.print(str(taken), markup=False)
                        job, key = group.agreed(partial(_successor, taken))
                        # A newer copy of this job runs all the rest; any other attempt only that cell.
                        if job == this_job().id:
                            return
                        elsewhere.add(key)
            except (Stopped, JobFailed, PeerLost) as ended:
                console.print(str(ended), markup=False)
                sys.exit(ended.status)

    def cells(self) -> list[Cell]:
        """Return all cells of the job. Raises ValueError for a user's file that cannot be loaded."""
        for file in self.files:
            load_file(file)
        return pickle.loads(self.pickled)

    def left(self) -> str | None:
        """Return what is left to do, as a text that changes whenever progress is made; None if nothing is."""
        left = self._left()
        if not left:
            return None
        saved = checkpoints.all_of(self.out / left[0].key)
        first = f"{left[0].label} ({saved[0].stem})" if saved else left[0].label
        return and_more([first, *(cell.label for cell in left[1:])], 1)

    def gave_up(self, reason: str) -> None:
        """Record the cell that was running as failed."""
        cell = max(self._left(), key=self._last_started)
        results.write(self.out, failed_record(cell, reason))

    def _ready(self) -> list[Cell]:
        """Return what is left and can run; record as failed the cells whose training has failed."""
        ready = []
        for cell in self._left():
            try:
                check_needs([cell], self.out)
                ready.append(cell)
            except ValueError as problem:
                results.write(self.out, failed_record(cell, str(problem)))
        return ready

    def _left(self) -> list[Cell]:
        return [cell for cell in self.cells() if recorded(cell, self.out) is None and not self._failed_since(cell)]

    def _failed_since(self, cell: Cell) -> bool:
        ended = ended_at(cell.key, self.out)
        return ended is not None and ended != self.failed.get(cell.key)

    def _last_started(self, cell: Cell) -> float:
        return max((attempt.started for attempt in attempts(self.out / cell.key)[0]), default=0.0)


def _successor(taken: TakenOver) -> tuple[str | None, str]:
    """Return the job that has taken over, and the key of the cell."""
    return taken.job, taken.key
