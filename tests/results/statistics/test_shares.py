"""The intervals of one accuracy and of a mean are those of the books, and cover what they say."""

import numpy as np
import pytest
from scipy import stats

from results.statistics import mean_interval, wilson


@pytest.mark.parametrize(("right", "images"), [(0, 10), (1, 3), (40, 50), (49, 50), (50, 50), (43475, 50000)])
def test_wilson_is_that_of_scipy(right: int, images: int) -> None:
    found = wilson(right / images, images)
    expected = stats.binomtest(right, images).proportion_ci(0.95, "wilsoncc")
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= found.low <= right / images <= found.high <= 1


def coverage(true: float, images: int, *, wald: bool) -> float:
    """The probability that the interval has the true share in it, exactly."""
    covered = 0.0
    for right in range(images + 1):
        share = right / images
        margin = 1.96 * np.sqrt(share * (1 - share) / images)
        low, high = (share - margin, share + margin) if wald else wilson(share, images)
        if low <= true <= high:
            covered += float(stats.binom.pmf(right, images, true))
    return covered


def test_near_all_right_it_covers_where_wald_does_not() -> None:
    assert coverage(0.98, 50, wald=False) > 0.95
    assert coverage(0.98, 50, wald=True) < 0.68
    assert coverage(0.8, 2000, wald=False) == pytest.approx(0.953, abs=0.005)
    assert wilson(1, 50).low < 0.93, "Wald's has no width"


def test_the_interval_of_a_mean_is_that_of_scipy() -> None:
    values = [86.9, 86.4, 86.6, 86.2, 86.8]
    expected = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert mean_interval(values) == pytest.approx(expected)
    assert mean_interval([3, 3]) == (3, 3)


@pytest.mark.parametrize(("share", "images"), [(1.01, 5), (-0.1, 5), (0.5, 0), (float("nan"), 5)])
def test_what_is_no_share_is_refused(share: float, images: int) -> None:
    with pytest.raises(ValueError, match="a share is between"):
        wilson(share, images)


def test_one_value_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least 2 values"):
        mean_interval([1])
