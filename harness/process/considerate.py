"""Threads that wait sleep at once while others want the cores, and spin again when they have gone.

For how long libgomp spins is settled when it is loaded (`harness.process.waiting`), and what a quiet machine needs is
far too long for a busy one. But libgomp itself hardly spins while a process has more of its threads than cores. So
while threads of this process have to wait for cores, there is one more team of threads, which does nothing, and the
others sleep as soon as they wait. Which threads compute what, and so the bits, stays the same. Nothing is done where
torch's threads are not libgomp's, where the kernel does not count waiting, or where the user has set a policy.
"""

from __future__ import annotations

import ctypes
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.process.run_queue import run_queue
from harness.process.waiting import is_ours

LOOK = 0.5
"""Seconds between two looks at how long threads waited."""

BUSY = 0.1
"""Share of the time in which threads were ready to run, but had no core, above which they sleep at once."""

QUIET = 0.05
"""The share below which they spin again."""


class Threads:
    """Of this process: `look` settles whether they sleep at once, by how long they waited since the last look."""

    def __init__(self) -> None:
        self._waited, self._worked = run_queue(), time.process_time()
        self._idle: _IdleTeam | None = None
        self._since = self._slept = 0.0

    @property
    def slept(self) -> float:
        """Seconds for which they slept at once, so far."""
        return self._slept + (time.perf_counter() - self._since if self._idle is not None else 0.0)

    def look(self) -> None:
        before, self._waited = self._waited, run_queue()
        worked, self._worked = time.process_time() - self._worked, time.process_time()
        if before is None or self._waited is None:
            return
        waited = max(0.0, self._waited - before)  # of threads that have ended, nothing is counted any more
        share = waited / (waited + worked) if waited + worked > 0.1 * LOOK else 0.0
        if self._idle is None and share > BUSY:
            self.sleep()
        elif share < QUIET:
            self.spin()

    def sleep(self) -> None:
        """Have them sleep as soon as they wait for each other, from now on."""
        gomp, torch = _libgomp(), sys.modules.get("torch")
        if gomp is not None and torch is not None and torch.get_num_threads() > 1:
            self._idle, self._since = _IdleTeam(gomp, torch.get_num_threads), time.perf_counter()

    def spin(self) -> None:
        """Have them spin again before they sleep."""
        if self._idle is not None:
            self._idle.end()
            self._slept, self._idle = self.slept, None


class _IdleTeam:
    """So many of libgomp's threads that, with those that work, there are more than cores."""

    def __init__(self, gomp: ctypes.CDLL, working: Callable[[], int]) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._hold, args=(gomp, working), daemon=True)
        self._thread.start()

    def _hold(self, gomp: ctypes.CDLL, working: Callable[[], int]) -> None:
        number = max(2, gomp.omp_get_num_procs() - working() + 2)
        # Each of the team is to free nothing, and waits from then on.
        gomp.GOMP_parallel(ctypes.cast(ctypes.CDLL(None).free, ctypes.c_void_p), None, number, 0)
        self._over.wait()

    def end(self) -> None:
        """Let them go: libgomp ends them with the thread that began them."""
        self._over.set()
        self._thread.join()


def _libgomp() -> ctypes.CDLL | None:
    """Return the libgomp that is loaded, torch's own if there are several; None if there is none."""
    with suppress(OSError):
        loaded = re.findall(r"/\S*libgomp\S*", Path("/proc/self/maps").read_text())
        for path in sorted(loaded, key=lambda path: "torch" not in path):
            gomp = ctypes.CDLL(path)
            gomp.GOMP_parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
            gomp.GOMP_parallel.restype = None
            return gomp
    return None


_THREADS = Threads()


def slept() -> float:
    """Return for how many seconds threads of this process have slept at once, so far."""
    return _THREADS.slept


@contextmanager
def considerate() -> Iterator[None]:
    """Look after the threads of this process during the block, in a thread of its own."""
    if not is_ours():
        yield
        return
    over = threading.Event()

    def look() -> None:
        _THREADS.look()
        while not over.wait(LOOK):
            _THREADS.look()
        _THREADS.spin()

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()
