"""`attention-bench logs`: print the log of a cell's job, and follow it. Imports no torch.

    submissions/<id>/logs/<job>_<rank>_log.out

is submitit's name for a log. A job that is requeued appends to the same file.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from harness.jobs.states import CellState, begun_in, look_at
from harness.jobs.submissions import Submission, labels_of, read_all, read_existing, warn_damaged
from harness.process.attempts import Sidecar, attempts
from harness.status.rows import TITLES, short_labels
from results.wording import and_more, count
from slurm import Resources
from slurm.submission import LOGS

POLL = 1.0
"""Seconds between two looks at a log."""

ASK = 30.0
"""Seconds between two questions to Slurm, which is asked only if the run folder shows no recent heartbeat."""

LISTED = 5


class Target(NamedTuple):
    """The cell that is meant, and its output folder."""

    key: str
    label: str
    out: Path

    def submissions(self) -> list[Submission]:
        """Return the submissions of the cell, oldest first."""
        return [submission for submission in read_all(self.out)[0] if self.key in submission.submitted]

    def attempts(self) -> list[Sidecar]:
        return attempts(self.out / self.key)[0]

    def state(self) -> CellState:
        (found,) = look_at(self.out, {self.key: self.label}, self.submissions()).cells
        return found

    def log(self, rank: int) -> Path | None:
        """Return the log of its newest job, which may exist before the job starts the cell."""
        tried = [attempt.job for attempt in reversed(self.attempts()) if attempt.job is not None]
        jobs: list[tuple[Path, str | None]] = []
        for submission in reversed(self.submissions()):
            known = [array.job_id(index) for array, index, keys in submission.jobs() if self.key in keys]
            jobs += [(submission.folder, job) for job in [*known, *tried]]
        # Logs of `run --isolate` are in the output folder itself.
        jobs += [(self.out, job) for job in tried]
        paths = (folder / LOGS / f"{job}_{rank}_log.out" for folder, job in jobs)
        return next((path for path in paths if path.exists()), None)


def show_logs(cell: str, out: Path, console: Console, warn: Callable[[str], None], *, follow: bool, rank: int) -> int:
    """Print the log of the last job of a cell, given by the first digits of its key or by a part of its label.

    With `follow`, also print what is added until the cell has ended, and how it ended; then return 1 unless it is done.
    If there is no log (yet), print a line on why and return 1. Raises ValueError unless exactly one cell is meant and
    its job has such a rank.
    """
    target = _meant(cell, out, warn)
    _check_rank(target, rank)
    path = target.log(rank)
    if path is None:
        state, made = target.state(), target.attempts()
        by_hand = made and made[-1].job is None and state.state != "pending"
        if by_hand:
            _print(console, f"run by hand: its output went to the terminal of {made[-1].where}")
        if by_hand or not follow or not state.live:
            _print(console, f"{target.label}: {_words(state)}")
            return 1
    if follow:
        return _follow(target, console, rank)
    assert path is not None
    _write(console, _Tail(path).more())
    return 0


def _follow(target: Target, console: Console, rank: int) -> int:
    tail: _Tail | None = None
    next_question, told = 0.0, ""
    while True:
        state = None
        made = target.attempts()
        if made and made[-1].alive(time.time()):
            next_question, told = 0.0, ""
        elif time.monotonic() >= next_question:
            state, next_question = target.state(), time.monotonic() + ASK
        # Read after the state, so that all of the log is printed before the line on how the cell ended.
        path = target.log(rank)
        if path is not None and (tail is None or tail.path != path):
            tail = _Tail(path)
        if tail is not None:
            _write(console, tail.more())
        if state is not None and state.state != told:
            _print(console, f"{target.label}: {_words(state)}")
            told = state.state
        if state is not None and not state.live:
            return 0 if state.state == "done" else 1
        time.sleep(POLL)


def _meant(cell: str, out: Path, warn: Callable[[str], None]) -> Target:
    known, problems = read_existing(out)
    warn_damaged(problems, warn)
    labels = begun_in(out) | labels_of(known)
    names = short_labels(labels)
    exact = [key for key, label in labels.items() if cell in (key, label, names[key])]
    parts = [key for key, label in labels.items() if key.startswith(cell) or cell in label or cell in names[key]]
    found = exact or parts
    if not found:
        raise ValueError(
            f"no cell submitted or started in {out} has a key that begins with {cell!r} or a name that contains it; "
            "`attention-bench status --all` lists them"
        )
    if len(found) > 1:
        listed = and_more([f"{key} {labels[key]}" for key in found], LISTED, "; ")
        raise ValueError(f"{cell!r} matches {len(found)} cells: give the first digits of a key: {listed}")
    return Target(found[0], labels[found[0]], out)


def _check_rank(target: Target, rank: int) -> None:
    held = [array for submission in target.submissions() for array in submission.arrays if _holds(array.jobs, target)]
    processes = Resources(**held[-1].resources).processes if held else 1
    if not 0 <= rank < processes:
        allowed = f"0 to {processes - 1}" if processes > 1 else "0"
        raise ValueError(
            f"--rank {rank}: allowed: {allowed}, as the job of this cell has {count(processes, 'process')}"
        )


def _holds(jobs: list[list[str]], target: Target) -> bool:
    return any(target.key in keys for keys in jobs)


def _words(state: CellState) -> str:
    title = TITLES.get(state.state, state.state)
    return f"{title}: {state.detail}" if state.detail else title


class _Tail:
    """A file that is being written; if it gets shorter, it is read from its beginning again."""

    def __init__(self, path: Path) -> None:
        self.path, self.position = path, 0
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def more(self) -> Iterator[str]:
        """Yield in parts what was added since the last call."""
        with self.path.open("rb") as stream:
            if self.path.stat().st_size < self.position:
                self.position = 0
                self.decoder.reset()
            stream.seek(self.position)
            while part := stream.read(1 << 20):
                self.position += len(part)
                yield self.decoder.decode(part)


def _write(console: Console, parts: Iterator[str]) -> None:
    """Write the text unchanged: its progress bars and colours were meant for a terminal."""
    for part in parts:
        console.file.write(part)
    console.file.flush()


def _print(console: Console, line: str) -> None:
    console.print(Text(line), soft_wrap=True)
