"""Curves over an option, and grids: the numbers of the frame, each value where it belongs."""

from typing import Any

import pandas as pd
import pytest

from results.figures import Figure, ablation, grid
from results.statistics import mean_interval, wilson
from results.tables import table
from tests.results.figures.common import FASHION, check, frame_of, texts_of, values


class Records:
    def __init__(self, make: Any) -> None:
        self.make, self.found = make, list[Any]()

    def train(self, attention: str, top1: float, seed: int = 0, backbone: str = "swin_t", **model: Any) -> None:
        cell = self.make.cell(backbone, attention, self.make.train(seed=seed), family=backbone, **model)
        metrics = {"top1": top1, "n_images": 1000, "val_list": "abc"}
        self.found.append(self.make.record(f"k{len(self.found)}", cell, metrics))

    @property
    def frame(self) -> pd.DataFrame:
        return table(self.found)


@pytest.fixture
def records(make: Any) -> Records:
    return Records(make)


def drawn(figure: Figure, *columns: str) -> list[tuple[Any, ...]]:
    return list(figure.data[list(columns)].itertuples(index=False, name=None))


def test_a_curve_per_attention_in_the_order_of_the_values(records: Records, capfd: Any) -> None:
    expected = {}
    for kernel, top1 in (("7", 82.0), ("None", 80.0), ("11", 82.5), ("3", 81.0)):
        records.train(f"focused(focusing_factor=3, kernel_size={kernel})", top1)
        expected[kernel] = top1
    for kernel in ("None", "5"):
        records.train(f"linear(kernel_size={kernel})", 79.0)
    records.train("softmax(fused=True)", 81.5)
    figure = ablation(records.frame, "kernel_size")
    check(figure, capfd)
    assert drawn(figure, "series", "value", "top1") == [
        ("focused(focusing_factor=3)", "None", 80.0),
        ("focused(focusing_factor=3)", "3", 81.0),
        ("focused(focusing_factor=3)", "7", 82.0),
        ("focused(focusing_factor=3)", "11", 82.5),
        ("linear", "None", 79.0),
        ("linear", "5", 79.0),
    ]
    for top1, low, high in drawn(figure, "top1", "low", "high"):
        assert (low / 100, high / 100) == pytest.approx(wilson(top1 / 100, 1000))
    # None is not joined with the numbers.
    assert [line["top1"] for line in values(figure, "line")] == [81.0, 82.0, 82.5]
    written = texts_of(figure)
    for text in ("None", "3", "5", "7", "11", "kernel_size", "top-1 (%)", "focused", "linear", "swin_t"):
        assert text in written
    assert "softmax" not in written


def test_seeds_and_panels(records: Records) -> None:
    for backbone in ("swin_t", "pvt_t"):
        for factor in (2, 3):
            for seed, top1 in enumerate((80.0, 81.0, 80.5)):
                records.train(f"focused(focusing_factor={factor})", top1 + factor, seed, backbone)
    figure = ablation(records.frame, "focusing_factor")
    assert drawn(figure, "panel", "value", "seeds") == [
        (panel, value, 3) for panel in ("pvt_t", "swin_t") for value in ("2", "3")
    ]
    low, high = mean_interval([82.0, 83.0, 82.5])
    assert drawn(figure, "low", "high")[0] == pytest.approx((low, high))


def test_a_field_of_the_model_is_an_option_too(records: Records) -> None:
    for window in (7, 14):
        for stages in ("LLLL", "LLSS"):
            records.train("focused(focusing_factor=3)", 80.0 + window, window=window, stages=stages)
    figure = ablation(records.frame, "window")
    assert drawn(figure, "series", "value") == [
        (f"focused(focusing_factor=3) stages={stages}", value) for stages in ("LLLL", "LLSS") for value in ("7", "14")
    ]


def test_the_committed_runs(capfd: Any) -> None:
    frame = frame_of(FASHION)
    figure = ablation(frame, "kernel_size")
    check(figure, capfd)
    means = frame.groupby("attention")["top1"].mean()
    assert all(top1 == pytest.approx(means[attention]) for attention, top1 in drawn(figure, "attention", "top1"))


def test_what_does_not_vary_is_said(records: Records) -> None:
    for kernel in (3, 5):
        records.train(f"focused(focusing_factor=3, kernel_size={kernel})", 80.0)
    for option in ("focusing_factor", "hay"):
        with pytest.raises(ValueError, match=f"two values of {option}; attentions here differ in: kernel_size"):
            ablation(records.frame, option)


# Grids


def test_a_grid_of_two_options(records: Records, capfd: Any) -> None:
    for factor in (2, 3, 32):
        for kernel in ("None", "5"):
            records.train(f"focused(focusing_factor={factor}, kernel_size={kernel})", 80.0 + factor / 10)
    records.train("linear(kernel_size=5)", 79.0)
    figure = grid(records.frame, ("focusing_factor", "kernel_size"))
    check(figure, capfd)
    assert sorted(drawn(figure, "row", "column", "top1")) == sorted(
        (str(factor), kernel, 80.0 + factor / 10) for factor in (2, 3, 32) for kernel in ("None", "5")
    )
    cells = {(cell["row"], cell["column"]): cell for cell in values(figure, "rect")}
    assert cells["2", "None"]["top"] < cells["3", "None"]["top"] < cells["32", "None"]["top"]
    assert cells["2", "None"]["left"] < cells["2", "5"]["left"]
    written = texts_of(figure)
    assert "83.20" in written
    assert "swin_t, focused: focusing_factor (down) and kernel_size (across)" in written


def test_a_grid_of_attentions_by_backbones(records: Records, capfd: Any) -> None:
    for backbone, attention, top1 in (
        ("swin_t", "softmax(fused=True)", 81.0),
        ("swin_t", "linear", 80.0),
        ("pvt_t", "linear", 75.0),
    ):
        records.train(attention, top1, backbone=backbone)
    figure = grid(records.frame)
    check(figure, capfd)
    assert sorted(drawn(figure, "row", "column", "top1")) == [
        ("linear", "pvt_t", 75.0),
        ("linear", "swin_t", 80.0),
        ("softmax", "swin_t", 81.0),
    ]


def test_two_models_in_one_cell_are_never_averaged(records: Records) -> None:
    for stages, top1 in (("LLSS", 80.0), ("LLLL", 81.0)):
        for factor in (2, 3):
            for kernel in (3, 5):
                records.train(f"focused(focusing_factor={factor}, kernel_size={kernel})", top1, stages=stages)
    figure = grid(records.frame, ("focusing_factor", "kernel_size"))
    assert figure.data.groupby("panel")["top1"].unique().map(list).tolist() == [[81.0], [80.0]]
    assert len(figure.data) == 8


def test_bad_grids_are_refused(records: Records) -> None:
    with pytest.raises(ValueError, match="no model here has a top1_ema"):
        grid(frame_of(FASHION), (), "ema")
    for options in (("kernel_size",), ("a", "b", "c"), ("kernel_size", "kernel_size")):
        with pytest.raises(ValueError, match="a grid takes two options, or none"):
            grid(frame_of(FASHION), options)
    with pytest.raises(ValueError, match="two values of hay and kernel_size"):
        grid(frame_of(FASHION), ("hay", "kernel_size"))
