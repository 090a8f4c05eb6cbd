"""Several tests at a time: the more there are, the likelier one of them is wrong."""

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values as corrected for their number, in the same order.

    Where each that is below a level is taken for a difference, at least one of them is wrong with no greater
    probability than the level, however the tests depend on each other (S. Holm, "A simple sequentially rejective
    multiple test procedure", Scand. J. Statist. 6, 1979).
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        corrected[position] = largest
    return corrected
