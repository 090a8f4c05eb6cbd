"""Times of several calls, measured interleaved in one process, and their ratios: how any two things are compared."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from backbones import BackboneSpec, build
from harness.cells import Runtime
from harness.cells.runtime import Device, Workload
from harness.measures.quiet import (
    BLOCKS,
    PATIENCE,
    Block,
    Quiet,
    Watch,
    measure_quietly,
    wait_for_quiet,
    watch,
)
from harness.measures.speed import Timer, prepare, timer, warm_up
from harness.process.determinism import numerics

MIN_BLOCKS = 10
"""Fewest rounds A B ... B A behind a ratio; an interval of 95 % exists from 6."""


@dataclass(frozen=True)
class Ratio:
    """Time of A over time of B: the median over interleaved rounds and its 95 % interval.

    `blocks`: the number of rounds. `disturbed`: what disturbed the measurement, as a sentence; None where the machine
    was quiet.
    """

    value: float
    low: float
    high: float
    blocks: int
    disturbed: str | None = None

    @property
    def decided(self) -> bool:
        """Whether A and B may be ranked: the measurement was undisturbed, and the interval does not contain 1."""
        return self.disturbed is None and not self.low <= 1 <= self.high


@dataclass(frozen=True)
class Interleaved:
    """The quiet blocks of a measurement in rounds A B C C B A: each call has two samples, so that drift cancels.

    `repeats`: of each call, how many times it runs in a sample.
    """

    quiet: Quiet
    repeats: tuple[int, ...]

    def times(self, call: int) -> list[float]:
        """Return the seconds of one run of a call, two per round."""
        turns = 2 * len(self.repeats)
        both = (call, turns - 1 - call)
        return [t / self.repeats[call] for at, t in enumerate(self.quiet.times) if at % turns in both]

    def ratios(self, a: int, b: int, block: Block | None = None) -> list[float]:
        """Return the time of call `a` over that of `b` in each round of all blocks, or of one."""
        times = self.quiet.times if block is None else block.times
        turns = 2 * len(self.repeats)
        sums = [[x + y for x, y in zip(times[c::turns], times[turns - 1 - c :: turns], strict=True)] for c in (a, b)]
        return [x / self.repeats[a] / (y / self.repeats[b]) for x, y in zip(*sums, strict=True)]

    def ratio(self, a: int, b: int) -> Ratio:
        """Return the time of call `a` over that of `b`.

        The interval is that of the median by order statistics: it assumes no distribution, only that rounds are
        independent. Its coverage is at least 95 %.
        """
        ratios = self.ratios(a, b)
        low, high = median_interval(ratios)
        return Ratio(median(ratios), low, high, len(ratios), self.quiet.disturbed)


def interleaved(
    calls: Sequence[Callable[[], object]],
    timed: Timer,
    min_seconds: float,
    watching: Watch,
    unsteady: Callable[[Sequence[Block]], str | None] = lambda blocks: None,
    repeats: Sequence[int] | None = None,
) -> Interleaved:
    """Time calls in rounds A B C C B A, for at least `min_seconds` in all and `MIN_BLOCKS` rounds.

    `repeats`: how many times each call runs in a sample (default: once); short calls are lost in the clock otherwise.

    Blocks in which others used the machine are dropped, as far as `watching` knows of them, and those that are
    `unsteady`, see `measure_quietly`. By default none is: times of the calls differ, and what drifts cancels.
    """
    repeats = repeats or (1,) * len(calls)
    samples = [repeated(call, times) for call, times in zip(calls, repeats, strict=True)]
    order = [*samples, *reversed(samples)]

    def some() -> list[float]:
        times: list[float] = []
        while not times or sum(times) < min_seconds / BLOCKS:
            times += map(timed, order)
        return times

    found = measure_quietly(some, watching, min_seconds, len(order) * MIN_BLOCKS, unsteady)
    return Interleaved(found, tuple(repeats))


def clock_of(device: Device) -> Timer:
    """Return the clock of a device for calls in turn. On a CPU it times the second of two, so that each follows itself.

    Caches would otherwise hold what another call has left there, which is not the same for all: of 26 races of
    softmax with itself, 11 found a difference, and 2 with this. A GPU's cache is overwritten before each sample.
    """
    clock = timer(device)
    if device == "cuda":
        return clock

    def second(call: Callable[[], object]) -> float:
        call()
        return clock(call)

    return second


def repeated(call: Callable[[], object], times: int) -> Callable[[], object]:
    """Return a call that runs `call` so many times."""
    if times == 1:
        return call

    def several() -> None:
        for _ in range(times):
            call()

    return several


def compare(
    a: BackboneSpec, b: BackboneSpec, runtime: Runtime, work: Workload = "infer", min_seconds: float = 2.0
) -> Ratio:
    """Return the time of a batch of `a` over that of `b`, measured A B B A here; raises as `measure_speed`."""
    with numerics(compiled=runtime.mode == "compiled"):
        call_a, call_b = (
            prepare(build(spec), (spec.in_channels, *spec.image_size), spec.num_classes, runtime, work)
            for spec in (a, b)
        )
        warm_up(call_a, runtime.device, min_seconds / 4)
        warm_up(call_b, runtime.device, min_seconds / 4)
        watching = watch(runtime.device)
        wait_for_quiet(watching, PATIENCE * min_seconds, lambda text: None)
        return ratio(call_a, call_b, clock_of(runtime.device), min_seconds, watching)


def ratio(a: Callable[[], object], b: Callable[[], object], timed: Timer, min_seconds: float, watching: Watch) -> Ratio:
    """Return the time of `a` over that of `b`, from rounds A B B A; see `interleaved`."""
    return interleaved((a, b), timed, min_seconds, watching).ratio(0, 1)


def median_interval(values: list[float]) -> tuple[float, float]:
    """Return the narrowest pair of symmetric order statistics that covers the median with at least 95 % probability.

    Raises ValueError for fewer than 6 values, for which there is none.
    """
    from scipy.stats import quantile_test

    interval = quantile_test(values, p=0.5).confidence_interval(0.95)
    if math.isnan(interval.low):
        raise ValueError(f"{len(values)} values have no interval of 95 % for the median; 6 is the least")
    return float(interval.low), float(interval.high)
