"""The interval of a bounded mean: Clopper and Pearson's, Student's and drawn weights where these are the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from results.statistics.bounded import bounded_interval, weighted


@pytest.mark.parametrize(("right", "number"), [(0, 2), (0, 5), (1, 3), (4, 5), (5, 5), (10, 30), (980, 1000)])
def test_for_two_values_it_is_that_of_clopper_and_pearson(right: int, number: int) -> None:
    expected = stats.binomtest(right, number).proportion_ci(0.95, "exact")
    found = bounded_interval(np.repeat([0, 1], [number - right, right]), 0, 1)
    assert found == pytest.approx((expected.low, expected.high), abs=0.003)


@given(st.lists(st.sampled_from([1, 1.5, 2, 3, 7, 8]), min_size=2, max_size=30))
def test_it_is_the_quantile_of_drawn_weights(ranks: list[float]) -> None:
    low, high = bounded_interval(np.array(ranks), 1, 8)
    assert 1 <= low <= np.mean(ranks) <= high <= 8
    weights = np.random.default_rng(0).dirichlet(np.ones(len(ranks) + 1), size=20_000)
    for end, bound, beyond in ((high, 8, 0.025), (low, 1, 0.975)):
        drawn = weights @ [*ranks, bound]
        below, above = np.quantile(drawn, [1 - beyond - 0.005, 1 - beyond + 0.005])
        assert below - 0.03 <= end <= above + 0.03


def test_with_many_values_it_is_students() -> None:
    values = np.random.default_rng(0).integers(1, 9, size=50_000)
    expected = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    assert bounded_interval(values, 1, 8) == pytest.approx(expected, abs=3e-4)


def test_the_bounds_may_be_swapped() -> None:
    ranks = np.array([1, 1, 2, 5, 3.5])
    low, high = bounded_interval(ranks, 1, 8)
    assert bounded_interval(9 - ranks, 1, 8) == pytest.approx((9 - high, 9 - low))


def test_equal_values_at_a_bound_have_a_width_on_one_side() -> None:
    assert bounded_interval(np.ones(5), 1, 8) == pytest.approx((1, 1 + 7 * (1 - 0.025**0.2)), abs=0.02)
    assert bounded_interval(np.full(5, 8), 1, 8) == pytest.approx((1 + 7 * 0.025**0.2, 8), abs=0.02)


def test_far_tails_are_small_and_not_lost() -> None:
    """Of n zeros and one 1 the weighted mean exceeds m in (1 - m)^n of draws."""
    zeros = weighted(np.array([0.0]), np.array([50_000]), 1.0)
    assert zeros
    for tilt in (0.5, 0.9, 0.99):
        mean, beyond = zeros.exceeded(tilt)
        assert beyond == pytest.approx((1 - mean) ** 50_000, rel=0.08)
    assert beyond < 1e-30


def test_in_the_middle_there_is_no_step_from_one_formula_to_the_other() -> None:
    shares = weighted(np.array([0.0, 1.0]), np.array([980, 19]), 1.0)
    assert shares
    for tilt in np.linspace(-1e-4, 1e-4, 50):
        mean, beyond = shares.exceeded(tilt)
        assert beyond == pytest.approx(stats.beta.sf(mean, 20, 980), abs=1e-4)
