"""Attentions ranked over backbones: which is first most often, and how little a handful of backbones can say.

Each backbone ranks the attentions: 1 is the best, ties share the mean of their ranks. Without any difference, each
order of them would be as likely as any other, in each backbone by itself. What is seen is compared with orders drawn
so: for M. Friedman's question, whether the mean ranks differ at all (JASA 32, 1937), and for P. Nemenyi's critical
difference (1963; J. Demsar, JMLR 7, 2006), which two mean ranks exceed by chance anywhere in a table in 5 % of cases.
The usual tables of both hold for many backbones; with five, an attention that is ahead in each of them has p = 0.06.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from results.statistics.bounded import bounded_interval

DRAWS = 20_000
"""Tables of orders drawn; with a fixed seed, so that the same scores have the same answer."""


class Ranks(NamedTuple):
    """`mean` and the ends of its 95 % interval, for each attention; `critical`: two means differ if by more than this;
    `p`: of the hypothesis that all attentions rank alike; `backbones`: of how many the ranks are.
    """

    mean: list[float]
    low: list[float]
    high: list[float]
    critical: float
    p: float
    backbones: int


def rank_over(scores: Sequence[Sequence[float]], higher_is_better: bool = True) -> Ranks:
    """Return the ranks of attentions from their scores: a row per backbone, a column per attention.

    The interval of a mean rank is for the mean over all backbones like these, of which these are a sample. Nothing is
    assumed of them but that a rank is between 1 and the number of attentions (`results.statistics.bounded`): that an
    attention is first in five of five does not tell what it is in one of ten.

    Raises ValueError for fewer than two of either, and for a score that is missing.
    """
    from scipy import stats

    found = np.asarray(scores, dtype=float)
    if found.ndim != 2 or min(found.shape) < 2:
        raise ValueError(f"ranks need at least 2 backbones and 2 attentions, but the scores are {found.shape}")
    if np.isnan(found).any():
        raise ValueError("ranks need a score of every attention in every backbone")
    backbones, attentions = found.shape
    ranks = stats.rankdata(-found if higher_is_better else found, axis=1)
    mean = ranks.mean(axis=0)
    intervals = [bounded_interval(each, 1, attentions) for each in ranks.T]
    drawn = np.random.default_rng(0).permuted(np.broadcast_to(ranks, (DRAWS, *ranks.shape)), axis=2).mean(axis=1)
    as_unlike = (_unlikeness(drawn) >= _unlikeness(mean) - 1e-9).sum()
    return Ranks(
        mean.tolist(),
        [each.low for each in intervals],
        [each.high for each in intervals],
        float(np.quantile(np.ptp(drawn, axis=1), 0.95, method="higher")),
        float((1 + as_unlike) / (1 + DRAWS)),
        backbones,
    )


def _unlikeness(means: np.ndarray) -> np.ndarray:
    """Return Friedman's statistic but for a factor: the sum of squares of the mean ranks about their own mean."""
    middle = (means.shape[-1] + 1) / 2
    squares: np.ndarray = ((means - middle) ** 2).sum(axis=-1)
    return squares
