"""Accuracy against cost: the numbers of the frame, what may be compared in one panel, and nothing missing silently."""

import itertools
import random
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from results.figures import AXES, Figure, accuracy
from results.figures.labels import Box, text_width
from results.statistics import mean_interval, wilson
from results.tables import table
from tests.results.figures.common import QUICKSTART, check, frame_of, texts_of, values

ONE, TWO = "focused(kernel_size=5)", "focused(kernel_size=None)"


def drawn(figure: Figure, *columns: str) -> list[tuple[Any, ...]]:
    return list(figure.data[list(columns)].itertuples(index=False, name=None))


@pytest.mark.parametrize("x", ["gmacs", "params_m", "images_per_s", "train_step_ms_p50"])
def test_what_is_drawn_is_what_was_measured(x: str, capfd: Any) -> None:
    frame = frame_of(QUICKSTART)
    figure = accuracy(frame, x)
    check(figure, capfd)
    assert sorted(drawn(figure, "backbone", "attention", "x", "top1")) == sorted(
        frame[["backbone", "attention", x, "top1"]].itertuples(index=False, name=None)
    )
    points = values(figure, "point")
    assert sorted((p["x"], p["top1"], p["low"], p["high"]) for p in points) == sorted(
        drawn(figure, "x", "top1", "low", "high")
    )
    for top1, low, high in drawn(figure, "top1", "low", "high"):
        assert (low / 100, high / 100) == pytest.approx(wilson(top1 / 100, 2000))
    written = texts_of(figure)
    for text in ("pvt_v2_micro", "cswin_micro", "softmax", "focused(kernel_size=5)", AXES[x], "top-1 (%)"):
        assert text in written
    assert "Top-1 of 2,000 images." in written
    assert any("does not" in line or "not the noise of the seed" in line for line in figure.notes)
    if x == "images_per_s":
        assert any("device cpu, precision fp32, mode eager, channels_last False, batch 64" in n for n in figure.notes)
    assert ("FLOPs" in " ".join(figure.notes)) == (x == "gmacs")


class Records:
    def __init__(self, make: Any) -> None:
        self.make, self.found = make, list[Any]()

    def add(self, attention: str, task: dict[str, Any], metrics: dict[str, Any], **model: Any) -> None:
        backbone = model.pop("backbone", "swin_t")
        cell = self.make.cell(backbone, attention, task, family=backbone.partition("_")[0], **model)
        self.found.append(self.make.record(f"k{len(self.found)}", cell, metrics))

    def costs(self, attention: str, gmacs: float, **model: Any) -> None:
        self.add(attention, self.make.costs, {"gmacs": gmacs, "params_m": 2 * gmacs}, **model)

    def train(self, attention: str, top1: float, seed: int = 0, **changes: Any) -> None:
        metrics = {"top1": top1, "top1_ema": None, "n_images": 1000, "val_list": "abc"}
        model = {name: changes.pop(name) for name in ("backbone", "stages") if name in changes}
        metrics |= changes.pop("metrics", {})
        self.add(attention, {**self.make.train(seed=seed), **changes}, metrics, **model)

    def speed(self, attention: str, images_per_s: float, disturbed: str | None = None, **runtime: Any) -> None:
        metrics = {"images_per_s": images_per_s, "infer_disturbed": disturbed}
        self.add(attention, self.make.speed(**runtime), metrics)

    @property
    def frame(self) -> pd.DataFrame:
        return table(self.found)


@pytest.fixture
def records(make: Any) -> Records:
    return Records(make)


def test_runtimes_share_no_panel(records: Records) -> None:
    for attention, speed in ((ONE, 10.0), (TWO, 20.0)):
        records.train(attention, 80.0)
        records.speed(attention, speed)
        records.speed(attention, 2 * speed, runtime="onnxruntime", version="1.32.0")
    figure = accuracy(records.frame, "images_per_s")
    assert sorted(drawn(figure, "panel", "x")) == [
        ("swin_t, runtime onnxruntime", 20.0),
        ("swin_t, runtime onnxruntime", 40.0),
        ("swin_t, runtime torch", 10.0),
        ("swin_t, runtime torch", 20.0),
    ]


def test_seeds_are_one_point_with_their_interval(records: Records) -> None:
    records.costs(ONE, 4.0)
    records.speed(ONE, 10.0)
    records.speed(ONE, 20.0, batch=1)
    accuracies = [80.0, 81.0, 82.5]
    for seed, top1 in enumerate(accuracies):
        records.train(ONE, top1, seed)
    figure = accuracy(records.frame)
    ((x, top1, low, high, seeds),) = drawn(figure, "x", "top1", "low", "high", "seeds")
    assert (x, seeds) == (4.0, 3)
    assert top1 == pytest.approx(sum(accuracies) / 3)
    assert (low, high) == pytest.approx(mean_interval(accuracies))
    assert any("3 seeds" in line and "Student" in line for line in figure.notes)


def test_no_interval_goes_beyond_what_an_accuracy_can_be(records: Records) -> None:
    records.costs(ONE, 4.0)
    for seed, top1 in enumerate((97.0, 99.0)):
        records.train(ONE, top1, seed)
    ((low, high),) = drawn(accuracy(records.frame), "low", "high")
    assert high == 100 < mean_interval([97.0, 99.0]).high
    assert low == pytest.approx(mean_interval([97.0, 99.0]).low)


def test_notes_speak_of_what_is_drawn(records: Records) -> None:
    records.costs(ONE, 4.0)
    records.train(ONE, 80.0)
    said = " ".join(accuracy(records.frame).notes)
    assert "Grey steps" not in said
    assert "No point is dominated at 95 %" in said
    for attention, gmacs, top1 in ((TWO, 3.0, 70.0), ("linear", 5.0, 60.0)):
        records.costs(attention, gmacs)
        records.train(attention, top1)
    figure = accuracy(records.frame)
    assert drawn(figure, "attention", "front", "dominated") == [
        (TWO, True, False), (ONE, True, False), ("linear", False, True)
    ]  # fmt: skip
    assert [point["opacity"] < 1 for point in values(figure, "point")] == [False, False, True]
    said = " ".join(figure.notes)
    assert "Grey steps" in said
    assert "Faded: dominated at 95 %" in said


def test_without_an_interval_nothing_is_dominated(records: Records) -> None:
    for attention, top1, images in ((ONE, 50.0, None), (TWO, 90.0, None), ("linear", 40.0, 1000)):
        records.costs(attention, 4.0)
        records.train(attention, top1, metrics={"n_images": images})
    figure = accuracy(records.frame)
    assert not figure.data["dominated"].any()
    assert "Points without an interval do not say on how many images they were evaluated." in figure.notes


def test_unlike_ways_of_running_are_not_in_one_front(records: Records) -> None:
    for attention, speed in ((ONE, 10.0), (TWO, 9.0)):
        records.train(attention, 80.0 + speed)
        records.speed(attention, speed)
    records.speed(ONE, 90.0, batch=1)
    records.speed(TWO, 99.0, precision="bf16")
    figure = accuracy(records.frame, "images_per_s")
    panels = list(figure.data["panel"])
    assert sorted(panels.count(title) for title in set(panels)) == [1, 1, 2]
    assert sum("batch 1" in title and "fp32" in title for title in set(panels)) == 1
    assert not figure.data[figure.data["x"] == 9.0]["front"].any()
    assert figure.data[figure.data["x"] != 9.0]["front"].all()
    # The accuracy does not depend on how speed was measured: of costs, there is one panel.
    records.costs(ONE, 4.0)
    assert len(accuracy(records.frame).data) == 1


def test_unlike_trainings_and_backbones_are_panels(records: Records) -> None:
    for backbone, epochs, images in (
        ("swin_t", 3, "abc"),
        ("swin_t", 300, "abc"),
        ("pvt_t", 3, "abc"),
        ("pvt_t", 3, "d"),
    ):
        recipe, metrics = {"epochs": epochs, "lr": 1e-3}, {"val_list": images}
        records.train(ONE, 80.0, backbone=backbone, recipe=recipe, metrics=metrics)
    for backbone in ("swin_t", "pvt_t"):
        records.costs(ONE, 4.0, backbone=backbone)
    titles = set(accuracy(records.frame).data["panel"])
    assert titles == {"swin_t, epochs 3", "swin_t, epochs 300", "pvt_t, val_list abc", "pvt_t, val_list d"}


def test_models_of_one_attention_are_told_apart(records: Records) -> None:
    for stages, gmacs in (("LLSS", 4.0), ("LLLL", 5.0)):
        records.costs(ONE, gmacs, stages=stages)
        records.train(ONE, 80.0 + gmacs, stages=stages)
    records.costs("softmax", 6.0, stages="SSSS")
    records.train("softmax", 80.0, stages="SSSS")
    assert drawn(accuracy(records.frame), "label") == [
        ("focused stages=LLSS",),
        ("focused stages=LLLL",),
        ("softmax",),
    ]


def test_what_is_left_out_is_said(records: Records) -> None:
    records.costs("linear", 3.0)
    for attention, speed, disturbed in ((ONE, 10.0, None), (TWO, 20.0, "others took 40 % of its cores")):
        records.train(attention, 80.0)
        records.speed(attention, speed, disturbed)
    figure = accuracy(records.frame, "images_per_s")
    assert drawn(figure, "attention") == [(ONE,)]
    said = " ".join(figure.notes)
    assert "other work on the machine disturbed the measurement: swin_t focused(kernel_size=None)." in said
    assert "without top1 or images_per_s: 1 model (swin_t linear)" in said


@pytest.mark.parametrize("number", [2, 16, 60])
def test_labels_cover_nothing(records: Records, number: int) -> None:
    rng = random.Random(number)
    for position in range(number):
        attention = f"focused(focusing_factor={position})"
        records.costs(attention, 4 + 0.1 * rng.random())
        records.train(attention, 80 + 3 * rng.random())
    figure = accuracy(records.frame)
    (panel,) = figure.spec["vconcat"][0]["hconcat"]
    (dots,) = (each for each in panel["layer"] if each["mark"]["type"] == "point")
    (left, right), (bottom, top) = (dots["encoding"][axis]["scale"]["domain"] for axis in "xy")
    marks = []
    for dot in dots["data"]["values"]:
        x = panel["width"] * (dot["x"] - left) / (right - left)
        y = panel["height"] * (top - dot["top1"]) / (top - bottom)
        marks.append(Box(x - 4, y - 4, x + 4, y + 4))
    labels = [
        Box(text["left"], text["middle"] - 5, text["left"] + text_width(text["label"], 10), text["middle"] + 5)
        for text in values(figure, "text")[:number]
    ]
    assert len(labels) == len(marks) == number
    assert not any(one.meets(two) for one, two in itertools.combinations(labels, 2))
    assert not any(label.meets(mark) for label in labels for mark in marks)
    assert all(each.left >= 0 and each.right <= panel["width"] + 1 for each in labels)


def test_failures_and_doubts_are_said(records: Records, make: Any) -> None:
    for seed in range(2):
        records.costs(ONE, 4.0) if not seed else None
        records.train(ONE, 80.0 + seed, seed)
    failed = make.record(
        "failed",
        make.cell("swin_t", ONE, make.train(seed=2), family="swin"),
        {"top1": 10.0, "n_images": 1000, "val_list": "abc"},
        status="failed",
        error="Traceback\nFloatingPointError: no finite gradient",
    )
    records.found.append(failed)
    figure = accuracy(records.frame)
    assert drawn(figure, "seeds") == [(2,)]
    assert "Failed: swin_t focused: train failed: FloatingPointError: no finite gradient." in figure.notes


def test_texts_and_costs_that_failed_are_not_drawn(records: Records) -> None:
    for attention in (ONE, TWO, "linear"):
        records.costs(attention, 4.0)
        records.train(attention, 80.0)
    records.found[2] = replace(records.found[2], status="failed", error="killed")
    records.found[4].metrics["gmacs"] = "many"
    records.train(ONE, 80.0, 1, metrics={"top1": "high"})
    assert drawn(accuracy(records.frame), "attention", "seeds") == [(ONE, 1)]


def test_one_seed_twice_is_refused(records: Records) -> None:
    records.costs(ONE, 4.0)
    for top1 in (80.0, 81.0):
        records.train(ONE, top1)
    with pytest.raises(ValueError, match=r"seed 0: two records of one run, k1 \(80.00 %\) and k2 \(81.00 %\)"):
        accuracy(records.frame)
    # The same cell, measured on two machines.
    records.found[2] = replace(records.found[2], key="k1")
    with pytest.raises(ValueError, match="seed 0: two records of one run, k1"):
        accuracy(records.frame)


def test_minutes_of_measuring_do_not_part_speeds(records: Records, make: Any) -> None:
    for attention, seconds in ((ONE, 2.0), (TWO, 5.0)):
        records.train(attention, 80.0)
        records.add(attention, {**make.speed(), "min_seconds": seconds}, {"images_per_s": 10.0 * seconds})
    assert accuracy(records.frame, "images_per_s").data["panel"].nunique() == 1


def test_the_axis_ends_at_100(records: Records) -> None:
    for attention, top1 in ((ONE, 100.0), (TWO, 0.5)):
        records.costs(attention, top1)
        records.train(attention, top1)
    (panel,) = accuracy(records.frame).spec["vconcat"][0]["hconcat"]
    (domain,) = {
        str(each["encoding"]["y"]["scale"]["domain"]) for each in panel["layer"] if each["mark"]["type"] == "point"
    }
    assert domain == "[0.0, 100.0]"
    assert "log" in str(panel["layer"][0]["encoding"]["x"]["scale"]), "200 times as dear"


def test_evaluated_weights_are_drawn_too(records: Records, make: Any) -> None:
    metrics = {"top1": 81.3, "n_images": 50000}
    for attention, file in ((ONE, "one.pth"), (TWO, "two.pth")):
        records.costs(attention, 4.0)
        records.add(attention, make.evaluate(file), metrics)
    records.train(ONE, 80.0)
    figure = accuracy(records.frame)
    assert sorted(drawn(figure, "attention", "source", "top1")) == [(ONE, "train", 80.0), (TWO, "evaluate", 81.3)]
    assert figure.data["panel"].nunique() == 2


def test_moving_averages(records: Records) -> None:
    records.costs(ONE, 4.0)
    records.train(ONE, 80.0, metrics={"top1_ema": 82.0})
    assert drawn(accuracy(records.frame, which="ema"), "top1") == [(82.0,)]


def test_nothing_to_draw_is_one_line(records: Records) -> None:
    records.train(ONE, 80.0)
    with pytest.raises(ValueError, match="no model here has both a top1 and a gmacs"):
        accuracy(records.frame)
    records.speed(ONE, 10.0, "others")
    with pytest.raises(ValueError, match="but for 1 whose measurement was disturbed; attention-bench run "):
        accuracy(records.frame, "images_per_s")
    with pytest.raises(ValueError, match="unknown x 'speed'; allowed: gmacs"):
        accuracy(records.frame, "speed")
