"""The front, and what is dominated at 95 %."""

import numpy as np

from results.figures.fronts import Costed, dominated, front
from results.statistics import wilson


def test_the_front() -> None:
    points = [
        Costed(1, 70, 69, 71),
        Costed(2, 80, 79, 81),
        Costed(3, 79, 78, 80),  # dearer and worse than the second
        Costed(2, 80, 79, 81),  # the same as the second: neither beats the other
        Costed(2, 75, 74, 76),  # as dear, and worse
        Costed(4, 80, 79, 81),  # as good, and dearer
        Costed(5, 90, 89, 91),
    ]
    assert front(points) == [True, True, False, True, False, False, True]
    assert front([]) == []


def test_dominated_is_said_only_where_intervals_part() -> None:
    best = Costed(2, 80, 79, 81)
    for point, expected in (
        (Costed(3, 77, 76, 78), True),
        (Costed(2, 77, 76, 78), True),  # as dear
        (Costed(1, 77, 76, 78), False),  # cheaper
        (Costed(3, 78, 77, 79), False),  # they touch
        (Costed(3, 79.9, 78.9, 80.9), False),
        (Costed(3, 80, 80, 80), False),  # off the front, but not surely worse
    ):
        assert dominated([best, point]) == [False, expected], point
    unknown = Costed(2, 80, float("nan"), float("nan"))
    assert dominated([unknown, Costed(3, 10, 9, 11)]) == [False, False]


def test_equal_attentions_are_seldom_called_dominated() -> None:
    """As the function says: two of the same true accuracy in 0.3 % of figures, any of a dozen in a tenth."""
    rng = np.random.default_rng(0)
    wrong = {2: 0, 12: 0}
    for right in rng.binomial(2000, 0.8, (1000, 12)):
        points = [Costed(cost, n / 2000, *wilson(n / 2000, 2000)) for cost, n in enumerate(right)]
        for number in wrong:
            wrong[number] += any(dominated(points[:number]))
    assert wrong[2] < 10
    assert 50 < wrong[12] < 150
