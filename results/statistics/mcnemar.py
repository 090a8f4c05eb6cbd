"""Two models on the same images: the images that one of them alone has right, and what they say.

Let the first alone be right on `won` of N images and the second alone on `lost`. Under equal accuracies each of these
won + lost images is a fair coin (Q. McNemar, Psychometrika 12, 1947); the mid-p version of the exact test, which counts
the half of what is as likely as the outcome itself, keeps its level in practice and is less conservative (M. W.
Fagerland, S. Lydersen, P. Laake, BMC Med. Res. Methodol. 13:91, 2013).

The interval of the difference (won - lost) / N is T. Tango's (Statistics in Medicine 17, 1998): the differences that a
score test does not reject, which holds its level where few images differ; Wald's vanishes where none does.
"""

import math
from typing import NamedTuple


class Pair(NamedTuple):
    """The difference and the ends of its 95 % interval, between -1 and 1, and McNemar's mid-p value."""

    difference: float
    low: float
    high: float
    p: float


def paired_shares(won: int, lost: int, images: int) -> Pair:
    """Return what `won` and `lost` of so many images say of the difference of two accuracies."""
    if not 0 <= won + lost <= images or won < 0 or lost < 0 or images < 1:
        raise ValueError(f"of {images} images, {won} and {lost} cannot be those that one model alone has right")
    low, high = _tango(won, lost, images)
    return Pair((won - lost) / images, low, high, mid_p(won, lost))


def mid_p(won: int, lost: int) -> float:
    """Return McNemar's two-sided mid-p value; 1 where no image differs."""
    from scipy import special

    differing, fewer = won + lost, min(won, lost)
    if won == lost:
        return 1.0
    at = special.bdtr(fewer, differing, 0.5) - (special.bdtr(fewer - 1, differing, 0.5) if fewer else 0.0)
    return min(1.0, float(2 * special.bdtr(fewer, differing, 0.5) - at))


def _tango(won: int, lost: int, images: int) -> tuple[float, float]:
    from scipy import optimize, special

    z = float(special.ndtri(0.975))
    share = (won - lost) / images

    def excess(difference: float) -> float:
        return _score(won, lost, images, difference) ** 2 - z * z

    # The score is 0 at the share that was seen, and grows to both sides.
    ends = []
    for end in (-1.0, 1.0):
        limit = end * (1 - 1e-12)
        if excess(limit) <= 0 or abs(share - end) < 1e-12:
            ends.append(end)
        else:
            ends.append(float(optimize.brentq(excess, share, limit, xtol=1e-10)))
    return ends[0], ends[1]


def _score(won: int, lost: int, images: int, difference: float) -> float:
    """Return the score statistic of a difference, with the probability of `lost` as likely as it can be under it."""
    a = 2 * images
    b = -won - lost + (2 * images - won + lost) * difference
    c = -lost * difference * (1 - difference)
    q = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = images * (2 * q + difference * (1 - difference))
    numerator = won - lost - images * difference
    if variance <= 0:
        return 0.0 if abs(numerator) < 1e-12 else math.copysign(math.inf, numerator)
    return numerator / math.sqrt(variance)
