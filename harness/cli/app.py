"""What the commands share: the two streams, the folder of the records, and how help writes an option."""

from __future__ import annotations

from pathlib import Path

import tyro
from rich.console import Console

Positional = tyro.conf.Positional

RUNS = Path("runs")
"""The folder of the records, unless --out names another."""

CERTIFICATES = "certificates"
"""The folder of certificates, in the folder of the records."""

# Rich turns the `:up:` of a text into a picture unless it is told not to; what a user typed is printed as typed.
out_console = Console(highlight=False, emoji=False)
error_console = Console(stderr=True, highlight=False, emoji=False)


def shown(metavar: str, about: str | None = None, *, default: str | None = None) -> object:
    """Make help write an option that is not required as `metavar`, with its default in words.

    `about` is its help (default: its line in the docstring).
    """
    hint = "(optional)" if default is None else f"(default: {default})"
    return tyro.conf.arg(metavar=metavar, help=about, help_behavior_hint=hint)


def say(line: str, style: str | None = None, end: str = "\n") -> None:
    """Print lines to standard output, however long, whatever brackets are in them, and however a name steers it."""
    from results.wording import one_line

    out_console.print("\n".join(map(one_line, line.split("\n"))), markup=False, soft_wrap=True, style=style, end=end)


def note(line: str, style: str | None = None) -> None:
    """Print a line to standard error, beside the result that goes to standard output; what is in it cannot steer it."""
    from results.wording import one_line

    error_console.print(one_line(line), markup=False, soft_wrap=True, style=style)


def warn(line: str, style: str | None = None) -> None:
    """Print a warning or an error to standard error, behind the program's name."""
    note(f"attention-bench: {line}", style)


def must_be_new(out: Path, option: str = "--out") -> None:
    """Raise ValueError for a file, given by an option, that would be overwritten."""
    if out.exists():
        raise ValueError(f"{out} exists: move it away, or give another {option}")


def kept_in(cache: Path | None) -> str | None:
    """Return the folder of --cache as text, None as None; raise ValueError for what is there and is no folder."""
    if cache is not None and cache.exists() and not cache.is_dir():
        raise ValueError(f"--cache {cache}: it is a file; --cache takes a folder, which is made if need be")
    return None if cache is None else str(cache)


def check_at_least(least: int, option: str, number: float | None) -> None:
    """Raise ValueError for an option's number below `least`, or NaN; None is an option that is not given."""
    if number is not None and not number >= least:
        raise ValueError(f"{option} {number}: it takes a number from {least} up")
