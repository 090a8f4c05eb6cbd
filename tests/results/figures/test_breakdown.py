"""The parts of the multiply-adds are those of the frame, and are told apart in grey."""

import itertools
from typing import Any

import pandas as pd
import pytest

from results.figures import breakdown
from results.figures.breakdown import PARTS
from results.tables import BREAKDOWN
from tests.results.figures.common import FASHION, QUICKSTART, check, frame_of, texts_of, values
from tests.results.figures.test_styles import EYES, lab


def test_it_draws_the_parts(capfd: Any) -> None:
    frame = frame_of(QUICKSTART)
    figure = breakdown(frame)
    check(figure, capfd)
    columns = ["backbone", "attention", "gmacs", *(f"gmacs_{part}" for part in PARTS)]
    order = ["backbone", "attention"]
    pd.testing.assert_frame_equal(
        figure.data[columns].sort_values(order).reset_index(drop=True),
        frame[columns].sort_values(order).reset_index(drop=True),
    )
    bars = values(figure, "rect")
    assert len(bars) == 8 * 4
    assert [bar["end"] - bar["start"] for bar in bars] == pytest.approx([bar["gmacs"] for bar in bars])
    assert max(bar["end"] for bar in bars) == pytest.approx(frame["gmacs"].max())
    written = texts_of(figure)
    for text in (*PARTS, "cswin_micro", "softmax", "0.00847"):
        assert text in written
    assert any("FLOPs" in line for line in figure.notes)


def test_parts_are_all_that_gmacs_count() -> None:
    assert {f"gmacs_{part}" for part in PARTS} == set(BREAKDOWN) - {"gmacs_norms"}
    frame = frame_of(QUICKSTART)
    assert frame[[f"gmacs_{part}" for part in PARTS]].sum(axis=1).to_list() == pytest.approx(frame["gmacs"].to_list())


def test_parts_are_told_apart_by_all_eyes_and_in_grey() -> None:
    for one, two in itertools.combinations(PARTS.values(), 2):
        assert all(abs(lab(one, eyes)[0] - lab(two, eyes)[0]) > 12 for eyes in EYES)


def test_several_trainings_of_a_model_are_one_bar() -> None:
    frame = frame_of(QUICKSTART)
    assert len(breakdown(pd.concat([frame, frame], ignore_index=True)).data) == len(frame)


def test_nothing_counted_is_one_line() -> None:
    with pytest.raises(ValueError, match="no model here has gmacs, gmacs_attention"):
        breakdown(frame_of(FASHION))
