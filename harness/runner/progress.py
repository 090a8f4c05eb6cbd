"""Progress of a list of cells: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from results.wording import one_line


class CellProgress:
    """Shows which cell runs, and its reports; a context manager.

    `start` names the next cell, `report` shows a line of its progress, `finish` says how it ended.
    """

    def __init__(self, total: int, console: Console) -> None:
        self.total, self.console = total, console
        self.done = 0
        self.label = ""
        self.bar: Progress | None = None
        if console.is_terminal:
            self.bar = Progress(
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                # On a narrow terminal, cut a long name and not the bar.
                TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
                console=console,
                expand=True,
            )
            self.row = self.bar.add_task("", total=total)

    def __enter__(self) -> Self:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def start(self, label: str) -> None:
        self.label = label
        if self.bar is None:
            self._print(f"[{self.done + 1}/{self.total}] {label}")
        else:
            self.bar.update(self.row, description=label, refresh=True)

    def report(self, text: str) -> None:
        if self.bar is None:
            self._print(f"    {text}")
        else:
            self.bar.update(self.row, description=f"{text} | {self.label}")

    def finish(self, outcome: str) -> None:
        self.done += 1
        if self.bar is None:
            self._print(f"    {outcome}")
        else:
            self._print(f"{self.label}: {outcome}")
            self.bar.update(self.row, completed=self.done, refresh=True)

    def _print(self, text: str) -> None:
        self.console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)
