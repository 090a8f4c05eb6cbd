"""Whose turn it is: every start of a cell is an attempt with a file in the run folder, and the newest one owns it.

    <key>/attempts/0003.json      the third start: which process, since when, how far, when it last lived, how it ended

Slurm may queue a job again while its first copy still runs on a node that it has lost sight of; a user may start a cell
twice. Then the newer attempt goes on, and the older one notices, writes nothing more, and stops. Each file is written
by its own attempt alone, so that no two processes can overwrite each other's claims; its number is taken by creating
it. All of this is files in the run folder: what a launcher or a signal handler knows may be lost.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import results
from slurm import this_job

BEAT = 10.0
"""Seconds between two signs of life."""

STALE = 90.0
"""Seconds without a sign of life after which an attempt is taken for dead: file systems may show files late."""

FOLDER = "attempts"

OUTCOMES = ("done", "oom", "failed")
"""How the line begins that an attempt leaves whose cell is recorded."""


@dataclass(frozen=True)
class Sidecar:
    """What the file of an attempt says. Times are seconds since 1970 by the clock of its host."""

    number: int
    host: str
    pid: int
    job: str | None  # of Slurm or another launcher: "123", or "123_4" of an array
    restarts: int  # how often Slurm had queued the job again before
    started: float
    beat: float  # the last sign of life
    label: str  # of the cell, for people
    text: str = ""  # what the cell said last
    epoch: int | None = None
    epochs: int | None = None
    step: int | None = None
    steps: int | None = None
    images_per_s: float | None = None
    left_s: float | None = None  # of work, by the speed so far
    ended: str | None = None  # how, in a line; None: it runs, or died without a word

    @property
    def where(self) -> str:
        """For people."""
        job = "" if self.job is None else f"job {self.job}, "
        return f"{job}process {self.pid} on {self.host}"

    @property
    def interrupted(self) -> bool:
        """Whether it ended before its cell did: without a word, or stopped. A failure is an end of the cell."""
        return self.ended is None or not self.ended.startswith(OUTCOMES)

    def alive(self, now: float) -> bool:
        """Whether it has not ended and gave a sign of life lately."""
        return self.ended is None and now - self.beat < STALE


class Attempt:
    """A start of a cell by this process; as a context manager it claims the run folder `folder` and lives.

    `lost` turns true once a newer attempt owns the folder: nothing may be written to it any more.

    Raises ValueError if the folder cannot be written.
    """

    def __init__(self, folder: Path, label: str = "") -> None:
        self.folder, self.key, self.label = folder / FOLDER, folder.name, label
        self.lost = False
        self.successor: Sidecar | None = None
        self._done = threading.Event()
        self._lock = threading.Lock()  # the heart beats in a thread of its own
        self._thread = threading.Thread(target=self._live, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        job, now = this_job(), time.time()
        self.sidecar = Sidecar(
            number=self._claim(),
            host=job.node or socket.gethostname(),
            pid=os.getpid(),
            job=job.id,
            restarts=job.restarts,
            started=now,
            beat=now,
            label=self.label,
        )
        self._change(write=True)
        self._thread.start()
        _current.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.remove(self)
        self._done.set()
        self._thread.join()
        if self.sidecar.ended is None:
            self.end(_how(error))

    def note(self, text: str) -> None:
        """What the cell says of its progress; it reaches the file with the next sign of life."""
        self._change(text=text)

    def progress(
        self, *, epoch: int, epochs: int, step: int, steps: int, images_per_s: float, left_s: float | None
    ) -> None:
        """How far a training is."""
        self._change(epoch=epoch, epochs=epochs, step=step, steps=steps, images_per_s=images_per_s, left_s=left_s)

    def end(self, how: str) -> None:
        """Says how it ended, in a line."""
        self._change(write=True, ended=how)

    def check(self) -> bool:
        """Whether the folder is still this attempt's, by a look at the disk; to be asked before writing to it."""
        newest = max(_numbers(self.folder), default=0)
        if newest > self.sidecar.number and not self.lost:
            self.successor = _read_or_none(_path(self.folder, newest))
            self.lost = True
        return not self.lost

    def _claim(self) -> int:
        """The number of this attempt: one more than any before, this process's alone."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            while True:
                number = max(_numbers(self.folder), default=0) + 1
                with suppress(FileExistsError):  # another process was quicker
                    os.close(os.open(_path(self.folder, number), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
                    return number
        except OSError as problem:
            raise ValueError(f"cannot write to the run folder {self.folder.parent}: {problem.strerror}") from problem

    def _live(self) -> None:
        while not self._done.wait(BEAT):
            self.check()
            self._change(write=True, beat=time.time())

    def _change(self, write: bool = False, **values: Any) -> None:
        with self._lock:
            self.sidecar = replace(self.sidecar, **values)
            if not write:
                return
            try:
                results.write_text(_path(self.folder, self.sidecar.number), json.dumps(asdict(self.sidecar)) + "\n")
            except ValueError:
                # A full disk must not end a run between two checkpoints; its signs of life then grow old, visibly.
                return


class NoAttempt:
    """Where nobody keeps count: a task that is run by itself, or a process that is not the first of its job."""

    key = ""
    lost = False
    successor: Sidecar | None = None

    def note(self, text: str) -> None:
        pass

    def progress(
        self, *, epoch: int, epochs: int, step: int, steps: int, images_per_s: float, left_s: float | None
    ) -> None:
        pass

    def check(self) -> bool:
        return True

    def end(self, how: str) -> None:
        pass


def _how(error: BaseException | None) -> str:
    """In words, how an attempt ended that left no record."""
    if isinstance(error, SystemExit) and isinstance(error.code, int) and error.code > 128:
        return f"stopped on {signal.Signals(error.code - 128).name}"
    lines = str(error or "").strip().splitlines()
    return lines[0] if lines else "interrupted"


_current: list[Attempt] = []


def current() -> Attempt | NoAttempt:
    """The attempt that this process is at."""
    return _current[-1] if _current else NoAttempt()


def attempts(folder: Path) -> tuple[list[Sidecar], list[str]]:
    """The attempts at the cell of a run folder, in order, and a line for each file that is damaged."""
    found, problems = [], []
    for number in sorted(_numbers(folder / FOLDER)):
        path = _path(folder / FOLDER, number)
        try:
            sidecar = read(path)
        except ValueError as problem:
            problems.append(str(problem))
            continue
        if sidecar is not None:
            found.append(sidecar)
    return found, problems


def read(path: Path) -> Sidecar | None:
    """An attempt's file; None for one that has just been created. Raises ValueError, in one line, if it is damaged."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise ValueError(f"{path}: cannot be read: {problem}") from problem
    if not text:
        return None
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise ValueError(f"{path}: not a whole JSON file: {problem}") from problem
    if not isinstance(values, dict) or set(values) != {field.name for field in fields(Sidecar)}:
        raise ValueError(f"{path}: not the file of an attempt: it has other fields")
    if not all(isinstance(values[name], int | float) for name in ("number", "restarts", "started", "beat")):
        raise ValueError(f"{path}: not the file of an attempt: number, restarts, started and beat are numbers")
    return Sidecar(**values)


def _read_or_none(path: Path) -> Sidecar | None:
    try:
        return read(path)
    except ValueError:
        return None


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:04d}.json"


def _numbers(folder: Path) -> list[int]:
    try:
        return [int(path.stem) for path in folder.iterdir() if path.suffix == ".json" and path.stem.isdecimal()]
    except (FileNotFoundError, NotADirectoryError):
        return []
