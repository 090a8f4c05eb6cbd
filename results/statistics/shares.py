"""One accuracy, and the mean of several, with an interval of 95 %."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """The two ends."""

    low: float
    high: float


def wilson(share: float, images: float) -> Interval:
    """Return the interval of a share of so many images, between 0 and 1 (E. B. Wilson, JASA 22, 1927).

    It covers the choice of the images: if the true share were at one of its ends, what was seen would be as far off as
    chance takes it in 5 % of cases. It has R. G. Newcombe's correction for continuity (method 4, Statistics in Medicine
    17, 1998), by half an image, with which it covers any true share in 95 % of cases or more: without, 92 % at 98 % of
    50 images. Wald's, share ± 1.96 standard errors, takes the standard error at the share that was seen, and that
    vanishes near 100 %: with every image right it has no width at all, it reaches beyond 100 %, and at a true 98 % of
    50 images it misses the truth in a third of cases. Raises ValueError for what is no share.
    """
    if not 0 <= share <= 1 or not images >= 1:
        raise ValueError(f"a share is between 0 and 1 of at least one image, got {share:g} of {images:g}")
    low = 0.0 if share == 0 else 1 - _upper(1 - share, images)
    high = 1.0 if share == 1 else _upper(share, images)
    # At 0 and at 1 rounding may leave the share itself outside.
    return Interval(min(max(low, 0.0), share), max(min(high, 1.0), share))


def _upper(share: float, images: float) -> float:
    from scipy import special

    z2 = float(special.ndtri((1 + CONFIDENCE) / 2)) ** 2
    under = z2 + 2 - 1 / images + 4 * share * (images * (1 - share) - 1)
    return (2 * images * share + z2 + 1 + float(np.sqrt(z2 * max(under, 0.0)))) / (2 * (images + z2))


def mean_interval(values: Sequence[float]) -> Interval:
    """Return Student's interval of the mean of at least two independent values, as of seeds."""
    if len(values) < 2:
        raise ValueError(f"an interval of a mean needs at least 2 values, but there is {len(values)}")
    found = np.asarray(values, dtype=float)
    return student(float(found.mean()), float(found.std(ddof=1)), len(found))


def student(mean: float, deviation: float, number: int) -> Interval:
    """Return Student's interval of the mean of so many independent values, from their standard deviation."""
    from scipy import special

    margin = float(special.stdtrit(number - 1, (1 + CONFIDENCE) / 2)) * deviation / math.sqrt(number)
    return Interval(mean - margin, mean + margin)
