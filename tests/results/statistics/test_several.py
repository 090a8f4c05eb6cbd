"""Corrected p-values: known ones, their order, and how often a table without a difference says there is one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from results.statistics import holm


def test_known_values() -> None:
    # 4 x 0.005, 3 x 0.01, 2 x 0.03; 0.04 is below what came before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2]) == [0.2]
    assert holm([0.7, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=20))
def test_they_keep_their_order_and_only_grow(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(p <= found <= 1 for p, found in zip(p_values, corrected, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert sorted(corrected) == [corrected[position] for position in order]


@pytest.mark.parametrize("shared", [0.0, 0.9], ids=["independent", "against one baseline"])
def test_of_twenty_tables_without_a_difference_at_most_one_finds_some(shared: float) -> None:
    from scipy.special import ndtr

    rng = np.random.default_rng(1)
    common = np.sqrt(shared) * rng.standard_normal((20_000, 1))
    statistic = common + np.sqrt(1 - shared) * rng.standard_normal((20_000, 6))
    p_values = 2 * ndtr(-np.abs(statistic))
    wrong = np.mean([min(holm(row)) < 0.05 for row in p_values.tolist()])
    assert wrong < 0.055
    assert np.mean((p_values < 0.05).any(axis=1)) > 0.1, "uncorrected, far more of them would"
