"""Ratios of two times, measured interleaved in one process: how two backbones are compared."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from backbones import BackboneSpec, build
from harness.cells import Runtime
from harness.cells.runtime import Workload
from harness.measures.quiet import BLOCKS, PATIENCE, Watch, measure_quietly, wait_for_quiet, watch
from harness.measures.speed import Timer, prepare, timer, warm_up
from harness.process.determinism import numerics

MIN_BLOCKS = 10
"""Fewest A B B A blocks behind a ratio; an interval of 95 % exists from 6."""


@dataclass(frozen=True)
class Ratio:
    """Time of A over time of B: the median over interleaved blocks and its 95 % interval.

    `disturbed`: what disturbed the measurement, as a sentence; None where the machine was quiet.
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
        return ratio(call_a, call_b, timer(runtime.device), min_seconds, watching)


def ratio(a: Callable[[], object], b: Callable[[], object], timed: Timer, min_seconds: float, watching: Watch) -> Ratio:
    """Return the time of `a` over that of `b` from A B B A blocks, in which a steady drift cancels.

    Blocks in which others used the machine are dropped, as far as `watching` knows of them. The interval is that of the
    median by order statistics: it assumes no distribution, only that blocks are independent. Its coverage is at least
    95 %.
    """

    def some() -> list[float]:
        times: list[float] = []
        while not times or sum(times) < min_seconds / BLOCKS:
            times += [timed(a), timed(b), timed(b), timed(a)]
        return times

    # Times of A and B differ, and what drifts cancels: they need not be steady.
    found = measure_quietly(some, watching, min_seconds, 4 * MIN_BLOCKS, lambda blocks: None)
    in_turn = zip(*(found.times[turn::4] for turn in range(4)), strict=True)
    ratios = [(first_a + second_a) / (first_b + second_b) for first_a, first_b, second_b, second_a in in_turn]
    low, high = median_interval(ratios)
    return Ratio(median(ratios), low, high, len(ratios), found.disturbed)


def median_interval(values: list[float]) -> tuple[float, float]:
    """Return the narrowest pair of symmetric order statistics that covers the median with at least 95 % probability.

    Raises ValueError for fewer than 6 values, for which there is none.
    """
    from scipy.stats import quantile_test

    interval = quantile_test(values, p=0.5).confidence_interval(0.95)
    if math.isnan(interval.low):
        raise ValueError(f"{len(values)} values have no interval of 95 % for the median; 6 is the least")
    return float(interval.low), float(interval.high)
