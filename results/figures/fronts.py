"""Which points no other one beats: the Pareto front as measured, and what of it 95 % intervals allow to say."""

from collections.abc import Sequence
from typing import NamedTuple


class Costed(NamedTuple):
    """A cost, of which less is better, and an accuracy with its interval; NaN: it is not known."""

    cost: float
    accuracy: float
    low: float
    high: float


def front(points: Sequence[Costed]) -> list[bool]:
    """Return for each point whether it is on the front: none is at least as good in both, and better in one."""
    return [not any(_beats(other, point) for other in points) for point in points]


def _beats(one: Costed, other: Costed) -> bool:
    at_least = one.cost <= other.cost and one.accuracy >= other.accuracy
    return at_least and (one.cost < other.cost or one.accuracy > other.accuracy)


def dominated(points: Sequence[Costed]) -> list[bool]:
    """Return for each point whether it is dominated at 95 %.

    It is where another one costs no more and is surely more accurate: its 95 % interval lies above that of the point,
    without touching it. Two intervals of 95 % that do not touch are rarer by chance than 5 %: of two attentions that
    are equal in truth, one is called dominated in about 0.3 % of figures, and of a dozen any in about a tenth. What is
    not dominated is not thereby good: nothing that was measured shows that another one is better.
    """
    return [any(other.cost <= point.cost and other.low > point.high for other in points) for point in points]
