"""Ratios of two times, measured interleaved in one process: how two backbones are compared."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from backbones import BackboneSpec, build
from harness.cells import Runtime
from harness.cells.runtime import Workload
from harness.measures.speed import Timer, prepare, timer, warm_up
from harness.process.determinism import numerics

MIN_BLOCKS = 10
"""Fewest A B B A blocks behind a ratio; an interval of 95 % exists from 6."""


@dataclass(frozen=True)
class Ratio:
    """Time of A over time of B: the median over interleaved blocks and its 95 % interval."""

    value: float
    low: float
    high: float
    blocks: int

    @property
    def decided(self) -> bool:
        """Whether A and B may be ranked: the interval does not contain 1."""
        return not self.low <= 1 <= self.high


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
        return ratio(call_a, call_b, timer(runtime.device), min_seconds)


def ratio(a: Callable[[], object], b: Callable[[], object], timed: Timer, min_seconds: float) -> Ratio:
    """Return the time of `a` over that of `b` from A B B A blocks, in which a steady drift cancels.

    The interval is that of the median by order statistics: it assumes no distribution, only that blocks are
    independent. Its coverage is at least 95 %.
    """
    blocks: list[float] = []
    spent = 0.0
    while spent < min_seconds or len(blocks) < MIN_BLOCKS:
        first_a, first_b, second_b, second_a = timed(a), timed(b), timed(b), timed(a)
        blocks.append((first_a + second_a) / (first_b + second_b))
        spent += first_a + first_b + second_b + second_a
    low, high = median_interval(blocks)
    return Ratio(median(blocks), low, high, len(blocks))


def median_interval(values: list[float]) -> tuple[float, float]:
    """Return the narrowest pair of symmetric order statistics that covers the median with at least 95 % probability.

    Raises ValueError for fewer than 6 values, for which there is none.
    """
    from scipy.stats import quantile_test

    interval = quantile_test(values, p=0.5).confidence_interval(0.95)
    if math.isnan(interval.low):
        raise ValueError(f"{len(values)} values have no interval of 95 % for the median; 6 is the least")
    return float(interval.low), float(interval.high)
