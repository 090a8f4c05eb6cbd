"""The simulated coverage of every 95 % interval: 94 to 96 %, or at least 94 % where it is conservative by design."""

import numpy as np
import pytest

from tests.nightly import NIGHTLY
from tests.results.statistics.coverage import (
    Coverage,
    of_few,
    of_means,
    of_pairs,
    of_ranks,
    of_seeds,
    of_wilson,
    places,
    table,
)

CONSERVATIVE = {
    "paired by image and seed": "two margins are joined, each at its own quantile",
    "Wilson": "it is corrected for continuity, so that it never covers less",
    "mean rank": "it holds for every population of backbones, so for most of them it is more than needed",
    "Tango": "where few images differ there are few outcomes",
}
"""Why an interval may cover more than 96 %."""


def check(found: Coverage) -> None:
    slack = 3 * found.error
    assert found.share >= 0.94 - slack, found
    if found.interval not in CONSERVATIVE:
        assert found.share <= 0.96 + slack, found


@pytest.mark.parametrize("images", [50, 2_000, 50_000])
@pytest.mark.parametrize("accuracy", [0.5, 0.8, 0.98])
def test_wilson(images: int, accuracy: float) -> None:
    check(of_wilson(images, accuracy))


def test_pairs_and_seeds() -> None:
    rng = np.random.default_rng(0)
    check(of_pairs(50, 0.02, 0.02, 0, rng))
    check(of_pairs(2_000, 0.1, 0.1, 400, rng))
    check(of_means(3, 2_000, rng))
    check(of_seeds(2, 50, 0.98, 0.5, 0.3, 400, rng))
    check(of_seeds(5, 1_000, 0.8, 0.1, 0.1, 200, rng))


def test_few_images_that_differ_with_every_seed() -> None:
    rng = np.random.default_rng(0)
    check(of_few(10, 1_000, 1, 0, 1.0, 150, rng))
    check(of_few(5, 1_000, 4, 1, 0.5, 150, rng))


@pytest.mark.parametrize("backbones", [3, 5, 10])
@pytest.mark.parametrize("attentions", [2, 22])
def test_mean_ranks(backbones: int, attentions: int) -> None:
    rng = np.random.default_rng(0)
    for place, ranks in places(attentions).items():
        check(of_ranks(backbones, place, ranks, 400, rng))


@pytest.mark.skipif(not NIGHTLY, reason="minutes of work: make nightly runs it")
def test_every_interval() -> None:
    for found in table(draws=2_000):
        check(found)
