"""The figures of a paper: its points as printed, ours beside them, and nothing of ours that was not measured."""

from typing import Any

import pandas as pd
import pytest

from results import tables
from results.figures import ablation_figure, cost_figure, time_figure
from results.statistics import wilson
from tests.results.figures.common import check, texts_of, values

PUBLISHED = tables.published_rows("flatten")
TARGETS = tables.targets(PUBLISHED)


def compared(*ours: dict[str, Any]) -> pd.DataFrame:
    return tables.compare(PUBLISHED, ours)


def measured(target: dict[str, Any], top1: float | None, gmacs: float | None = None) -> dict[str, Any]:
    found = {"params_m": None, "gmacs": gmacs, "gmacs_fvcore": None, "top1": top1, "top1_stderr": 0.2}
    return {**target, **found, "top1_kind": "trained", "top1_weights": "as trained", "n_images": 50_000}


SWIN = {"model": "FLatten-Swin-T", "resolution": 224}


def of_kind(data: pd.DataFrame, kind: str) -> pd.DataFrame:
    return data[data["kind"] == kind]


def test_all_published_points_are_drawn_as_printed(capfd: Any) -> None:
    figure = cost_figure(PUBLISHED, compared(), tables.contradictions(PUBLISHED, ("gmacs", "top1")))
    check(figure, capfd)
    printed = PUBLISHED[(PUBLISHED["model"] != "") & (PUBLISHED["gmacs"] != "") & (PUBLISHED["top1"] != "")]
    own = printed[printed["primary"] == "1"]
    drawn = of_kind(figure.data, "published")
    expected = zip(own["model"], own["gmacs"].astype(float), own["top1"].astype(float), strict=True)
    assert list(zip(drawn["model"], drawn["x"], drawn["top1"], strict=True)) == list(expected)
    assert set(figure.data["panel"]) == {"DeiT", "PVT", "PVTv2", "Swin", "CSWin"}
    others = of_kind(figure.data, "published elsewhere")
    assert ("DeiT-T", 1.26) in set(zip(others["model"], others["x"], strict=True))
    assert not (others["resolution"] == 256).any(), "a resolution that the paper does not have"
    assert set(figure.data["kind"]) == {"published", "published elsewhere"}
    assert any("DeiT-T at 224: gmacs 1.2 and 1.26" in note for note in figure.notes)
    assert "No accuracy was measured here: that needs ImageNet." in figure.notes
    assert {"FLatten-Swin-B at 384", "PVT-M", "Swin"} <= set(texts_of(figure))


def test_ours_is_at_our_cost_with_its_interval_or_as_a_bar_at_the_published_accuracy(capfd: Any) -> None:
    with_accuracy = measured(SWIN, 82.3, gmacs=4.48)
    without = measured({"model": "Swin-T", "resolution": 224}, None, gmacs=4.49)
    figure = cost_figure(PUBLISHED, compared(with_accuracy, without), [])
    check(figure, capfd)
    (ours,) = of_kind(figure.data, "measured here").to_dict("records")
    assert (ours["model"], ours["x"], ours["top1"]) == ("FLatten-Swin-T", 4.48, 82.3)
    assert (ours["low"] / 100, ours["high"] / 100) == pytest.approx(wilson(0.823, 50_000))
    (bar,) = of_kind(figure.data, "cost measured here").to_dict("records")
    assert (bar["model"], bar["x"], bar["top1"]) == ("Swin-T", 4.49, 81.3)
    filled = [point for point in values(figure, "point") if point.get("kind") == "measured here"]
    assert [point["fill"] for point in filled] == [point["colour"] for point in filled] != []
    assert all(point["fill"] == "white" for point in values(figure, "point") if point.get("kind") == "published")


def test_times_of_another_machine_share_no_panel(capfd: Any) -> None:
    theirs = tables.published_times("flatten")
    time = {**SWIN, "ms": 40.0, "hardware": "Some CPU, 2 threads, batch 8, fp32, eager"}
    figure = time_figure(theirs, [time], PUBLISHED, compared(measured(SWIN, 82.3)))
    check(figure, capfd)
    assert len(of_kind(figure.data, "published")) == len(theirs) == 33
    (ours,) = of_kind(figure.data, "measured here").to_dict("records")
    assert (ours["x"], ours["top1"]) == (40.0, 82.3)
    assert ours["panel"] == "Swin on Some CPU, 2 threads, batch 8, fp32, eager, measured here"
    assert (figure.data["panel"] == ours["panel"]).sum() == 1
    assert not any("Nothing was timed" in note for note in figure.notes)
    nothing = time_figure(theirs, [], PUBLISHED, compared())
    assert any("Nothing was timed here yet" in note for note in nothing.notes)


def test_ablations_have_their_settings_in_order_and_softmax_as_a_line(capfd: Any) -> None:
    target = {"ablation": "focusing_factor", "backbone": "swin_t", "setting": "FLatten-Swin-T", "param_value": "8"}
    assert target in TARGETS
    figure = ablation_figure(PUBLISHED, compared(measured(target, 82.0)))
    check(figure, capfd)
    theirs = of_kind(figure.data, "published")
    factors = theirs[theirs["panel"] == "focusing factor, swin_t"]
    found = list(zip(factors["x"], factors["top1"], strict=True))
    assert found == [("2", 82.03), ("3", 82.11), ("4", 81.94), ("8", 81.99), ("32", 81.88)]
    panels = {"module, deit_t", "focusing factor, swin_t", "window size, swin_t", "stages, swin_t"}
    assert set(figure.data["panel"]) == panels
    (ours,) = of_kind(figure.data, "measured here").to_dict("records")
    assert (ours["panel"], ours["x"], ours["top1"]) == ("focusing factor, swin_t", "8", 82.0)
    assert sorted(value["top1"] for value in values(figure, "rule") if value.keys() == {"top1"}) == [72.2, 81.3, 81.3]
    assert any("82 % of 50,000 images is ± 0.34 points" in note for note in figure.notes)


def test_contradictions_are_beyond_rounding() -> None:
    found = tables.contradictions(PUBLISHED)
    assert "DeiT-T at 224: gmacs 1.2 and 1.26" in found
    assert not any(text.startswith("FLatten-PVT-T at 224: top1") for text in found), "77.8, 77.76 and 77.758 agree"
    assert not any("gmacs" in text for text in tables.contradictions(PUBLISHED, ["top1"]))
