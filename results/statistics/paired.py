"""Two accuracies compared on the same images and seeds, with an honest interval and a test.

Let D[s, i] in {-1, 0, 1} be whether an arm has image i right with seed s, minus the same for the
baseline. Seeds and images are both samples (of all seeds, and of all images of this kind), and each seed meets each
image: crossed random effects without replication. With S seeds and N images and the mean squares of the two-way
analysis of variance (J. Cornfield, J. W. Tukey, "Average values of mean squares in factorials", Ann. Math. Statist. 27,
1956),

    E[MS_seed] = residual + N seed,  E[MS_image] = residual + S image,  E[MS_residual] = residual,

the grand mean of D has the variance (MS_seed + (MS_image - MS_residual)) / (S N). The first part is known from S - 1
degrees of freedom only, the second from about N - 1. Each gets its own quantile of Student's t, and the margins add as
squares (W. G. Howe, "Approximate confidence limits on the mean of X + Y", JASA 69, 1974):

    margin^2 = (t(S-1)^2 MS_seed + t(N-1)^2 max(MS_image - MS_residual, 0)) / (S N)

and never less than the margin over images alone, t(N-1)^2 MS_image / (S N), which a seed part that comes out small by
chance would undercut. An accuracy is a multiple of 1 / N, so MS_seed is taken to be at least N times the variance of
such a rounding, 1 / (12 N^2): that two seeds differ by nothing on 50 images does not show that there is no noise. In
simulations (tests/results/statistics/coverage.py) these 95 % intervals cover the truth in 94 to 100 % of experiments
with 2 to 10 seeds, whichever part dominates, on 50 images at 98 % too: conservative, as two margins are joined, each at
its own quantile. One t with Satterthwaite's degrees of freedom covers 88 % with 2 seeds and 92 % with 3 where the seed
dominates, since a seed part that is small by chance also looks well known. The p-value is the level at which the
interval just reaches 0: its test rejects where the interval excludes 0.

With one seed there is only the choice of the images: `results.statistics.mcnemar` has a test and an interval for it.
"""

from typing import NamedTuple

import numpy as np

from results.statistics.mcnemar import paired_shares

CONFIDENCE = 0.95
_SMALLEST = 1e-15
"""The smallest p-value that is told from 0."""


class Difference(NamedTuple):
    """The mean of ours minus the baseline and the ends of its 95 % interval, in percentage points, and the p-value."""

    points: float
    low: float
    high: float
    p: float


class _Variance(NamedTuple):
    """What the squared margin of a mean is made of: each part times the squared quantile for its degrees of freedom."""

    seeds: float
    beyond_seeds: float
    images: float
    freedom: tuple[int, int]  # of seeds, of images

    def margin(self, level: float) -> float:
        """Return half the width of the interval that misses the truth with this probability."""
        of_seeds, of_images = (_quantile(number, level) ** 2 for number in self.freedom)
        both = of_seeds * self.seeds + of_images * self.beyond_seeds
        return float(np.sqrt(max(both, of_images * self.images)))


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
    right = ours.astype(float) - baseline
    mean = float(right.mean())
    variance = _variance(right)
    margin = variance.margin(1 - CONFIDENCE)
    return Difference(100 * mean, 100 * (mean - margin), 100 * (mean + margin), _p_value(mean, variance))


def _variance(right: np.ndarray) -> _Variance:
    seeds, images = right.shape
    of_seeds, of_images = right.mean(axis=1), right.mean(axis=0)
    image_square = seeds * of_images.var(ddof=1)
    seed_square = max(images * of_seeds.var(ddof=1), 1 / (12 * images))
    residuals = right - of_seeds[:, None] - of_images + right.mean()
    residual_square = (residuals**2).sum() / ((seeds - 1) * (images - 1))
    beyond_seeds = max(image_square - residual_square, 0.0)
    size = seeds * images
    return _Variance(seed_square / size, beyond_seeds / size, image_square / size, (seeds - 1, images - 1))


def _p_value(mean: float, variance: _Variance) -> float:
    from scipy import optimize  # as special

    if mean == 0:
        return 1.0
    if variance.margin(_SMALLEST) < abs(mean):
        return 0.0
    # In logarithms, as tails are.
    found = optimize.brentq(lambda power: variance.margin(10**power) - abs(mean), np.log10(_SMALLEST), 0, xtol=1e-9)
    return float(10**found)


def _quantile(freedom: int, level: float) -> float:
    from scipy import special  # its import is half of the start-up time of a command without torch

    return -float(special.stdtrit(freedom, level / 2))
