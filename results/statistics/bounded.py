"""The mean of values that lie between two bounds, such as ranks and shares, with nothing assumed of how they spread.

Student's interval takes the spread from the values, and values that gather at a bound hide it: if five of five ranks
are 1, nothing tells how often another rank comes. N. Gaffke's bound ("Three test statistics for a nonparametric
one-sided hypothesis on the mean of a nonnegative variable", Math. Methods Statist. 14, 2005; E. Learned-Miller, P. S.
Thomas, arXiv:1905.06208) adds one value, at the upper bound for the upper end and at the lower for the lower, and draws
weights of all n + 1 values, any weights that sum to 1 being as likely as any other. The upper end is the mean that the
weighted mean exceeds in 2.5 % of draws, the lower end the one that it stays below.

For values at the bounds alone these are the ends of C. J. Clopper and E. S. Pearson (Biometrika 26, 1934), so for them
no end that holds for every share is nearer. That the bound holds for every population is conjectured and unproven; in
no simulation has it failed. With many values it is Student's interval.

Weights such as these are exponential numbers divided by their sum, so that the weighted mean exceeds m where a sum of
(value - m) times an exponential number exceeds 0. The probability is approximated at the saddlepoint (R. Lugannani, S.
Rice, Adv. Appl. Probab. 12, 1980, in the form of O. E. Barndorff-Nielsen, Biometrika 73, 1986), and with two values or
more the ends are right to 0.3 % of the distance between the bounds. A tilt says which m is meant: m is the mean of the
values where each weighs 1 / (1 - tilt (value - their mean)), so that the saddlepoint needs no search of its own.
"""

from typing import NamedTuple

import numpy as np

from results.statistics.shares import CONFIDENCE, Interval


class Weighted(NamedTuple):
    """Distinct values, the added one among them, as distances from their mean, and how often each is there."""

    mean: float
    away: np.ndarray
    number: np.ndarray

    def tilts(self) -> tuple[float, float]:
        """Return the tilts between which there is a mean for each, from the least value to the largest."""
        return (1 - 1e-13) / float(self.away.min()), (1 - 1e-13) / float(self.away.max())

    def exceeded(self, tilt: float) -> tuple[float, float]:
        """Return the mean that belongs to a tilt, and the probability that the weighted mean exceeds it."""
        from scipy import special

        weights = self.number / (1 - tilt * self.away)
        shift = float(weights @ self.away / weights.sum())
        # The sum has the cumulant generating function -sum(number log(1 - tilt away)), and here is its saddlepoint.
        away, tilt = self.away - shift, tilt / (1 - tilt * shift)
        tilted = away / (1 - tilt * away)
        variance = float(self.number @ tilted**2)
        half = float(self.number @ np.log1p(-tilt * away))
        root = float(np.sign(tilt) * np.sqrt(max(2 * half, 0.0)))
        if abs(root) > 1e-4:
            root += float(np.log(tilt * np.sqrt(variance) / root)) / root
        else:
            root += float(self.number @ tilted**3) / variance**1.5 / 3  # what the line above tends to
        return self.mean + shift, float(special.ndtr(-root))


def weighted(values: np.ndarray, counts: np.ndarray, most: float) -> Weighted | None:
    """Return the values, each as often as `counts`, and one more at `most`; None if they are all there."""
    if (values == most).all():
        return None
    both, number = np.append(values, most), np.append(counts, 1.0)
    mean = float(np.average(both, weights=number))
    return Weighted(mean, both - mean, number)


def upper_end(of: Weighted, beyond: float) -> float:
    """Return the mean that the weighted mean exceeds with probability `beyond`, below a third."""
    from scipy import optimize

    largest = of.tilts()[1]
    tilt = optimize.brentq(lambda tilt: of.exceeded(tilt)[1] - beyond, 0.0, largest, xtol=1e-12 * largest)
    return of.exceeded(float(tilt))[0]


def bounded_interval(values: np.ndarray, least: float, most: float) -> Interval:
    """Return the 95 % interval of a mean from independent values, none of them below `least` or above `most`."""
    found, counts = np.unique(values, return_counts=True)
    assert least <= found[0] <= found[-1] <= most, (least, found, most)
    above, below = weighted(found, counts, most), weighted(-found, counts, -least)
    beyond = (1 - CONFIDENCE) / 2
    return Interval(-upper_end(below, beyond) if below else least, upper_end(above, beyond) if above else most)
