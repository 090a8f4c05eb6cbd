"""What a plan of jobs takes in total: device hours, the time until the last job ends, disk.

print(total([[estimate] for estimate in estimates], at_once=8))

about 310 GPU-hours (44 cells from recorded speeds, 2 from GMACs, rough), 1 d 17 h wall time with 8 jobs at a time,
96 GB of disk
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.filesize import decimal

from harness.estimates.estimate import Basis, Estimate
from results.wording import count, duration

BASES: dict[Basis, str] = {
    "recorded": "from recorded speeds",
    "probe": "from a probe",
    "GMACs": "from GMACs, rough",
    "size": "from the model's size",
    "unknown": "unknown and not counted",
}


@dataclass(frozen=True)
class Summary:
    """The total of a plan: hours by device ("cuda", "cpu"), seconds to wait, bytes on disk, and cells by basis.

    As text it is one line for people.
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
            f"{'under 0.1' if amount < 0.1 else f'about {_rounded(amount)}'} {names[device]}"
            for device, amount in self.device_hours.items()
        )
        (first, number), *others = self.bases.items()
        cells = [f"{count(number, 'cell')} {BASES[first]}"]
        cells += [f"{number:,} {BASES[basis]}" for basis, number in others]
        return (
            f"{hours or 'an unknown number of hours'} ({', '.join(cells)}), {_duration(self.wall_seconds)} wall "
            f"time with {count(self.at_once, 'job')} at a time, {_size(self.disk_bytes)} of disk"
        )


def total_of_jobs(jobs: Sequence[Sequence[Estimate]], at_once: int) -> Summary:
    """Add up jobs, each of which runs its cells in sequence; they start in order, `at_once` at a time.

    A job that depends on another one is assumed to find it done. Crops that several cells share count once.
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
    """Return a number rounded to two digits: 0.5, 1.0, 310, 43,000."""
    return f"{_two_digits(number):,.{0 if number >= 9.95 else 1}f}"


def _duration(seconds: float) -> str:
    """Return a duration in words, from an hour on to two digits of hours."""
    return duration(seconds if seconds < 3600 else 3600 * _two_digits(seconds / 3600))


def _size(number: int) -> str:
    return decimal(round(_two_digits(number))).replace(".0 ", " ")


def _two_digits(number: float) -> float:
    """Round to two digits, since an estimate deserves no more."""
    return float(f"{number:.2g}")
