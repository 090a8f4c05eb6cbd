"""What the kernel says of this process's time and of those who shared its cores, as counters that only grow.

    before = usage()
    ...                        # what is measured
    spent = usage() - before   # Usage(wall=2.0, cpu=3.9, waited=0.02, ...)

Linux has all of it in /proc and /sys; what a system does not say is None. A counter of None stays None in sums and
differences.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from harness.process import considerate
from harness.process.environment import cores
from harness.process.run_queue import run_queue

TICKS = os.sysconf("SC_CLK_TCK")
"""Per second, in /proc/stat."""


@dataclass(frozen=True)
class Usage:
    """Seconds, but for `switches`: a count."""

    wall: float
    cpu: float  # CPU time of this process, summed over its threads
    cores: float  # time of the cores that this process may use
    waited: float | None = None  # time in which its threads were ready to run but had no core, summed over threads
    others: float | None = None  # time of these cores that processes other than this one and its children used
    stolen: float | None = None  # time of these cores that the hypervisor gave to other machines
    throttled: float | None = None  # time in which the quota of its control group stopped this process
    switches: int = 0  # how often a thread of this process had to leave its core
    slept: float = 0.0  # time in which its threads made way for others (see `harness.process.considerate`)

    def __add__(self, other: Usage) -> Usage:
        return self._combined(other, 1)

    def __sub__(self, other: Usage) -> Usage:
        return self._combined(other, -1)

    def _combined(self, other: Usage, sign: int) -> Usage:
        values: dict[str, Any] = {}
        for field in fields(Usage):
            own, others = getattr(self, field.name), getattr(other, field.name)
            values[field.name] = None if own is None or others is None else own + sign * others
        return Usage(**values)


def usage() -> Usage:
    """Read the counters of this process and its machine."""
    wall, own, number = time.perf_counter(), time.process_time(), cores()
    busy, stolen = _of_cores()
    return Usage(
        wall,
        own,
        wall * number,
        waited=run_queue(),
        others=None if busy is None else busy - own - _children(),
        stolen=stolen,
        throttled=_throttled(),
        switches=resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw,
        slept=considerate.slept(),
    )


def _of_cores() -> tuple[float | None, float | None]:
    """Return the seconds in which the cores of this process worked, for whomever, and in which they were stolen."""
    mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    busy = stolen = 0
    try:
        for line in Path("/proc/stat").read_text().splitlines():
            name, *ticks = line.split()
            if name in mine:
                user, nice, system, _, _, irq, softirq, steal, *_ = map(int, ticks)
                busy += user + nice + system + irq + softirq
                stolen += steal
    except (OSError, ValueError):
        return None, None
    return busy / TICKS, stolen / TICKS


def _children() -> float:
    """Return the CPU seconds of this process's children: those that have ended, and the data workers that live."""
    ended = os.times()
    spent = ended.children_user + ended.children_system
    for child in multiprocessing.active_children():
        with suppress(OSError, IndexError):
            # After the name, which may hold anything, in parentheses: fields 3, 4, ...; 14 and 15 are the times.
            values = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
            spent += (int(values[11]) + int(values[12])) / TICKS
    return spent


@cache
def _quota_files() -> tuple[Path, ...]:
    """Return the files that count how long a quota stopped this process: of its control group and of those above."""
    mount, found = Path("/sys/fs/cgroup"), []
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            root = mount / "cpu" if controllers else mount
            group = PurePath(path.lstrip("/"))
            # In a container, the path may be the host's; its own group is then what is mounted.
            found += [root / each / "cpu.stat" for each in (group, *group.parents)]
    return tuple(path for path in dict.fromkeys(found) if path.is_file())


def _throttled() -> float | None:
    """Return the seconds for which the quotas of this process's control groups have stopped it."""
    seconds = None
    for path in _quota_files():
        with suppress(OSError, ValueError):
            values = dict(line.split() for line in path.read_text().splitlines())
            # Version 2 counts microseconds, version 1 nanoseconds.
            for name, unit in (("throttled_usec", 1e6), ("throttled_time", 1e9)):
                if name in values:
                    seconds = (seconds or 0.0) + int(values[name]) / unit
    return seconds
