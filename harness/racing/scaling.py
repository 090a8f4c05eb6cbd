"""Time and memory against the number of tokens: fitted exponents, and from where on an attention is faster.

Every size, of a map or of an image, is a race of its own, in one process; a ratio never compares two of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from attentions import Grid, Site
from backbones import BackboneSpec
from harness.measures.quiet import Watch
from harness.measures.resolved import windows_of
from harness.measures.speed import Timer
from harness.racing.candidates import Candidate, in_model
from harness.racing.places import Place
from harness.racing.race import Measured, Result, Setup, race

SIDES = (7, 10, 14, 20, 28, 40, 56, 80, 112, 128, 160, 192, 224, 256)
"""Sides of square grids, of about twice as many tokens each, among them those of the backbones' maps."""

STEP = 32
"""What sides of images are multiples of: by so much a backbone of four stages reduces them."""

APART = 1.25
"""Least ratio of the sides of an image to those of the next smaller one."""

EXACT = 4096
"""Most tokens at which a candidate is compared with float64, but for the first size: beyond, that may not fit."""

UPPER = 3
"""Fewest points of the upper half, through which an exponent is fitted; fewer have no interval."""


@dataclass(frozen=True)
class Size:
    """Where candidates are raced: at a square map of `number` tokens, or as models of images of `number` pixels a side.

    `tokens`: of the map, or of a model's first. `windows`: which tokens meet in a model, as `show` says it.
    """

    number: int
    tokens: int
    candidates: tuple[Candidate, ...]
    place: Place | None = None
    windows: str | None = None


@dataclass(frozen=True)
class Exponent:
    """Of the number of tokens, by which something grows at its last points; its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Crossover:
    """The size (`Size.number`) from which on an attention is faster than the first, and where that is decided.

    low: the largest size at which it was decided that it is slower, or None; high: the smallest from which on it is
    decided at every point that it is faster, or None. `at`: where the ratio passes 1, decided or not; None if it does
    not, or not for good.
    """

    at: float | None
    low: int | None
    high: int | None

    @property
    def decided(self) -> bool:
        """Whether it is known on both sides of it which of the two is faster."""
        return self.low is not None and self.high is not None


def maps_between(candidates: Sequence[Candidate], least: int, most: int, dim: int, heads: int) -> list[Size]:
    """Return square maps with about twice as many tokens each, from `least` to `most`.

    Raises:
        ValueError: for less than two.
    """
    sides = [side for side in SIDES if least <= side * side <= most]
    if len(sides) < 2:
        allowed = ", ".join(str(side * side) for side in SIDES)
        raise ValueError(f"--tokens {least}:{most}: it takes a range with two or more of {allowed}")
    grids = [Grid(side, side) for side in sides]
    places = [Place(str(grid.tokens), Site(dim, heads, grid, grid)) for grid in grids]
    return [Size(place.site.queries.tokens, place.site.queries.tokens, tuple(candidates), place) for place in places]


def images_between(candidates: Sequence[Candidate], backbone: str, least: int, most: int) -> list[Size]:
    """Return square images, from `least` to `most` pixels a side, at which a preset takes all of the attentions.

    Sides are multiples of `STEP`, each `APART` times the one before, or more.

    Raises:
        ValueError: for less than two, and as `in_model` does.
    """
    for each in candidates:
        in_model(each, backbone)
    found: list[Size] = []
    for side in range(math.ceil(least / STEP) * STEP, most + 1, STEP):
        if found and side < APART * found[-1].number:
            continue
        try:
            models = tuple(in_model(each, backbone, side) for each in candidates)
        except ValueError:  # no such size
            continue
        first = models[0].reference
        assert isinstance(first, BackboneSpec)
        found.append(Size(side, first.mounts()[0].grid.tokens, models, windows=windows_of(first)))
    if len(found) < 2:
        sizes = ", ".join(str(each.number) for each in found) or "none"
        raise ValueError(
            f"--image-size {least}:{most}: it takes a range with two or more sizes of {backbone}, not {sizes}"
        )
    return found


def scale(
    sizes: Sequence[Size],
    setup: Setup,
    report: Callable[[str], None],
    *,
    timed: Timer | None = None,
    watching: Watch | None = None,
) -> list[Measured]:
    """Race candidates at each size, the smallest first.

    One that ran out of memory, or failed otherwise, is left out from there on, with the same problem.
    """
    found: list[Measured] = []
    failed: dict[str, Result] = {}
    for size in sizes:
        left = [each for each in size.candidates if each.label not in failed]
        own = replace(setup, gate=size is sizes[0] or size.tokens <= EXACT)
        said = report if size.place else partial(_of_images, size.number, report)
        measured = race(left, size.place, own, said, timed=timed, watching=watching) if left else Measured("", ())
        failed |= {each.candidate: each for each in measured.results if each.problem}
        by_name = {each.candidate: each for each in measured.results}
        results = tuple(
            by_name.get(each.label) or replace(failed[each.label], checked="not tried: a smaller size failed")
            for each in size.candidates
        )
        if size.candidates[0].label in failed:
            # Whoever is first among those that are left is no baseline.
            results = tuple(replace(each, ratio=None) for each in results)
        ran = tuple(at for at, each in enumerate(results) if each.seconds)
        found.append(replace(measured, place=str(size.number), results=results, ran=ran))
    return found


def _of_images(side: int, report: Callable[[str], None], line: str) -> None:
    report(f"{side}x{side} {line}")


def exponent(sizes: Sequence[Size], values: Sequence[float | None]) -> Exponent | None:
    """Fit the exponent of the number of tokens to the last of the values, on logarithms by least squares.

    A value of None or 0 is no point; fewer than `UPPER` have no exponent. The interval is that of Student's t for the
    slope: how far the points are from a line, not only how noisy each is.
    """
    from scipy.stats import t

    points = [(math.log(size.tokens), math.log(value)) for size, value in zip(sizes, values, strict=True) if value]
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


def exponents(sizes: Sequence[Size], results: Sequence[Result]) -> dict[str, Exponent | None]:
    """Return the exponents of a candidate's median time, of its peak of memory and of what it saves for backward."""
    return {
        "seconds": exponent(sizes, [each.quartiles[1] if each.seconds else None for each in results]),
        "peak_mib": exponent(sizes, [each.peak_mib for each in results]),
        "saved_mib": exponent(sizes, [each.saved_mib for each in results]),
    }


def crossover(sizes: Sequence[Size], results: Sequence[Result]) -> Crossover:
    """Return from which size on a candidate is faster than the baseline ("efficiency length").

    Between the last point at which it is slower and the next, the ratio is interpolated on logarithms.
    """
    points = [(size.number, each.ratio) for size, each in zip(sizes, results, strict=True) if each.ratio is not None]
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
