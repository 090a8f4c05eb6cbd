"""How often a 95 % interval covers the truth, where the truth is known: `python -m tests.results.statistics.coverage`.

Shares and pairs of 50 images are counted out exactly; with seeds, experiments are drawn. An image is right where a sum
of normal numbers is above a level: its ease for both models, its ease for one of them, the luck of the seed, and noise.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import stats

from results.statistics import mean_interval, paired_difference, paired_shares, wilson

EXACT = 1e-9


class Coverage(NamedTuple):
    """`error`: the standard error of a simulated share, 0 if it is counted out."""

    interval: str
    about: str
    share: float
    error: float


def of_wilson(images: int, accuracy: float) -> Coverage:
    right = np.arange(images + 1)
    covered = [low <= accuracy <= high for low, high in (wilson(each / images, images) for each in right)]
    share = stats.binom.pmf(right, images, accuracy)[covered].sum()
    return Coverage("Wilson", f"{images:,} images, {100 * accuracy:g} %", float(share), 0.0)


def of_pairs(images: int, won: float, lost: float, draws: int, rng: np.random.Generator) -> Coverage:
    truth = won - lost
    about = f"{images:,} images, {100 * won:g} % won, {100 * lost:g} % lost"
    if not draws:
        share = 0.0
        for first in range(images + 1):
            weights = stats.multinomial.pmf(
                [[first, other, images - first - other] for other in range(images + 1 - first)],
                images, [won, lost, 1 - won - lost],
            )  # fmt: skip
            for second, weight in enumerate(np.atleast_1d(weights)):
                if weight > EXACT:
                    found = paired_shares(first, second, images)
                    share += weight * (found.low - EXACT <= truth <= found.high + EXACT)
        return Coverage("Tango", about, float(share), 0.0)
    outcomes = rng.multinomial(images, [won, lost, 1 - won - lost], size=draws)
    found_ = [paired_shares(int(first), int(second), images) for first, second, _ in outcomes]
    share = float(np.mean([found.low <= truth <= found.high for found in found_]))
    return Coverage("Tango", about, share, _error(share, draws))


def of_seeds(
    seeds: int, images: int, accuracy: float, luck: float, gain: float, draws: int, rng: np.random.Generator
) -> Coverage:
    spread = np.sqrt(2.25 + luck**2)
    level = stats.norm.ppf(accuracy) * spread
    truth = 100 * (stats.norm.cdf((level + gain) / spread) - accuracy)
    covered = 0
    for _ in range(draws):
        ease, arms = rng.normal(size=images), []
        for own in (level + gain, level):
            latent = own + ease + 0.5 * rng.normal(size=images) + luck * rng.normal(size=(seeds, 1))
            arms.append(latent + rng.normal(size=(seeds, images)) > 0)
        found = paired_difference(*arms)
        covered += found.low - EXACT <= truth <= found.high + EXACT
    about = f"{seeds} seeds, {images:,} images, {100 * accuracy:g} %, luck {luck:g}"
    return Coverage("paired by image and seed", about, covered / draws, _error(covered / draws, draws))


def of_means(seeds: int, draws: int, rng: np.random.Generator) -> Coverage:
    intervals = [mean_interval(rng.normal(size=seeds).tolist()) for _ in range(draws)]
    share = float(np.mean([low <= 0 <= high for low, high in intervals]))
    return Coverage("Student, a mean of seeds", f"{seeds} seeds", share, _error(share, draws))


def _error(share: float, draws: int) -> float:
    return float(np.sqrt(max(share * (1 - share), 1 / draws) / draws))


def table(draws: int, seed: int = 0) -> Iterator[Coverage]:
    """Every interval in every setting, with so many draws where it is drawn."""
    rng = np.random.default_rng(seed)
    for images in (50, 2_000, 50_000):
        for accuracy in (0.5, 0.8, 0.98):
            yield of_wilson(images, accuracy)
    for won, lost in ((0.02, 0.02), (0.1, 0.1), (0.15, 0.05)):
        yield of_pairs(50, won, lost, 0, rng)
        yield of_pairs(2_000, won, lost, draws, rng)
    for seeds in (2, 3, 5, 10):
        yield of_means(seeds, draws, rng)
    for seeds in (2, 3, 5, 10):
        for images in (50, 1_000):
            for accuracy in (0.8, 0.98):
                for luck, gain in ((0.0, 0.0), (0.1, 0.1), (0.5, 0.3)):
                    yield of_seeds(seeds, images, accuracy, luck, gain, draws, rng)


def main() -> None:
    print("| Interval | Truth | Covered |\n| --- | --- | ---: |")
    for each in table(draws=4_000):
        error = f" ± {100 * each.error:.1f}" if each.error else ""
        print(f"| {each.interval} | {each.about} | {100 * each.share:.1f} %{error} |")


if __name__ == "__main__":
    main()
