"""A request to stop, noticed between two steps: what SIGTERM, SIGUSR1, SIGUSR2 and Ctrl-C mean to a training run.

    with StopRequest() as stop:
        ...
        if stop.asked:
            save()
        raise stop.stopped("after 120 updates")

A handler only sets a flag. A second Ctrl-C interrupts at once, as ever.
"""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
"""What schedulers send before they take a machine back (Slurm: TERM, or what --signal says), and Ctrl-C."""


class Stopped(RuntimeError):
    """A run ended on request, between two steps; its state is saved, and the same command goes on with it."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text, number)
        self.status = 128 + number
        """The exit status of a process that a signal ended, as shells have it."""

    def __str__(self) -> str:
        return str(self.args[0])


class StopRequest:
    """Listens while its block runs; outside the main thread it hears nothing: Python calls handlers there only."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def asked(self) -> bool:
        return self.signal is not None

    def stopped(self, where: str) -> Stopped:
        """What to raise once the state is saved. Another process of the job may have been the one that was asked."""
        number = self.signal or signal.SIGTERM
        return Stopped(f"stopped on {number.name} {where}; the same command goes on with what is left to do", number)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._heard) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.asked:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
