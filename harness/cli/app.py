"""What the commands share: the two streams, and how help writes their options."""

from __future__ import annotations

from pathlib import Path

import tyro
from rich.console import Console

Positional = tyro.conf.Positional

CERTIFICATES = "certificates"
"""The folder of certificates, in the folder of the records."""

out_console = Console(highlight=False)
error_console = Console(stderr=True, highlight=False)


def shown(metavar: str) -> object:
    """How help writes an option that is optional."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="(optional)")


def say(line: str, style: str | None = None, end: str = "\n") -> None:
    """Print a line to standard output, however long, and whatever brackets are in it."""
    out_console.print(line, markup=False, soft_wrap=True, style=style, end=end)


def note(line: str, style: str | None = None) -> None:
    """Print a line to standard error, beside the result that goes to standard output."""
    error_console.print(line, markup=False, soft_wrap=True, style=style)


def warn(line: str, style: str | None = None) -> None:
    """Print what is amiss to standard error, behind the program's name."""
    note(f"attention-bench: {line}", style)


def must_be_new(out: Path) -> None:
    """Raises ValueError for a file that would be overwritten."""
    if out.exists():
        raise ValueError(f"{out} exists: move it away, or give another --out")


def text(path: Path | None) -> str | None:
    return None if path is None else str(path)
