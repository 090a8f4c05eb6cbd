"""`CellsJob`: the cells that one allocation runs. It can be ended at any time, and begun again as often as needed.

All it knows is on the disk: what is recorded is not run again, a training goes on from its checkpoint. A cell that has
failed since the submission is not tried again: in a job of several processes one that fails ends them all, and Slurm
begins the job anew.
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
from harness.runner.records import ended_at, failure, recorded
from harness.runner.run import JobFailed, PeerLost
from harness.runner.run_all import check_needs, run_all
from harness.training import checkpoints
from slurm import this_job


@dataclass(frozen=True)
class CellsJob:
    """Runs cells one after the other, in every process of a job, and writes their records to the folder `out`.

    `pickled`: the cells, which can be read once the user's own `files` (sweeps, attentions, tasks) are loaded.
    `failed`: of the cells that had failed before the submission, when; these are run again.
    """

    pickled: bytes
    files: tuple[Path, ...]
    out: Path
    failed: Mapping[str, str]

    def __call__(self) -> None:
        """Runs what is left to do. Ends the process with 128 + signal on request, and with 1 where a rank failed."""
        self.cells()  # in every process: what follows is sent from the first to the others
        elsewhere: set[str] = set()
        with process_group() as group:
            console = Console(width=160, soft_wrap=True, highlight=False, quiet=not group.first)
            try:
                while todo := [cell for cell in group.agreed(self._ready) if cell.key not in elsewhere]:
                    try:
                        run_all(todo, self.out, console)
                    except TakenOver as taken:
                        console.print(str(taken), markup=False)
                        job, key = group.agreed(partial(_successor, taken))
                        # A newer copy of this job does the rest as well; somebody else that cell only.
                        if job == this_job().id:
                            return
                        elsewhere.add(key)
            except (Stopped, JobFailed, PeerLost) as ended:
                console.print(str(ended), markup=False)
                sys.exit(ended.status)

    def cells(self) -> list[Cell]:
        """All cells of the job. Raises ValueError for a file of the user's that cannot be loaded."""
        for file in self.files:
            load_file(file)
        return pickle.loads(self.pickled)

    def left(self) -> str | None:
        """What is left to do, in words that change with any progress; None where nothing is."""
        left = self._left()
        if not left:
            return None
        saved = checkpoints.all_of(self.out / left[0].key)
        begun = f" ({saved[0].stem})" if saved else ""
        return f"{left[0].label}{begun}{f' and {len(left) - 1} more' if len(left) > 1 else ''}"

    def gave_up(self, reason: str) -> None:
        """Records the cell that was being run as failed."""
        cell = max(self._left(), key=self._last_started)
        results.write(self.out, failure(cell, reason))

    def _ready(self) -> list[Cell]:
        """What is left to do and can be done; a cell whose training has failed fails, too, and is recorded so."""
        ready = []
        for cell in self._left():
            try:
                check_needs([cell], self.out)
                ready.append(cell)
            except ValueError as problem:
                results.write(self.out, failure(cell, str(problem)))
        return ready

    def _left(self) -> list[Cell]:
        return [cell for cell in self.cells() if recorded(cell, self.out) is None and not self._failed_since(cell)]

    def _failed_since(self, cell: Cell) -> bool:
        ended = ended_at(cell.key, self.out)
        return ended is not None and ended != self.failed.get(cell.key)

    def _last_started(self, cell: Cell) -> float:
        return max((attempt.started for attempt in attempts(self.out / cell.key)[0]), default=0.0)


def _successor(taken: TakenOver) -> tuple[str | None, str]:
    """The job that has taken over, and which cell."""
    return taken.job, taken.key
