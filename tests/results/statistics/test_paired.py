"""The interval of a paired difference covers the truth, and its test says what the interval says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from results.statistics import paired_difference, paired_shares
from results.statistics.bounded import bounded_interval


def simulated(
    rng: np.random.Generator, seeds: int, images: int, mean: float, own: float, seed_sd: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Bits of two arms and the true difference in points.

    An image is right where a sum of normal numbers is above 0: its ease (both arms), its ease for the arm (variance
    `own`), the luck of the seed, and noise of variance 1. Over all seeds and images that is a normal number too.
    """
    ease = rng.standard_normal(images)
    arms = []
    for level in (mean + 0.1, mean):
        latent = level + ease + np.sqrt(own) * rng.standard_normal(images)
        luck = seed_sd * rng.standard_normal((seeds, 1))
        arms.append(latent + luck + rng.standard_normal((seeds, images)) > 0)
    total = np.sqrt(2 + own + seed_sd**2)
    truth = 100 * (stats.norm.cdf((mean + 0.1) / total) - stats.norm.cdf(mean / total))
    return arms[0], arms[1], float(truth)


@pytest.mark.parametrize("seeds", [2, 5])
@pytest.mark.parametrize("seed_sd", [0.0, 0.04, 0.2], ids=["images dominate", "both", "seeds dominate"])
def test_intervals_cover_the_truth_over_seeds_and_images(seeds: int, seed_sd: float) -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(400):
        ours, baseline, truth = simulated(rng, seeds, 2000, mean=0.8, own=0.3, seed_sd=seed_sd)
        found = paired_difference(ours, baseline)
        covered += found.low <= truth <= found.high
    # The conservative side is open with two seeds, where a t quantile of 12.7 meets the image part.
    assert 0.92 <= covered / 400 <= (0.99 if seeds > 2 else 1.0)


def test_one_seed_is_mcnemars_test() -> None:
    ours = np.array([[1] * 30 + [0] * 18 + [1] * 952], dtype=bool)
    baseline = np.array([[0] * 30 + [1] * 18 + [1] * 952], dtype=bool)
    found = paired_difference(ours, baseline)
    pair = paired_shares(30, 18, 1000)
    assert found == pytest.approx((1.2, 100 * pair.low, 100 * pair.high, pair.p))


def test_the_mean_squares_are_those_of_the_analysis_of_variance() -> None:
    rng = np.random.default_rng(3)
    ours, baseline = rng.random((3, 50)) < 0.8, rng.random((3, 50)) < 0.5
    right = ours.astype(float) - baseline
    seeds, images = right.shape
    grand = right.mean()
    by_seed = sum(images * (row.mean() - grand) ** 2 for row in right)
    by_image = sum(seeds * (row.mean() - grand) ** 2 for row in right.T)
    rest = ((right - grand) ** 2).sum() - by_seed - by_image
    ms_seed, ms_image, ms_rest = by_seed / 2, by_image / 49, rest / (2 * 49)
    found = paired_difference(ours, baseline)
    images_alone = bounded_interval(right.mean(axis=0), -1, 1)
    for end, alone in ((found.low, images_alone.low), (found.high, images_alone.high)):
        margin, over_images = abs(end - found.points) / 100, (alone - grand) ** 2
        squared = stats.t.ppf(0.975, 2) ** 2 * ms_seed / 150 + over_images * max(ms_image - ms_rest, 0) / ms_image
        assert margin == pytest.approx(np.sqrt(max(squared, over_images)))


def test_equal_seeds_and_many_images_have_the_interval_of_the_images() -> None:
    rng = np.random.default_rng(5)
    ours, baseline = np.repeat(rng.random((1, 20_000)) < 0.9, 5, 0), np.repeat(rng.random((1, 20_000)) < 0.8, 5, 0)
    found, alone = paired_difference(ours, baseline), paired_difference(ours[:1], baseline[:1])
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high), abs=0.02)


def test_ten_equal_seeds_that_win_one_image_do_not_tell() -> None:
    """If an image differs with every seed, whether it is among these does not depend on how many seeds there are."""
    ours = np.ones((10, 1000), bool)
    baseline = ours.copy()
    assert paired_difference(ours, baseline).high > 0.3, "in 5 % of cases 3 of 1,000 images are among no 1,000"
    baseline[:, 0] = False
    found = paired_difference(ours, baseline)
    assert found.low < 0.02 < 0.5 < found.high


def test_pairing_narrows_the_interval() -> None:
    rng = np.random.default_rng(4)
    baseline = rng.random((5, 5000)) < 0.8
    ours = baseline ^ (rng.random(baseline.shape) < 0.02)
    paired, unpaired = paired_difference(ours, baseline), paired_difference(ours, baseline[:, ::-1])
    assert paired.high - paired.low < 0.5 * (unpaired.high - unpaired.low)


def test_equal_bits_differ_by_nothing() -> None:
    bits = np.ones((3, 10), bool)
    found = paired_difference(bits, bits)
    assert (found.points, found.p) == (0, 1)
    assert found.low < 0 < found.high, "no noise in three seeds is not no noise"


def test_one_image_has_no_interval() -> None:
    with pytest.raises(ValueError, match="needs at least 2 images, but there is 1"):
        paired_difference(np.ones((2, 1), bool), np.ones((2, 1), bool))


@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.floats(0.0, 0.1))
def test_the_test_rejects_where_the_interval_excludes_no_difference(seed: int, seeds: int, gain: float) -> None:
    rng = np.random.default_rng(seed)
    baseline = rng.random((seeds, 400)) < 0.8
    found = paired_difference(baseline ^ (rng.random(baseline.shape) < gain), baseline)
    excludes = found.low > 0 or found.high < 0
    assert 0 <= found.p <= 1
    assert (found.p < 0.05) == excludes


def test_p_values_at_the_ends() -> None:
    right = np.ones((3, 50), dtype=bool)
    assert paired_difference(right, right).p == 1
    everything = paired_difference(right, ~right)
    assert everything.p < 1e-4
    assert np.isfinite(everything).all()
    many = np.ones((10, 50_000), dtype=bool)
    assert paired_difference(many, ~many).p == 0
    rng = np.random.default_rng(0)
    close = paired_difference(rng.random((1, 10_000)) < 0.9, rng.random((1, 10_000)) < 0.1)
    assert 0 <= close.p < 1e-12
