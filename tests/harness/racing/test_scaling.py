"""Exponents and crossovers of known times, and what is left out once it ran out of memory."""

from dataclasses import replace
from pathlib import Path

import pytest

from backbones import preset
from harness.cells import Runtime
from harness.measures.comparison import Ratio
from harness.measures.quiet import UNWATCHED
from harness.racing.candidates import read_candidates
from harness.racing.race import Result, Setup
from harness.racing.scaling import Crossover, Size, crossover, exponent, exponents, images_between, maps_between, scale

SIZES = [Size(n, n, ()) for n in (49, 100, 196, 400, 784, 1600)]


def result(seconds: float, ratio: float | None = None, half: float = 0.01, disturbed: str | None = None) -> Result:
    found = None if ratio is None else Ratio(ratio, ratio * (1 - half), ratio * (1 + half), 10, disturbed)
    return Result("a", seconds=(seconds,) * 4, ratio=found)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_exponent_is_that_of_the_times(power: float) -> None:
    found = exponent(SIZES, [1e-6 * size.tokens**power for size in SIZES])
    assert found is not None
    assert found.value == pytest.approx(power)
    assert found.low == pytest.approx(power)
    # A constant at few tokens is not what grows.
    upper = exponent(SIZES, [max(1e-6 * size.tokens**power, 1e-6 * 196**power) for size in SIZES])
    assert upper is not None
    assert upper.value == pytest.approx(power, rel=0.1)
    noisy = exponent(SIZES, [1e-6 * size.tokens**power * (1.1 if at % 2 else 1) for at, size in enumerate(SIZES)])
    assert noisy is not None
    assert noisy.low < power < noisy.high


def test_two_points_have_no_exponent() -> None:
    assert exponent(SIZES[:3], [1.0, 2.0, None]) is None
    failed = Result("a", problem="out of memory", out_of_memory=True)
    grown = exponents(SIZES[:4], [replace(result(size.tokens), peak_mib=0.5) for size in SIZES[:3]] + [failed])
    assert grown["seconds"] is not None
    assert grown["seconds"].value == pytest.approx(1)
    assert grown["peak_mib"] is not None
    assert grown["peak_mib"].value == pytest.approx(0)
    assert grown["saved_mib"] is None


def test_where_one_becomes_faster() -> None:
    ratios = [4.0, 2.0, 1.0, 0.5, 0.25, 0.125]
    found = crossover(SIZES, [result(1.0, ratio) for ratio in ratios])
    assert (found.low, found.high) == (100, 400)
    assert found.at == pytest.approx(196)
    between = crossover(SIZES[:2], [result(1.0, 2.0), result(1.0, 0.5)])
    assert between.at == pytest.approx(70)
    assert (between.low, between.high) == (49, 100)
    assert crossover(SIZES, [result(1.0, 0.5)] * 6) == Crossover(None, None, 49)
    assert crossover(SIZES, [result(1.0, 2.0)] * 6) == Crossover(None, 1600, None)
    disturbed = [result(1.0, ratio, disturbed="noise") for ratio in ratios]
    undecided = crossover(SIZES, disturbed)
    assert (undecided.low, undecided.high, undecided.decided) == (None, None, False)
    assert undecided.at == pytest.approx(196)
    assert found.decided


def test_the_first_place_is_compared_with_float64_however_many_tokens_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.racing.scaling.EXACT", 10)
    candidates = read_candidates(["softmax", "linear"], "fp32", None)
    setup = Setup("forward", Runtime(batch=1), 1e-3)
    points = scale(maps_between(candidates, 49, 100, 16, 2), setup, lambda line: None, watching=UNWATCHED)
    assert [["raced inputs" in each.checked for each in point.results] for point in points] == [[True] * 2, [False] * 2]


def test_squares_in_a_range() -> None:
    assert [size.tokens for size in maps_between([], 49, 400, 16, 2)] == [49, 100, 196, 400]
    with pytest.raises(ValueError, match=r"^--tokens 50:90: it takes a range with two or more of 49, 100, 196"):
        maps_between([], 50, 90, 16, 2)


def test_images_are_those_that_the_preset_takes() -> None:
    candidates = read_candidates(["softmax", "focused@bf16"], "fp32", None)
    sizes = images_between(candidates, "swin_t", 200, 700)
    assert [size.number for size in sizes] == [224, 448, 672]
    assert [size.tokens for size in sizes] == [56**2, 112**2, 168**2]
    assert sizes[1].windows == "7x7 of 112x112, 7x7 of 56x56, 7x7 of 28x28, 7x7 of 14x14"
    focused = sizes[1].candidates[1]
    assert (focused.label, focused.precision) == ("focused@bf16", "bf16")
    assert focused.reference == preset("swin_t", attention="focused", image_size=448)
    # What follows from the image size does so at each of them.
    stripes = [size.windows for size in images_between(candidates, "cswin_t", 224, 384)]
    assert "14x7 and 7x14 of 14x14" in str(stripes[0])
    assert "24x12 and 12x24 of 24x24" in str(stripes[1])
    reduced = images_between(candidates, "pvt_v2_b0(sr_ratios=8421)", 64, 128)
    assert "whole map of 16x16 with 2x2 keys" in str(reduced[0].windows)


def test_models_are_raced_at_growing_images() -> None:
    candidates = read_candidates(["softmax", "linear"], "fp32", None)
    sizes = images_between(candidates, "swin_micro", 32, 64)
    lines: list[str] = []
    points = scale(sizes, Setup("forward", Runtime(batch=1), 1e-3), lines.append, watching=UNWATCHED)
    assert [point.place for point in points] == ["32", "64"]
    assert all(each.seconds for point in points for each in point.results)
    assert "64x64 softmax: checking" in lines


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
    points = scale(maps_between(candidates, 49, 400, 16, 2), setup, lines.append, watching=UNWATCHED)
    assert [each.results[hungry].out_of_memory for each in points] == [False, False, True, True]
    assert all(each.results[softmax].seconds for each in points)
    assert sum("hungry: checking" in line for line in lines) == 3
    assert [each.results[2].ratio is None for each in points] == [False, False, first, first]
    assert points[3].ran == ((1, 2) if first else (0, 2))
