"""What a plan of jobs takes in total: device hours, the time until the last job ends, disk.

print(total_of_jobs([[estimate] for estimate in estimates], at_once=[8] * len(estimates)))

about 310 GPU-hours (44 cells from recorded speeds, 2 from GMACs, rough), 1 d 17 h wall time with 8 jobs at a time,
96 GB of disk
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

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

    at_once: the most jobs that run at a time. assumed: what that number rests on, "" where it is certain.

    As text it is one line for people.
    """

    device_hours: dict[str, float]
    wall_seconds: float
    at_once: int
    assumed: str
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
        assumed = f" ({self.assumed})" if self.assumed else ""
        return (
            f"{hours or 'an unknown number of hours'} ({', '.join(cells)}), {_duration(self.wall_seconds)} wall "
            f"time with {count(self.at_once, 'job')} at a time{assumed}, {_size(self.disk_bytes)} of disk"
        )


def total_of_jobs(jobs: Sequence[Sequence[Estimate]], at_once: Sequence[int], assumed: str = "") -> Summary:
    """Add up jobs, each of which runs its cells in sequence.

    `at_once`: per job, how many like it could run at a time; it takes that share of the room, and starts when the jobs
    before it have started and leave as much. `assumed`: see `Summary`. A job that depends on another one is assumed to
    find it done. Crops that several cells share count once.
    """
    cells = [cell for job in jobs for cell in job]
    hours: dict[str, float] = {}
    for cell in cells:
        if cell.seconds is not None:
            hours[cell.device] = hours.get(cell.device, 0.0) + cell.processes * cell.seconds / 3600
    now = end = 0.0
    most, room = 0, Fraction(1)
    running: list[tuple[float, Fraction]] = []  # when each ends, and its share
    for job, number in zip(jobs, at_once, strict=True):
        share = Fraction(1, number)
        while room < share:
            now, given_back = heapq.heappop(running)
            room += given_back
        room -= share
        ends = now + sum(cell.seconds or 0.0 for cell in job)
        heapq.heappush(running, (ends, share))
        end, most = max(end, ends), max(most, len(running))
    crops = {cell.crops.what: cell.crops.bytes for cell in cells if cell.crops is not None}
    counts = Counter(cell.basis for cell in cells)
    return Summary(
        device_hours=hours,
        wall_seconds=end,
        at_once=most,
        assumed=assumed,
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
