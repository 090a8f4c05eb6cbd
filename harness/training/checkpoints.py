"""Checkpoints of a run: written completely or not at all; a damaged one is skipped with a warning.

    checkpoint-00000120.pt    the complete state of the run after 120 updates; the newest two are kept
    best.pt                   the weights of the best epoch so far

Each is a file of torch.save with tensors and plain values only, so that `torch.load(..., weights_only=True)` reads it.
It is written under another name, flushed to the disk and then renamed; torch.save stores a CRC-32 with every part of
the file, which is checked when the run is resumed.
"""

import os
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import results
from harness.process.errors import first_line

KEPT = 2
BEST = "best.pt"
PARTIAL = ".partial"
_NAME = re.compile(r"checkpoint-(\d{8,})\.pt")

State = dict[str, Any]

UNREADABLE = (
    OSError, EOFError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, AssertionError,
    ArithmeticError, struct.error, zlib.error, zipfile.BadZipFile, pickle.UnpicklingError,
)  # fmt: skip
"""What zipfile and torch.load raise for damaged files, found by damaging many. A MemoryError is no sign of damage."""


def path_of(folder: Path, step: int) -> Path:
    """Return the file of the state after `step` updates."""
    return folder / f"checkpoint-{step:08d}.pt"


def all_of(folder: Path) -> list[Path]:
    """Return the numbered checkpoints of a run folder, the newest first."""
    found = [path for path in folder.glob("checkpoint-*.pt") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.stem.partition("-")[2]), reverse=True)


def save(folder: Path, step: int, state: State) -> None:
    """Write the state after `step` updates, then delete all but the newest two, and what a killed process left.

    Raises ValueError if it cannot be written, say because the disk is full; the older ones are then intact.
    """
    write(path_of(folder, step), state)
    for path in (*all_of(folder)[KEPT:], *folder.glob(f"checkpoint-*.pt{PARTIAL}")):
        path.unlink(missing_ok=True)


def write(path: Path, state: State) -> None:
    """Write one file: a reader sees the old one or the new one, never a part. Raises ValueError if it cannot."""
    temporary = path.with_name(path.name + PARTIAL)
    try:
        with results.replacing(path, temporary) as file:
            torch.save(state, file)
    # torch reports a failed write of its own as a RuntimeError, with the OSError as its context or in its text.
    except (OSError, RuntimeError) as problem:
        chain = _chain(problem)
        if any(isinstance(each, KeyboardInterrupt) for each in chain):  # torch raises an error of its own on top of it
            raise KeyboardInterrupt from problem
        older = [found.name for found in all_of(path.parent) if found != path]
        intact = f"; intact: {', '.join(older)}" if older else ""
        raise ValueError(f"cannot write {path}: {_reason(problem)}{intact}") from problem


def newest(folder: Path, warn: Callable[[str], None]) -> Path | None:
    """Return the newest intact checkpoint of a run folder, or None.

    `warn` gets a line per damaged file that is skipped; the file is kept as `<name>.damaged`.
    """
    for path in all_of(folder):
        problem = _damage(path)
        if problem is None:
            return path
        path.replace(path.with_name(path.name + ".damaged"))
        warn(f"warning: {path} is damaged ({problem}); falling back to the one before it")
    return None


def read(path: Path) -> State:
    """Return a checkpoint of a run. Raises ValueError, in one line, if the file cannot be read as one."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as problem:
        raise ValueError(f"{path} is damaged or not a checkpoint: {first_line(problem)}") from problem
    if not isinstance(state, dict) or "progress" not in state:
        raise ValueError(f"{path} is not a checkpoint of a run: it does not include the progress of the run")
    return state


def verify(path: str | Path) -> None:
    """Raise one of UNREADABLE if a file is truncated or a checksum in it does not match; torch itself checks none."""
    with zipfile.ZipFile(path) as archive:
        part = archive.testzip()
    if part is not None:
        raise zipfile.BadZipFile(f"the checksum of {part} does not match")


def _damage(path: Path) -> str | None:
    """Return what is wrong with a file; None if its checksums match and it can be read."""
    try:
        verify(path)
        read(path)
    except UNREADABLE as problem:
        return first_line(problem)
    return None


def _reason(problem: BaseException) -> str:
    for each in _chain(problem):
        if isinstance(each, OSError) and each.errno is not None:
            return os.strerror(each.errno)
    return first_line(problem)


def _chain(problem: BaseException) -> list[BaseException]:
    """Return an error, and those that led to it."""
    before = problem.__cause__ or problem.__context__
    return [problem, *(_chain(before) if before is not None else [])]
