"""McNemar's mid-p value against its definition, Tango's interval against the likelihood, and both at their ends."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from results.statistics import mid_p, paired_shares


@given(st.integers(0, 60), st.integers(0, 60))
def test_mid_p_is_half_of_the_outcome_and_all_of_what_is_rarer(won: int, lost: int) -> None:
    differing = won + lost
    if won == lost:
        assert mid_p(won, lost) == 1
        return
    weights = stats.binom.pmf(np.arange(differing + 1), differing, 0.5)
    fewer = min(won, lost)
    assert mid_p(won, lost) == pytest.approx(min(1, 2 * weights[:fewer].sum() + weights[fewer]))


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 200))
def test_the_ends_are_where_the_score_test_just_rejects(won: int, lost: int, others: int) -> None:
    images = won + lost + others
    found = paired_shares(won, lost, images)
    assert found.low <= found.difference <= found.high
    for end in (found.low, found.high):
        if -1 < end < 1:
            assert abs(score(won, lost, images, end)) == pytest.approx(1.959964, rel=1e-3)


def score(won: int, lost: int, images: int, difference: float) -> float:
    """The score statistic, with the nuisance parameter by maximising the likelihood."""

    def unlikely(share: float) -> float:
        shares = (share + difference, share, 1 - 2 * share - difference)
        counts = (won, lost, images - won - lost)
        return -sum(n * math.log(max(p, 1e-300)) for n, p in zip(counts, shares, strict=True))

    least, most = max(0.0, -difference), (1 - difference) / 2
    share = optimize.minimize_scalar(unlikely, bounds=(least, most), method="bounded", options={"xatol": 1e-12}).x
    variance = (2 * share + difference * (1 - difference)) / images
    return ((won - lost) / images - difference) / math.sqrt(variance)


def test_an_interval_is_there_where_no_image_differs() -> None:
    found = paired_shares(0, 0, 50)
    assert (found.difference, found.p) == (0, 1)
    assert found.high == pytest.approx(-found.low)
    # z^2 / (n + z^2), as the score test has it.
    assert found.high == pytest.approx(3.8415 / 53.8415, rel=1e-3)


def test_the_two_models_may_be_swapped() -> None:
    one, other = paired_shares(12, 5, 300), paired_shares(5, 12, 300)
    assert (one.low, one.high, one.p) == pytest.approx((-other.high, -other.low, other.p))


def test_everything_won() -> None:
    found = paired_shares(50, 0, 50)
    assert found.difference == found.high == 1
    assert found.low > 0.8
    assert found.p < 1e-12


@pytest.mark.parametrize(("won", "lost", "images"), [(3, 3, 5), (-1, 0, 5), (0, 0, 0)])
def test_counts_that_cannot_be_are_refused(won: int, lost: int, images: int) -> None:
    with pytest.raises(ValueError, match=f"of {images} images, {won} and {lost} cannot be"):
        paired_shares(won, lost, images)
