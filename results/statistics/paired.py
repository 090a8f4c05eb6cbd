"""Two accuracies compared on the same images and seeds, with an honest interval and a test.

Let D[s, i] in {-1, 0, 1} be whether an arm has image i right with seed s, minus the same for the
baseline. Seeds and images are both samples (of all seeds, and of all images of this kind), and each seed meets each
image: crossed random effects without replication. With S seeds and N images and the mean squares of the two-way
analysis of variance (J. Cornfield, J. W. Tukey, "Average values of mean squares in factorials", Ann. Math. Statist. 27,
1956),

    E[MS_seed] = residual + N seed,  E[MS_image] = residual + S image,  E[MS_residual] = residual,

the grand mean of D has the variance (MS_seed + (MS_image - MS_residual)) / (S N). The first part is known from S - 1
degrees of freedom only, so it gets that quantile of Student's t. The second part gets the margin m that
`results.statistics.bounded` has for the N means over the seeds, which lie between -1 and 1; and that margin is due to
the variance MS_image / (S N), so a part of it has its share. The two add as squares (W. G. Howe, "Approximate
confidence limits on the mean of X + Y", JASA 69, 1974):

    margin^2 = t(S-1)^2 MS_seed / (S N) + m^2 max(MS_image - MS_residual, 0) / MS_image

and never less than the margin over images alone, m, which a seed part that comes out small by chance would undercut.
Towards 0 and away from it the margins differ, as m does. With a quantile of t in its place an image that differs with
each seed, but is one in a thousand, goes unnoticed where none of them is seen: with ten seeds that differ by nothing
and one image won, such intervals cover the truth in 63 % of experiments.

An accuracy is a multiple of 1 / N, so MS_seed is taken to be at least N times the variance of such a rounding,
1 / (12 N^2): that two seeds differ by nothing on 50 images does not show that there is no noise. In simulations
(tests/results/statistics/coverage.py) these 95 % intervals cover the truth in 94 to 100 % of experiments with 2 to 10
seeds, whichever part dominates, on 50 images at 98 % too: conservative, as two margins are joined, each at its own
quantile, and m is by itself. One t with Satterthwaite's degrees of freedom covers 88 % with 2 seeds and 92 % with 3
where the seed dominates, since a seed part that is small by chance also looks well known. The p-value is the level at
which the interval just reaches 0: its test rejects where the interval excludes 0.

With one seed there is only the choice of the images: `results.statistics.mcnemar` has a test and an interval for it.
"""

from typing import NamedTuple

import numpy as np

from results.statistics.bounded import Weighted, upper_end, weighted
from results.statistics.mcnemar import paired_shares
from results.statistics.shares import CONFIDENCE

_SMALLEST = 1e-15
"""The smallest p-value that is told from 0."""


class Difference(NamedTuple):
    """The mean of ours minus the baseline and the ends of its 95 % interval, in percentage points, and the p-value."""

    points: float
    low: float
    high: float
    p: float


class _Side(NamedTuple):
    """One side of a mean, where an interval reaches up: the means of images and one more, and what the seeds add."""

    images: Weighted | None  # None where each is 1
    mean: float
    of_seeds: float  # MS_seed / (S N)
    beyond_seeds: float  # the share of MS_image that MS_seed does not have
    freedom: int  # of the seeds

    def margin(self, level: float, end: float) -> float:
        """Return the whole margin, given the end over images alone that belongs to the level."""
        square, of_images = _quantile(self.freedom, level) ** 2, max(end - self.mean, 0.0) ** 2
        return float(np.sqrt(max(square * self.of_seeds + self.beyond_seeds * of_images, of_images)))

    def reach(self) -> float:
        """Return the margin of the 95 % interval."""
        level = 1 - CONFIDENCE
        return self.margin(level, upper_end(self.images, level / 2) if self.images else 1.0)

    def p_value(self) -> float:
        """Return the level at which the interval just reaches 0, of a mean that is not above 0."""
        from scipy import optimize  # as special

        if self.mean == 0 or not self.images:
            return 1.0
        images = self.images

        def reached(tilt: float) -> tuple[float, float]:
            end, beyond = images.exceeded(tilt)
            level = min(max(2 * beyond, _SMALLEST), 1.0)
            return level, self.margin(level, end) + self.mean

        least, largest = images.tilts()
        tilt = optimize.brentq(lambda tilt: reached(tilt)[1], least, largest, xtol=1e-12 * largest)
        level = reached(float(tilt))[0]
        return level if level > _SMALLEST else 0.0


def paired_difference(ours: np.ndarray, baseline: np.ndarray) -> Difference:
    """Return the difference of two accuracies from which images were right: (seeds, images) bools, row by row one seed.

    The method is described at the top of this file. With one seed the interval covers only the choice of images.
    Raises ValueError for fewer than two images.
    """
    assert ours.shape == baseline.shape, (ours.shape, baseline.shape)
    images = ours.shape[1]
    if images < 2:
        raise ValueError(f"an interval needs at least 2 images, but there is {images}")
    if len(ours) == 1:
        won, lost = (int((one & ~other).sum()) for one, other in ((ours, baseline), (baseline, ours)))
        found = paired_shares(won, lost, images)
        return Difference(100 * found.difference, 100 * found.low, 100 * found.high, found.p)
    low, high = _sides(ours.astype(float) - baseline)
    mean = high.mean
    p = (low if mean > 0 else high).p_value()
    return Difference(100 * mean, 100 * (mean - low.reach()), 100 * (mean + high.reach()), p)


def _sides(right: np.ndarray) -> tuple[_Side, _Side]:
    """Return both sides, the lower one as the upper one of what is turned around."""
    seeds, images = right.shape
    of_seeds, sums = right.mean(axis=1), right.sum(axis=0)
    mean = float(right.mean())
    values, counts = np.unique(sums, return_counts=True)
    image_square = seeds * (sums / seeds).var(ddof=1)
    seed_square = max(images * of_seeds.var(ddof=1), 1 / (12 * images))
    residual_square = ((right - of_seeds[:, None] - sums / seeds + mean) ** 2).sum() / ((seeds - 1) * (images - 1))
    beyond_seeds = max(1 - residual_square / image_square, 0.0) if len(values) > 1 else 1.0
    parts = seed_square / (seeds * images), beyond_seeds, seeds - 1
    low, high = weighted(-values / seeds, counts, 1.0), weighted(values / seeds, counts, 1.0)
    return _Side(low, -mean, *parts), _Side(high, mean, *parts)


def _quantile(freedom: int, level: float) -> float:
    from scipy import special  # its import is half of the start-up time of a command without torch

    return -float(special.stdtrit(freedom, level / 2))
