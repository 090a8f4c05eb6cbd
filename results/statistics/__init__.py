"""Differences, and what may be said of them."""

from results.statistics.paired import Difference, paired_difference
from results.statistics.several import holm

__all__ = ["Difference", "holm", "paired_difference"]
