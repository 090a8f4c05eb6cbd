"""How often a 95 % interval covers the truth, where the truth is known: `python -m tests.results.statistics.coverage`.

Shares and pairs of 50 images are counted out exactly; with seeds, experiments are drawn. An image is right where a sum
of normal numbers is above a level: its ease for both models, its ease for one of them, the luck of the seed, and noise.
Or the models differ on few images, some of them with every seed. Ranks are drawn from a population of backbones.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from results.statistics import mean_interval, paired_difference, paired_shares, wilson
from results.statistics.bounded import bounded_interval

EXACT = 1e-9


class Coverage(NamedTuple):
    """`error`: the standard error of a simulated share, 0 if it is counted out."""

    interval: str
    about: str
    share: float
    error: float


def of_wilson(images: int, accuracy: float, rng: np.random.Generator | None = None) -> Coverage:
    """Counted out: nothing is drawn."""
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


def of_few(
    seeds: int, images: int, won: float, lost: float, again: float, draws: int, rng: np.random.Generator
) -> Coverage:
    """`won` and `lost`: images, as expected for each seed; `again`: the share of them that differ with every seed."""
    shares = np.array([won, lost]) / images
    of_all, of_one = again * shares, (1 - again) * shares
    truth = 100 * (of_all[0] - of_all[1] + (1 - of_all.sum()) * (of_one[0] - of_one[1]))
    outcomes, times = rng.multinomial(images, [*of_all, 1 - of_all.sum()], size=draws), np.ones(draws, dtype=int)
    if again == 1:
        outcomes, times = np.unique(outcomes, axis=0, return_counts=True)  # all else is the same
    covered = 0
    for (first, second, others), number in zip(outcomes, times, strict=True):
        right = np.zeros((seeds, images), dtype=np.int8)
        right[:, :first], right[:, first : first + second] = 1, -1
        for row in right:
            more, less, _ = rng.multinomial(others, [*of_one, 1 - of_one.sum()])
            at = first + second + rng.choice(others, more + less, replace=False)
            row[at] = np.repeat([1, -1], [more, less])
        found = paired_difference(right > 0, right < 0)
        covered += number * (found.low - EXACT <= truth <= found.high + EXACT)
    about = f"{seeds} seeds, {images:,} images, {won:g} won, {lost:g} lost, {100 * again:g} % with every seed"
    return Coverage("paired by image and seed", about, covered / draws, _error(covered / draws, draws))


def of_ranks(backbones: int, place: str, ranks: dict[float, float], draws: int, rng: np.random.Generator) -> Coverage:
    """`ranks`: the ranks of an attention and the shares of backbones that give it, the largest one the last."""
    values, shares = np.array(list(ranks)), np.array(list(ranks.values()))
    truth, last = float(values @ shares), float(values.max())
    covered = 0.0
    drawn, times = np.unique(rng.multinomial(backbones, shares, size=draws), axis=0, return_counts=True)
    for counts, number in zip(drawn, times, strict=True):
        low, high = bounded_interval(np.repeat(values, counts), 1, last)
        covered += number * (low - EXACT <= truth <= high + EXACT)
    about = f"{backbones} backbones, {last:g} attentions, {place}"
    return Coverage("mean rank", about, covered / draws, _error(covered / draws, draws))


def places(attentions: int) -> dict[str, dict[float, float]]:
    """Return where an attention may rank, with the share of backbones for each rank."""
    ranks = np.arange(1.0, attentions + 1)
    return {
        "first, last in 1 of 20": {1.0: 0.95, float(attentions): 0.05},
        "first, last in 1 of 5": {1.0: 0.8, float(attentions): 0.2},
        "tied with the second in 1 of 5": {1.0: 0.8, 1.5: 0.2, float(attentions): 0.0},
        "any rank alike": dict.fromkeys(ranks.tolist(), 1 / attentions),
    }


def of_means(seeds: int, draws: int, rng: np.random.Generator) -> Coverage:
    intervals = [mean_interval(rng.normal(size=seeds).tolist()) for _ in range(draws)]
    share = float(np.mean([low <= 0 <= high for low, high in intervals]))
    return Coverage("Student, a mean of seeds", f"{seeds} seeds", share, _error(share, draws))


def _error(share: float, draws: int) -> float:
    return float(np.sqrt(max(share * (1 - share), 1 / draws) / draws))


def settings(draws: int) -> Iterator[tuple[Callable[..., Coverage], tuple[Any, ...]]]:
    """Every interval in every setting: a function above and its arguments, without a generator."""
    for images in (50, 2_000, 50_000):
        for accuracy in (0.5, 0.8, 0.98):
            yield of_wilson, (images, accuracy)
    for won, lost in ((0.02, 0.02), (0.1, 0.1), (0.15, 0.05)):
        yield of_pairs, (50, won, lost, 0)
        yield of_pairs, (2_000, won, lost, draws)
    for seeds in (2, 3, 5, 10):
        yield of_means, (seeds, draws)
    for seeds in (2, 3, 5, 10):
        for images in (50, 1_000):
            for accuracy in (0.8, 0.98):
                for luck, gain in ((0.0, 0.0), (0.1, 0.1), (0.5, 0.3)):
                    yield of_seeds, (seeds, images, accuracy, luck, gain, draws)
    few = ((1, 0), (4, 1), (10, 10))
    for seeds in (2, 3, 5, 10):
        for won, lost in few:
            for again in (1.0, 0.5):
                yield of_few, (seeds, 1_000, won, lost, again, draws)
    for images in (50, 10_000, 50_000):
        for won, lost in few:
            yield of_few, (10, images, won, lost, 1.0, draws)
    for backbones in (3, 5, 10, 30):
        for attentions in (2, 8, 22):
            for place, ranks in places(attentions).items():
                yield of_ranks, (backbones, place, ranks, draws)


def table(draws: int) -> Iterator[Coverage]:
    """Every interval in every setting, with so many draws where it is drawn, on all cores."""
    with ProcessPoolExecutor() as pool:
        yield from pool.map(_found, enumerate(settings(draws)))


def _found(setting: tuple[int, tuple[Callable[..., Coverage], tuple[Any, ...]]]) -> Coverage:
    number, (of, arguments) = setting
    return of(*arguments, rng=np.random.default_rng(number))


def main() -> None:
    print("| Interval | Truth | Covered |\n| --- | --- | ---: |")
    for each in table(draws=4_000):
        error = f" ± {100 * each.error:.1f}" if each.error else ""
        print(f"| {each.interval} | {each.about} | {100 * each.share:.1f} %{error} |")


if __name__ == "__main__":
    main()
