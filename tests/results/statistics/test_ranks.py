"""Ranks of attentions over backbones: what five backbones can say, and what they cannot."""

import numpy as np
import pytest
from scipy import stats

from results.statistics import rank_over


def test_mean_ranks_with_ties() -> None:
    found = rank_over([[3, 2, 1], [3, 2, 2], [1, 2, 3]])
    assert found.mean == pytest.approx([(1 + 1 + 3) / 3, (2 + 2.5 + 2) / 3, (3 + 2.5 + 1) / 3])
    assert rank_over([[3, 2, 1], [3, 2, 2], [1, 2, 3]], higher_is_better=False).mean == pytest.approx(
        [4 - each for each in found.mean]
    )


def test_two_attentions_in_five_backbones_cannot_differ() -> None:
    """Even if one wins everywhere: a sign test of five has p = 2 / 2^5."""
    found = rank_over([[1, 2]] * 5)
    assert found.p == pytest.approx(0.0625, abs=0.005)
    assert found.mean[0] - found.mean[1] <= found.critical
    six = rank_over([[1, 2]] * 6)
    assert six.p == pytest.approx(0.03125, abs=0.005)
    assert six.mean[0] - six.mean[1] > six.critical


def test_many_backbones_have_friedmans_p_value() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal([0, 0.1, 0.2, 0.3], size=(40, 4))
    assert rank_over(scores.tolist()).p == pytest.approx(stats.friedmanchisquare(*scores.T).pvalue, abs=0.02)


def test_many_backbones_have_nemenyis_critical_difference() -> None:
    scores = np.random.default_rng(1).normal(size=(60, 5))
    nemenyi = stats.studentized_range.ppf(0.95, 5, np.inf) / np.sqrt(2) * np.sqrt(5 * 6 / (6 * 60))
    assert rank_over(scores.tolist()).critical == pytest.approx(nemenyi, rel=0.05)


def test_intervals_stay_among_the_ranks() -> None:
    found = rank_over([[5, 4, 1], [5, 1, 4], [5, 4, 1]])
    assert found.low[0] == 1 < found.high[0]
    assert all(1 <= low <= mean <= high <= 3 for low, mean, high in zip(found.low, found.mean, found.high, strict=True))


def test_first_in_five_of_five_is_not_first_everywhere() -> None:
    """It may be the last in 52 % of backbones: five of them are all others in 0.48^5 = 2.5 % of cases."""
    found = rank_over([[8, 7, 6, 5, 4, 3, 2, 1]] * 5)
    assert (found.low[0], found.high[0]) == pytest.approx((1, 1 + 7 * 0.5218), abs=0.02)
    assert (found.low[-1], found.high[-1]) == pytest.approx((8 - 7 * 0.5218, 8), abs=0.02)


@pytest.mark.parametrize("scores", [[[1, 2]], [[1], [2]], [[1.0, float("nan")], [1.0, 2.0]]])
def test_too_little_to_rank_is_refused(scores: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="ranks need"):
        rank_over(scores)
