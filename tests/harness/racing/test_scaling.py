"""Exponents and crossovers of known times, and what is left out once it ran out of memory."""

from pathlib import Path

import pytest

from harness.cells import Runtime
from harness.measures.comparison import Ratio
from harness.measures.quiet import UNWATCHED
from harness.racing.candidates import read_candidates
from harness.racing.race import Result, Setup
from harness.racing.scaling import Crossover, crossover, exponent, places_between, scale

SIZES = (49, 100, 196, 400, 784, 1600)


def result(seconds: float, ratio: float | None = None, half: float = 0.01, disturbed: str | None = None) -> Result:
    found = None if ratio is None else Ratio(ratio, ratio * (1 - half), ratio * (1 + half), 10, disturbed)
    return Result("a", seconds=(seconds,) * 4, ratio=found)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_exponent_is_that_of_the_times(power: float) -> None:
    found = exponent(SIZES, [result(1e-6 * n**power) for n in SIZES])
    assert found is not None
    assert found.value == pytest.approx(power)
    assert found.low == pytest.approx(power)
    # A constant at few tokens is not what grows.
    upper = exponent(SIZES, [result(max(1e-6 * n**power, 1e-6 * 196**power)) for n in SIZES])
    assert upper is not None
    assert upper.value == pytest.approx(power, rel=0.1)
    noisy = exponent(SIZES, [result(1e-6 * n**power * (1.1 if at % 2 else 1)) for at, n in enumerate(SIZES)])
    assert noisy is not None
    assert noisy.low < power < noisy.high


def test_two_points_have_no_exponent() -> None:
    failed = Result("a", problem="out of memory", out_of_memory=True)
    assert exponent(SIZES[:3], [result(1.0), result(2.0), failed]) is None


def test_where_one_becomes_faster() -> None:
    ratios = [4.0, 2.0, 1.0, 0.5, 0.25, 0.125]
    found = crossover(SIZES, [result(1.0, ratio) for ratio in ratios])
    assert (found.low, found.high) == (100, 400)
    assert found.tokens == pytest.approx(196)
    between = crossover(SIZES[:2], [result(1.0, 2.0), result(1.0, 0.5)])
    assert between.tokens == pytest.approx(70)
    assert (between.low, between.high) == (49, 100)
    assert crossover(SIZES, [result(1.0, 0.5)] * 6) == Crossover(None, None, 49)
    assert crossover(SIZES, [result(1.0, 2.0)] * 6) == Crossover(None, 1600, None)
    disturbed = [result(1.0, ratio, disturbed="noise") for ratio in ratios]
    undecided = crossover(SIZES, disturbed)
    assert (undecided.low, undecided.high) == (None, None)


def test_the_first_place_is_compared_with_float64_however_many_tokens_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.racing.scaling.EXACT", 10)
    candidates = read_candidates(["softmax", "linear"], "fp32", None)
    setup = Setup("forward", Runtime(batch=1), 1e-3)
    points = scale(candidates, places_between(49, 100, 16, 2), setup, lambda line: None, watching=UNWATCHED)
    assert [["raced inputs" in each.checked for each in point.results] for point in points] == [[True] * 2, [False] * 2]


def test_squares_in_a_range() -> None:
    assert [place.site.queries.tokens for place in places_between(49, 400, 16, 2)] == [49, 100, 196, 400]
    with pytest.raises(ValueError, match=r"^--tokens 50:90: it takes a range with two or more of 49, 100, 196"):
        places_between(50, 90, 16, 2)


HUNGRY = """
import torch
from torch.nn import functional as F

def hungry(site):
    def attend(q, k, v):
        if q.shape[1] > 100:
            raise torch.OutOfMemoryError("out of memory")
        q, k, v = (x.unflatten(-1, (site.heads, -1)).transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    return attend
"""


@pytest.mark.parametrize("first", [True, False])
def test_what_ran_out_of_memory_is_a_point_and_not_tried_again(tmp_path: Path, first: bool) -> None:
    (tmp_path / "hungry.py").write_text(HUNGRY)
    names = ["softmax", f"{tmp_path / 'hungry.py'}:hungry"]
    candidates = read_candidates([*reversed(names), "linear"] if first else [*names, "linear"], "fp32", "softmax")
    hungry, softmax = (0, 1) if first else (1, 0)
    lines: list[str] = []
    setup = Setup("both", Runtime(batch=1), 1e-3)
    points = scale(candidates, places_between(49, 400, 16, 2), setup, lines.append, watching=UNWATCHED)
    assert [each.results[hungry].out_of_memory for each in points] == [False, False, True, True]
    assert all(each.results[softmax].seconds for each in points)
    assert sum("hungry: checking" in line for line in lines) == 3
    assert [each.results[2].ratio is None for each in points] == [False, False, first, first]
    assert points[3].ran == ((1, 2) if first else (0, 2))
