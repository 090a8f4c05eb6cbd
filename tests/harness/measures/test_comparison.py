"""Ratios of two times and their intervals, with made-up clocks."""

import random
from collections.abc import Callable
from functools import partial
from itertools import count

import pytest
from scipy.stats import binom

import backbones
from harness.cells import Runtime
from harness.measures.comparison import MIN_BLOCKS, Ratio, clock_of, compare, median_interval, ratio
from harness.measures.quiet import UNWATCHED


class Clock:
    """A timer of made-up seconds: `seconds[name]` per call, plus `drift` per call since the start."""

    def __init__(self, seconds: dict[str, Callable[[], float]], drift: float = 0.0) -> None:
        self.seconds, self.drift, self.calls = seconds, drift, count()
        self.order = ""

    def __call__(self, call: Callable[[], object]) -> float:
        name = str(call())
        self.order += name
        return self.seconds[name]() + self.drift * next(self.calls)


def call_a() -> str:
    return "A"


def call_b() -> str:
    return "B"


def test_ratio_of_known_times():
    clock = Clock({"A": lambda: 3.0, "B": lambda: 2.0})
    assert ratio(call_a, call_b, clock, 1.0, UNWATCHED) == Ratio(1.5, 1.5, 1.5, MIN_BLOCKS)
    assert clock.order == "ABBA" * MIN_BLOCKS
    assert ratio(call_a, call_b, Clock({"A": lambda: 3.0, "B": lambda: 2.0}), 200.0, UNWATCHED).blocks == 20
    assert ratio(call_a, call_b, Clock({"A": lambda: 3.0, "B": lambda: 2.0}), 1.0, UNWATCHED).decided


def test_a_steady_drift_cancels():
    found = ratio(call_a, call_b, Clock({"A": lambda: 1.0, "B": lambda: 1.0}, drift=0.01), 1.0, UNWATCHED)
    assert found.low == pytest.approx(1)
    assert found.high == pytest.approx(1)


def test_a_thing_is_rarely_told_from_itself():
    noise = random.Random(0)
    # Mostly steady, now and then a pause of the machine's: nothing like a normal distribution.
    clock = Clock(dict.fromkeys("AB", lambda: 1 + noise.expovariate(20) + (noise.random() < 0.1)))
    undecided = sum(not ratio(call_a, call_b, clock, 1.0, UNWATCHED).decided for _ in range(400))
    assert undecided >= 0.95 * 400


def test_a_small_difference_is_found_through_the_noise():
    noise = random.Random(0)
    clock = Clock({"A": lambda: 1.05 + noise.expovariate(20), "B": lambda: 1 + noise.expovariate(20)})
    found = ratio(call_a, call_b, clock, 500.0, UNWATCHED)
    assert found.decided
    assert found.low < 1.1 / 1.05 < found.high


@pytest.mark.parametrize("size", [6, 7, 10, 25, 100, 400, 2000])
def test_interval_of_the_median_is_the_narrowest_that_covers(size):
    low, high = median_interval([float(value) for value in random.Random(1).sample(range(size), size)])
    assert low + high == size - 1
    assert 2 * binom.cdf(low, size, 0.5) <= 0.05 < 2 * binom.cdf(low + 1, size, 0.5)


def test_too_few_values_have_no_interval():
    with pytest.raises(ValueError, match=r"^5 values have no interval of 95 % for the median; 6 is the least$"):
        median_interval([1.0] * 5)


@pytest.mark.parametrize("work", ["infer", "train"])
def test_compare_backbones(work):
    fused, explicit = (backbones.preset("deit_micro", attention=f"softmax(fused={fused})") for fused in (True, False))
    found = compare(fused, explicit, Runtime(batch=1), work, min_seconds=1e-3)
    assert 0 < found.low <= found.value <= found.high
    assert found.blocks == MIN_BLOCKS


def test_on_a_cpu_a_call_is_timed_after_itself():
    order: list[str] = []
    clock = clock_of("cpu")
    for name in "AB":
        assert clock(partial(order.append, name)) >= 0
    assert order == ["A", "A", "B", "B"]
