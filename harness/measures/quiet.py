"""How disturbed a measurement was, and how to measure in spite of it: a disturbed number is no number.

A measurement is made of blocks of calls. Between two blocks the counters of the kernel are read (`Usage`), so that a
block in which others took part of this process's time is known by that, and not by its times: dropping it does not
favour fast calls. `measure_quietly` goes on until enough blocks were quiet, within bounds; of what stays disturbed it
takes the quietest blocks, and says in one sentence what disturbed them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from statistics import quantiles

from harness.cells.runtime import Device
from harness.measures.card import CardState, card_state, others_on_card, sm_clock
from harness.process.usage import Usage, usage

LIMIT = 0.05
"""Share of its time that a measurement may lose to others, and of the cores that others may use, without a mark."""

SWITCHES = 100.0
"""Involuntary switches per CPU second above which a process shares its cores, where the kernel does not say for how
long threads waited. By themselves threads are interrupted a few times per second; neighbours do it every few ms."""

SPREAD = 0.3
"""Largest distance of the quartiles of steady times, in medians."""

TREND = 0.1
"""Largest change of steady times from their first half to their second."""

CLOCK = 0.85
"""Smallest ratio of the lowest to the highest clock during a steady measurement."""

BLOCKS = 10
"""Blocks in the time of work that is asked for."""

LONGEST = 3
"""How many times the work that is asked for is done in search of quiet blocks."""

PATIENCE = 10.0
"""How long a measurement waits for quiet before it begins, in multiples of its time of work."""

LOOK = 0.25
"""Seconds for which the machine is looked at while this process does nothing."""


@dataclass(frozen=True)
class Watch:
    """Where a measurement learns what others do; tests replace what is read.

    `clock`: that of the device under load, in any unit. `card`: what others do on the GPU while this process does
    nothing there, as a sentence. Either is None if there is nothing to say. `state`: power, temperature and throttling
    of the GPU under load.
    """

    usage: Callable[[], Usage]
    clock: Callable[[], float | None]
    card: Callable[[], str | None]
    state: Callable[[], CardState] = CardState


UNWATCHED = Watch(lambda: Usage(0.0, 0.0, 0.0), lambda: None, lambda: None)
"""For times that others cannot disturb: nothing is known of others, and so nothing is dropped or marked."""


def watch(device: Device) -> Watch:
    """Return what can be learned of this machine, for measurements on `device`."""
    if device == "cuda":
        return Watch(usage, sm_clock, others_on_card, card_state)
    return Watch(usage, _core_clock, lambda: None)


@dataclass(frozen=True)
class Block:
    """Calls that were timed without a pause: their seconds, and what happened meanwhile."""

    times: list[float]
    spent: Usage
    clock: float | None = None
    state: CardState = field(default_factory=CardState)


@dataclass(frozen=True)
class Quiet:
    """The blocks that a measurement rests on, in the order of their time, and how disturbed they were.

    `disturbed`: what disturbed them, as a sentence, or None. `dropped`: share of the time of all blocks that is not in
    them.
    """

    blocks: list[Block]
    disturbed: str | None
    dropped: float

    @property
    def times(self) -> list[float]:
        return [seconds for block in self.blocks for seconds in block.times]

    @property
    def spent(self) -> Usage:
        return _sum(self.blocks)


def wait_for_quiet(
    watching: Watch, patience: float, report: Callable[[str], None], sleep: Callable[[float], None] = time.sleep
) -> None:
    """Do nothing until the machine is quiet, for at most about `patience` seconds; report that it is not."""
    began = before = watching.usage()
    while (before - began).wall < patience:
        sleep(min(LOOK, patience / 2))
        after = watching.usage()
        if not _is_busy(after - before) and watching.card() is None:
            return
        if before is began:
            report(f"others use this machine: waiting up to {patience:.0f} s for quiet")
        before = after


def _is_busy(idle: Usage) -> bool:
    """Return whether others use the cores, seen by a process that does nothing."""
    return max(_share(idle.others, idle.cores), _share(idle.stolen, idle.cores)) > LIMIT


def measure_quietly(
    run: Callable[[], list[float]],
    watching: Watch,
    min_seconds: float,
    min_samples: int,
    unsteady: Callable[[Sequence[Block]], str | None],
) -> Quiet:
    """Measure in blocks until those that are quiet and steady hold at least so many seconds and samples.

    `run` makes the calls of one block and returns their seconds; `unsteady` says in what way blocks are not those of a
    steady state. Of the quiet ones the newest are taken; after `LONGEST` times as much, the quietest as they are.
    """
    blocks: list[Block] = []
    began = before = watching.usage()
    longest = (LONGEST * min_seconds, LONGEST * min_samples)
    while True:
        times = run()
        after = watching.usage()
        blocks.append(Block(times, after - before, watching.clock(), watching.state()))
        before = after
        # The kernel counts the time of others in ticks, which are too coarse for one block.
        others = others_share(after - began)
        quiet = [block for block in blocks if disturbance(block.spent, others) is None]
        is_last = bool(_enough(blocks, *longest))
        chosen = _enough(quiet[::-1], min_seconds, min_samples)[::-1]
        if not chosen and is_last:
            quietest = _enough(sorted(blocks, key=lambda block: _lost(block.spent)), min_seconds, min_samples)
            taken = {id(block) for block in quietest}
            chosen = [block for block in blocks if id(block) in taken]
        if chosen and (is_last or unsteady(chosen) is None):
            reasons = (disturbance(_sum(chosen), others), unsteady(chosen), watching.card())
            total, kept = (sum(sum(block.times) for block in some) for some in (blocks, chosen))
            return Quiet(chosen, ", ".join(filter(None, reasons)) or None, 1 - kept / total)


def _enough(blocks: Sequence[Block], min_seconds: float, min_samples: int) -> list[Block]:
    """Return the first blocks that hold so many seconds and samples together; none if all of them do not."""
    seconds, samples = 0.0, 0
    for number, block in enumerate(blocks, 1):
        seconds += sum(block.times)
        samples += len(block.times)
        if seconds >= min_seconds and samples >= min_samples:
            return list(blocks[:number])
    return []


def disturbance(spent: Usage, others: float) -> str | None:
    """Return what others took of a process's time, as a sentence; None if that is less than `LIMIT` of it.

    `others`: the share of the cores that other processes used meanwhile. A process whose threads wait for each other,
    since it has more of them than cores, is not disturbed.
    """
    found = []
    if others > LIMIT:
        if spent.waited is not None and _waiting(spent) > LIMIT:
            found.append(f"threads waited {_percent(_waiting(spent))} of their time for a core")
        elif spent.waited is None and spent.switches > SWITCHES * max(spent.cpu, 0.1):
            found.append(f"threads had to leave their core {spent.switches / max(spent.cpu, 0.1):.0f} times per second")
    if _share(spent.slept, spent.wall) > LIMIT:
        found.append(f"threads made way for others {_percent(_share(spent.slept, spent.wall))} of the time")
    if _share(spent.stolen, spent.cores) > LIMIT:
        found.append(f"the hypervisor took {_percent(_share(spent.stolen, spent.cores))} of the cores' time")
    if _share(spent.throttled, spent.wall) > LIMIT:
        found.append(f"a CPU quota stopped it {_percent(_share(spent.throttled, spent.wall))} of the time")
    return ", ".join(found) or None


def unsteadiness(blocks: Sequence[Block]) -> str | None:
    """Return in what way times or clocks are not those of one steady state, as a sentence; None if they are."""
    times = [seconds for block in blocks for seconds in block.times]
    found = []
    low, middle, high = quantiles(times, n=4, method="inclusive")
    if high - low > SPREAD * middle:
        found.append(f"the quartiles of its times are {_percent((high - low) / middle)} apart")
    half = len(times) // 2
    if half >= 4:
        (low_before, before, high_before), (low_after, after, high_after) = (
            quantiles(some, n=4, method="inclusive") for some in (times[:half], times[half:])
        )
        apart = low_after > high_before or low_before > high_after
        if apart and not 1 - TREND <= after / before <= 1 + TREND:
            found.append(f"its times changed by {100 * (after / before - 1):+.0f} %")
    clocks = [block.clock for block in blocks if block.clock]
    if clocks and min(clocks) < CLOCK * max(clocks):
        found.append(f"the clock fell to {_percent(min(clocks) / max(clocks))}")
    return ", ".join(found) or None


def shares(spent: Usage) -> dict[str, float | None]:
    """Return how disturbed a measurement was, in numbers; None for what the system does not say.

    `cores_used`: CPU seconds per second. `waited_share`: of the time in which its threads were ready to run, that
    without a core. `others_share`, `stolen_share`: of the time of its cores, that used by other processes and taken by
    the hypervisor.
    """
    return {
        "cores_used": spent.cpu / spent.wall,
        "waited_share": None if spent.waited is None else _waiting(spent),
        "others_share": None if spent.others is None else _share(spent.others, spent.cores),
        "stolen_share": None if spent.stolen is None else _share(spent.stolen, spent.cores),
    }


def others_share(spent: Usage) -> float:
    """Return the share of the cores' time that other processes used; 1 where the system does not say."""
    return _share(spent.others, spent.cores, unknown=1.0)


def _sum(blocks: Sequence[Block]) -> Usage:
    return reduce(add, (block.spent for block in blocks))


def _waiting(spent: Usage) -> float:
    """Return the share of the time in which threads were ready to run that they had no core."""
    return _share(spent.waited, (spent.waited or 0.0) + spent.cpu)


def _lost(spent: Usage) -> float:
    """Return how much a block was disturbed, to compare it with others."""
    waited = _waiting(spent) if spent.waited is not None else spent.switches / max(spent.cpu, 1e-3) / SWITCHES
    return waited + _share(spent.stolen, spent.cores) + _share(spent.throttled, spent.wall)


def _share(part: float | None, whole: float, unknown: float = 0.0) -> float:
    """Return a share from 0 to 1: counters of ticks may differ by a tick from those that are exact."""
    if part is None:
        return unknown
    return min(1.0, max(0.0, part / whole)) if whole > 0 else 0.0


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _core_clock() -> float | None:
    """Return the clock of the core that this thread ran on last, as a share of its highest; None if not told."""
    try:
        core = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[36]
        folder = Path(f"/sys/devices/system/cpu/cpu{core}/cpufreq")
        return int((folder / "scaling_cur_freq").read_text()) / int((folder / "cpuinfo_max_freq").read_text())
    except (OSError, ValueError, IndexError, ZeroDivisionError):
        return None
