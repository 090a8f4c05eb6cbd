"""Time and memory against the number of tokens: fitted exponents, and from where on an attention is faster.

Every number of tokens is a race of its own, in one process; a ratio never compares two of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from attentions import Grid, Site
from harness.measures.quiet import Watch
from harness.measures.speed import Timer
from harness.racing.candidates import Candidate
from harness.racing.places import Place
from harness.racing.race import Measured, Result, Setup, race

SIDES = (7, 10, 14, 20, 28, 40, 56, 80, 112, 128, 160, 192, 224, 256)
"""Sides of square grids, of about twice as many tokens each, among them those of the backbones' maps."""

EXACT = 4096
"""Most tokens at which a candidate is compared with float64, but for the first place: beyond, that may not fit."""

UPPER = 3
"""Points of the upper part, through which the exponent is fitted; fewer have no interval."""


@dataclass(frozen=True)
class Exponent:
    """Of N, by which a time grows at its last points; its 95 % interval. None where there are fewer than `UPPER`."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Crossover:
    """Tokens from which on an attention is faster than the first one, and the interval in which that is decided.

    low: the most tokens at which it was decided that it is slower, or None; high: the fewest from which on it is
    decided at every point that it is faster, or None. `tokens` is between, where the ratio passes 1.
    """

    tokens: float | None
    low: int | None
    high: int | None


def places_between(least: int, most: int, dim: int, heads: int) -> list[Place]:
    """Return square sites with about twice as many tokens each, from `least` to `most`.

    Raises:
        ValueError: for less than two.
    """
    sides = [side for side in SIDES if least <= side * side <= most]
    if len(sides) < 2:
        allowed = ", ".join(str(side * side) for side in SIDES)
        raise ValueError(f"--tokens {least}:{most}: it takes a range with two or more of {allowed}")
    grids = [Grid(side, side) for side in sides]
    return [Place(str(grid.tokens), Site(dim, heads, grid, grid)) for grid in grids]


def scale(
    candidates: Sequence[Candidate],
    places: Sequence[Place],
    setup: Setup,
    report: Callable[[str], None],
    *,
    timed: Timer | None = None,
    watching: Watch | None = None,
) -> list[Measured]:
    """Race candidates at each place, fewest tokens first.

    One that ran out of memory, or failed otherwise, is left out from there on, with the same problem.
    """
    found: list[Measured] = []
    failed: dict[str, Result] = {}
    for place in places:
        left = [each for each in candidates if each.label not in failed]
        own = replace(setup, gate=place is places[0] or place.site.queries.tokens <= EXACT)
        measured = race(left, place, own, report, timed=timed, watching=watching) if left else Measured(place.label, ())
        failed |= {each.candidate: each for each in measured.results if each.problem}
        by_name = {each.candidate: each for each in measured.results}
        results = tuple(
            by_name.get(each.label) or replace(failed[each.label], checked="not tried: fewer tokens failed")
            for each in candidates
        )
        if candidates[0].label in failed:
            # Whoever is first among those that are left is no baseline.
            results = tuple(replace(each, ratio=None) for each in results)
        ran = tuple(at for at, each in enumerate(results) if each.seconds)
        found.append(replace(measured, results=results, ran=ran))
    return found


def exponent(tokens: Sequence[int], results: Sequence[Result]) -> Exponent | None:
    """Fit the exponent of N to the medians at the last points, on logarithms by least squares.

    The interval is that of Student's t for the slope: how far the points are from a line, not only how noisy each is.
    """
    from scipy.stats import t

    points = [
        (math.log(n), math.log(each.quartiles[1])) for n, each in zip(tokens, results, strict=True) if each.seconds
    ]
    upper = points[-max(UPPER, math.ceil(len(points) / 2)) :]
    if len(upper) < UPPER:
        return None
    n = len(upper)
    middle_x, middle_y = (sum(values) / n for values in zip(*upper, strict=True))
    spread = sum((x - middle_x) ** 2 for x, _ in upper)
    slope = sum((x - middle_x) * (y - middle_y) for x, y in upper) / spread
    off = sum((y - middle_y - slope * (x - middle_x)) ** 2 for x, y in upper)
    half = float(t.ppf(0.975, n - 2)) * math.sqrt(off / (n - 2) / spread)
    return Exponent(slope, slope - half, slope + half)


def crossover(tokens: Sequence[int], results: Sequence[Result]) -> Crossover:
    """Return from how many tokens on a candidate is faster than the baseline ("efficiency length").

    Between the last point at which it is slower and the next, the ratio is interpolated on logarithms.
    """
    points = [(n, each.ratio) for n, each in zip(tokens, results, strict=True) if each.ratio is not None]
    slower = [n for n, ratio in points if ratio.decided and ratio.value > 1]
    after = [(n, ratio) for n, ratio in points if not slower or n > slower[-1]]
    from_here: list[int] = []
    for n, ratio in reversed(after):
        if not (ratio.decided and ratio.value < 1):
            break
        from_here.append(n)
    passed: float | None = None
    for (n, ratio), (m, later) in pairwise(points):
        if ratio.value >= 1 > later.value:
            share = math.log(ratio.value) / (math.log(ratio.value) - math.log(later.value))
            passed = math.exp(math.log(n) + share * (math.log(m) - math.log(n)))
        elif later.value >= 1:
            passed = None
    return Crossover(passed, slower[-1] if slower else None, from_here[-1] if from_here else None)
