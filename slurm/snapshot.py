"""A copy of the code, from which jobs run, so that editing the code does not change what waits in the queue."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

IGNORED = shutil.ignore_patterns("__pycache__")


def copy_code(root: Path, packages: Iterable[str], folder: Path, files: Mapping[str, bytes]) -> Path:
    """Copy these packages of `root` to `folder`/<hash of the code>, unless that exists, and return that path.

    `files`: contents of further files of the copy, by name.

    Raises ValueError if the copy cannot be written.
    """
    found = hashlib.sha256()
    for path in _files(root, packages):
        found.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    for name, content in sorted(files.items()):
        found.update(f"{name}\0".encode() + content)
    target = folder / found.hexdigest()[:12]
    if target.is_dir():
        return target
    partial = folder / f".{target.name}.{uuid.uuid4().hex[:8]}"
    try:
        for package in packages:
            shutil.copytree(root / package, partial / package, ignore=IGNORED)
        for name, content in files.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(content)
        try:
            os.rename(partial, target)
        except OSError:  # another process was quicker with the same copy
            if not target.is_dir():
                raise
    except shutil.Error as problem:
        # It lists each file that could not be copied, with both of its paths.
        raise ValueError(f"cannot copy the code to {target}: {problem.args[0][0][2]}") from problem
    except OSError as problem:
        raise ValueError(f"cannot copy the code to {target}: {problem}") from problem
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _files(root: Path, packages: Iterable[str]) -> Iterator[Path]:
    for package in packages:
        for path in sorted((root / package).rglob("*")):
            # Python writes a temporary file there and renames it: a listed file may be gone when it is read.
            if path.is_file() and "__pycache__" not in path.relative_to(root).parts:
                yield path
