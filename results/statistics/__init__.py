"""Accuracies, differences and ranks with their intervals, and what may be said of them.

* `shares`: one accuracy (Wilson), the mean of several (Student); `bounded`: the mean of values between two bounds.
* `mcnemar`: two models on the same images; `paired`: the same with several seeds.
* `several`: many comparisons at a time; `ranks`: attentions over backbones.
"""

from results.statistics.mcnemar import Pair, mid_p, paired_shares
from results.statistics.paired import Difference, paired_difference
from results.statistics.ranks import Ranks, rank_over
from results.statistics.several import holm
from results.statistics.shares import Interval, mean_interval, student, wilson

__all__ = [
    "Difference",
    "Interval",
    "Pair",
    "Ranks",
    "holm",
    "mean_interval",
    "mid_p",
    "paired_difference",
    "paired_shares",
    "rank_over",
    "student",
    "wilson",
]
