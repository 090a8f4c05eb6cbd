"""Who owns a run folder: every start of a cell is an attempt with a file in the folder, and the newest attempt owns it.

    <key>/attempts/0003.json      the third start: process, start time, progress, last heartbeat, how it ended

Slurm may requeue a job while its first copy still runs on a node that Slurm has lost sight of, and a user may start a
cell twice. Then the newer attempt continues, and the older one notices, writes nothing more, and stops. Each file is
written only by its own attempt, so that no two processes can overwrite each other's claims; creating the file claims
its number. All of this is kept in files of the run folder, as what a launcher or a signal handler knows may be lost.
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
"""Seconds between two heartbeats."""

STALE = 90.0
"""Seconds without a heartbeat after which an attempt counts as dead: file systems may show files late."""

FOLDER = "attempts"

OUTCOMES = ("done", "oom", "failed")
"""How the last line of an attempt begins if its cell is recorded."""


@dataclass(frozen=True)
class Sidecar:
    """The contents of an attempt's file. Times are seconds since 1970 by the clock of its host."""

    number: int
    host: str
    pid: int
    job: str | None  # id given by Slurm or another launcher: "123", or "123_4" in an array
    restarts: int  # how often Slurm had requeued the job before
    started: float
    beat: float  # the last heartbeat
    label: str  # label of the cell, for people
    text: str = ""  # the last line that the cell reported
    epoch: int | None = None
    epochs: int | None = None
    step: int | None = None
    steps: int | None = None
    images_per_s: float | None = None
    left_s: float | None = None  # seconds of work left, by the speed so far
    ended: str | None = None  # how, in one line; None: it is running, or died without writing why

    @property
    def where(self) -> str:
        """Job, process and host, for people."""
        job = "" if self.job is None else f"job {self.job}, "
        return f"{job}process {self.pid} on {self.host}"

    @property
    def interrupted(self) -> bool:
        """Whether it ended, or died, before its cell was finished. A failure finishes the cell."""
        return self.ended is None or not self.ended.startswith(OUTCOMES)

    def alive(self, now: float) -> bool:
        """Whether it has not ended and has a recent heartbeat."""
        return self.ended is None and now - self.beat < STALE


class Attempt:
    """A start of a cell by this process; as a context manager it claims the run folder `folder` and keeps a heartbeat.

    `lost` becomes true once a newer attempt owns the folder: from then on nothing may be written to it.

    Raises ValueError if the folder cannot be written.
    """

    def __init__(self, folder: Path, label: str = "") -> None:
        self.folder, self.key, self.label = folder / FOLDER, folder.name, label
        self.lost = False
        self.successor: Sidecar | None = None
        self._done = threading.Event()
        self._lock = threading.Lock()  # the heartbeat has a thread of its own
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
        """Keep a line on the progress of the cell; the next heartbeat writes it to the file."""
        self._change(text=text)

    def progress(
        self, *, epoch: int, epochs: int, step: int, steps: int, images_per_s: float, left_s: float | None
    ) -> None:
        """Keep the progress of a training; the next heartbeat writes it to the file."""
        self._change(epoch=epoch, epochs=epochs, step=step, steps=steps, images_per_s=images_per_s, left_s=left_s)

    def end(self, how: str) -> None:
        """Write how it ended, in one line."""
        self._change(write=True, ended=how)

    def check(self) -> bool:
        """Read from disk whether this attempt still owns the folder; to be called before writing to it."""
        newest = max(_numbers(self.folder), default=0)
        if newest > self.sidecar.number and not self.lost:
            self.successor = _read_or_none(_path(self.folder, newest))
            self.lost = True
        return not self.lost

    def _claim(self) -> int:
        """Return the number of this attempt: one more than any before, and claimed by this process alone."""
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
                # A full disk must not end a run between two checkpoints; status then shows the heartbeat growing old.
                return


class NoAttempt:
    """In place of an Attempt where there is none: a task that runs by itself, or a rank other than 0."""

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
    """Say how an attempt without a record ended."""
    if isinstance(error, SystemExit) and isinstance(error.code, int) and error.code > 128:
        return f"stopped on {signal.Signals(error.code - 128).name}"
    lines = str(error or "").strip().splitlines()
    return lines[0] if lines else "interrupted"


_current: list[Attempt] = []


def current_attempt() -> Attempt | NoAttempt:
    """Return the attempt that this process is running."""
    return _current[-1] if _current else NoAttempt()


def attempts(folder: Path) -> tuple[list[Sidecar], list[str]]:
    """Return the attempts at the cell of a run folder, in order, and a line for each damaged file."""
    found, problems = [], []
    for number in sorted(_numbers(folder / FOLDER)):
        path = _path(folder / FOLDER, number)
        try:
            sidecar = read_attempt(path)
        except ValueError as problem:
            problems.append(str(problem))
            continue
        if sidecar is not None:
            found.append(sidecar)
    return found, problems


def read_attempt(path: Path) -> Sidecar | None:
    """Read an attempt's file; None if it has just been created. Raises ValueError, in one line, if it is damaged."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise ValueError(f"{path}: cannot be read: {problem}") from problem
    if not text:
        return None
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise ValueError(f"{path}: not a complete JSON file: {problem}") from problem
    if not isinstance(values, dict) or set(values) != {field.name for field in fields(Sidecar)}:
        raise ValueError(f"{path}: not the file of an attempt: its fields differ")
    if not all(isinstance(values[name], int | float) for name in ("number", "restarts", "started", "beat")):
        raise ValueError(f"{path}: not the file of an attempt: number, restarts, started and beat must be numbers")
    return Sidecar(**values)


def _read_or_none(path: Path) -> Sidecar | None:
    try:
        return read_attempt(path)
    except ValueError:
        return None


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:04d}.json"


def _numbers(folder: Path) -> list[int]:
    try:
        return [int(path.stem) for path in folder.iterdir() if path.suffix == ".json" and path.stem.isdecimal()]
    except (FileNotFoundError, NotADirectoryError):
        return []
