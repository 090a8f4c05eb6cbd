"""What a plan of jobs takes as a whole: hours of devices, the time until the last one ends, disk.

print(total([[estimate] for estimate in estimates], at_once=8))

about 310 GPU-hours (44 cells from recorded speeds, 2 from GMACs, rough), 41 h wall time with 8 jobs at a time,
96 GB of disk
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.estimates.estimate import Basis, Estimate

BASES: dict[Basis, str] = {
    "recorded": "from recorded speeds",
    "probe": "from a probe",
    "GMACs": "from GMACs, rough",
    "size": "from the model's size",
    "unknown": "unknown and not counted",
}


@dataclass(frozen=True)
class Summary:
    """Of a plan: hours by device ("cuda", "cpu"), seconds of waiting, bytes on disk, and how many cells rest on what.

    As text it is a line for people.
    """

    device_hours: dict[str, float]
    wall_seconds: float
    at_once: int
    disk_bytes: int
    bases: dict[Basis, int]

    def __str__(self) -> str:
        if not self.bases:
            return "nothing is left to do"
        names = {"cuda": "GPU-hours", "cpu": "CPU-job-hours"}
        hours = " and ".join(
            f"{'under 0.1' if number < 0.1 else f'about {_rounded(number)}'} {names[device]}"
            for device, number in self.device_hours.items()
        )
        (first, count), *others = self.bases.items()
        cells = [f"{count} {'cell' if count == 1 else 'cells'} {BASES[first]}"]
        cells += [f"{count} {BASES[basis]}" for basis, count in others]
        return (
            f"{hours or 'an unknown number of hours'} ({', '.join(cells)}), {_duration(self.wall_seconds)} wall "
            f"time with {self.at_once} {'job' if self.at_once == 1 else 'jobs'} at a time, {_size(self.disk_bytes)} "
            "of disk"
        )


def total(jobs: Sequence[Sequence[Estimate]], at_once: int) -> Summary:
    """Of jobs, each with its cells one after another, started in order as places for `at_once` of them become free.

    A job that waits for another one is taken to find it done. Crops that several cells keep count once.
    """
    assert at_once >= 1, at_once
    cells = [cell for job in jobs for cell in job]
    hours: dict[str, float] = {}
    for cell in cells:
        if cell.seconds is not None:
            hours[cell.device] = hours.get(cell.device, 0.0) + cell.processes * cell.seconds / 3600
    ends = [0.0] * at_once
    for job in jobs:
        heapq.heapreplace(ends, ends[0] + sum(cell.seconds or 0.0 for cell in job))
    crops = {cell.crops.what: cell.crops.bytes for cell in cells if cell.crops is not None}
    counts = Counter(cell.basis for cell in cells)
    return Summary(
        device_hours=hours,
        wall_seconds=max(ends),
        at_once=at_once,
        disk_bytes=sum(cell.disk_bytes for cell in cells) + sum(crops.values()),
        bases={basis: counts[basis] for basis in BASES if counts[basis]},
    )


def _rounded(number: float) -> str:
    """To two digits: 0.5, 1.0, 310, 43,000."""
    return f"{float(f'{number:.2g}'):,.{0 if number >= 9.95 else 1}f}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{_rounded(seconds / 3600)} h"


def _size(number: float) -> str:
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if number < 999.5:
            return f"{number:.2g} {unit}" if number < 99.5 else f"{number:.0f} {unit}"
    return f"{number / 1000:,.1f} TB"
