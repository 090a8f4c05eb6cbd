"""A request to stop, noticed between two steps: what SIGTERM, SIGUSR1, SIGUSR2 and Ctrl-C mean to a training run.

    with StopRequest() as stop:
        ...
        if group.any(stop.asked):
            save()
            raise stop.stopped("after 120 updates", group)

A handler only sets a flag. A second Ctrl-C interrupts at once, as usual. The start of a newer attempt at the cell also
counts as such a request.
"""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

from harness.process.attempts import Attempt, NoAttempt, current_attempt
from harness.process.errors import first_line
from harness.process.ranks import Ranks

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
"""What schedulers send before they take a machine back (Slurm: TERM, or the signal of --signal), and Ctrl-C."""

SAME_TIME = 0.5
"""Seconds within which a signal reaches all processes of a job."""


class Stopped(RuntimeError):
    """A run ended on request, between two steps; its state is saved, and the same command continues it."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text, number)
        self.status = 128 + number
        """The exit status of a process that a signal ended, as in shells."""

    def __str__(self) -> str:
        return str(self.args[0])


class TakenOver(Stopped):
    """A run ended because a newer attempt at its cell has taken over; nothing more is written."""

    def __init__(self, attempt: Attempt | NoAttempt) -> None:
        successor = attempt.successor
        who = "a newer attempt" if successor is None else f"a newer attempt ({successor.where})"
        super().__init__(f"{who} at this cell has taken over; this one has stopped", signal.SIGTERM)
        self.key = attempt.key
        self.job = None if successor is None else successor.job


class StopRequest:
    """Listens for signals while its block runs, in the main thread only: Python calls handlers nowhere else."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def asked(self) -> bool:
        return self.signal is not None or current_attempt().lost

    def stopped(self, where: str, group: Ranks) -> Stopped:
        """Return what to raise once the state is saved: the same in all ranks, even if only one was asked to stop."""
        if group.any(current_attempt().lost):
            return TakenOver(current_attempt())
        number = self.signal or signal.SIGTERM
        return Stopped(f"stopped on {number.name} {where}; the same command continues with what is left to do", number)

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
            # Workers and peers get the signal too, and their loss raises an error before the flag is read.
            where = f"in the middle of a step ({first_line(failure)})"
            text = f"stopped on {self.signal.name}, {where}; the same command continues"
            raise Stopped(text, self.signal) from failure

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
