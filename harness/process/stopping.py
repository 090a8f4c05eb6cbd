"""A request to stop, noticed between two steps: what SIGTERM, SIGUSR1, SIGUSR2 and Ctrl-C mean to a training run.

    with StopRequest() as stop:
        ...
        if group.any(stop.asked):
            save()
            raise stop.stopped("after 120 updates", group)

A handler only sets a flag. A second Ctrl-C interrupts at once, as ever. That a newer attempt at the cell has begun is
such a request, too.
"""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

from harness.process.attempts import Attempt, NoAttempt, current
from harness.process.errors import first_line
from harness.process.ranks import Ranks

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
"""What schedulers send before they take a machine back (Slurm: TERM, or what --signal says), and Ctrl-C."""


SAME_TIME = 0.5
"""Seconds within which a signal comes to all processes of a job."""


class Stopped(RuntimeError):
    """A run ended on request, between two steps; its state is saved, and the same command goes on with it."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text, number)
        self.status = 128 + number
        """The exit status of a process that a signal ended, as shells have it."""

    def __str__(self) -> str:
        return str(self.args[0])


class TakenOver(Stopped):
    """A run ended since a newer attempt at its cell goes on with it; nothing more is written."""

    def __init__(self, attempt: Attempt | NoAttempt) -> None:
        successor = attempt.successor
        who = "a newer attempt" if successor is None else f"a newer attempt ({successor.where})"
        super().__init__(f"{who} at this cell has taken over; this one has stopped", signal.SIGTERM)
        self.key = attempt.key
        self.job = None if successor is None else successor.job


class StopRequest:
    """Listens while its block runs; outside the main thread it hears nothing: Python calls handlers there only."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def asked(self) -> bool:
        return self.signal is not None or current().lost

    def stopped(self, where: str, group: Ranks) -> Stopped:
        """What to raise once the state is saved, the same in all processes of the job; one of them was asked."""
        if group.any(current().lost):
            return TakenOver(current())
        number = self.signal or signal.SIGTERM
        return Stopped(f"stopped on {number.name} {where}; the same command goes on with what is left to do", number)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._heard) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failure = error if isinstance(error, Exception) and not isinstance(error, Stopped) else None
        if failure is not None and self._before and self.signal is None:
            time.sleep(SAME_TIME)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if failure is not None and self.signal is not None:
            # Who is signalled with this process, its workers or its peers, is missed before the flag is looked at.
            where = f"in the midst of a step ({first_line(failure)})"
            text = f"stopped on {self.signal.name}, {where}; the same command goes on"
            raise Stopped(text, self.signal) from failure

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
