"""Rows and columns chosen in words: conditions, order, titles, pivot; and what is refused."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from results.tables import in_order, labelled, pivoted, shown_columns, table, titled, where

FOCUSED = "focused(focusing_factor=3, kernel_size=5)"
GAINS = {"softmax": 0.0, FOCUSED: 1.5, "focused(focusing_factor=4, kernel_size=None)": 1.0}


@pytest.fixture
def frame(make: Any) -> pd.DataFrame:
    records = []
    for backbone, offset in (("swin_t", 2.0), ("pvt_t", 0.0)):
        for attention, gain in (
            ("softmax", 0.0),
            (FOCUSED, 1.5),
            ("focused(focusing_factor=4, kernel_size=None)", 1.0),
        ):
            for seed in (0, 1, 2):
                cell = make.cell(backbone, attention, make.train(seed=seed, data="my own photos"), family=backbone)
                metrics = {"top1": 80 + offset + gain + seed / 10, "top1_stderr": 0.3, "n_images": 100}
                records.append(make.record(f"{backbone}{gain}{seed}", cell, metrics))
    return table(records)


@pytest.mark.parametrize(
    ("conditions", "rows"),
    [
        (["backbone=swin_t"], 9),
        (["backbone=swin_t seed=0"], 3),
        (["backbone=swin_t", "seed=0,1"], 6),
        (["train.seed=0"], 6),
        ([f"attention={FOCUSED}"], 6),
        (["attention=focused"], 12),
        (["attention=focused(kernel_size=None) seed=2"], 2),
        (["attention=softmax,focused(focusing_factor=3)"], 12),
        (["seed!=0"], 12),
        (["seed>=1"], 12),
        (["top1>82.05 backbone=swin_t"], 8),
        ([f"seed=0 attention=softmax,{FOCUSED} backbone=swin_t"], 2),
        (["data=my own photos seed=0", "backbone=pvt_t"], 3),
        (["backbone="], 0),
        ([], 18),
    ],
    ids=str,
)
def test_conditions(frame: pd.DataFrame, conditions: list[str], rows: int) -> None:
    if rows:
        assert len(where(frame, conditions)) == rows
    else:
        with pytest.raises(ValueError, match="no row has backbone=; backbone is pvt_t, swin_t"):
            where(frame, conditions)


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        (["swin_t"], "--where 'swin_t': a condition is NAME=VALUE"),
        (["sed=0"], "--where: no column 'sed' in these records; near: seed"),
        (["zzz=0"], "--where: no column 'zzz' in these records; there are backbone, attention, .*top1.* more$"),
        (["seed>=x"], "--where 'seed>=x': >= takes a number"),
        (["backbone=deit"], "no row has backbone=deit; backbone is pvt_t, swin_t"),
    ],
)
def test_conditions_that_are_refused(frame: pd.DataFrame, conditions: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        where(frame, conditions)


def test_the_better_end_is_on_top_and_gaps_are_last(frame: pd.DataFrame) -> None:
    frame.loc[0, "top1"] = None
    found = in_order(frame, ["top1"])["top1"].tolist()
    assert found[:-1] == sorted(found[:-1], reverse=True)
    assert pd.isna(found[-1])
    assert in_order(frame, ["top1:asc"])["top1"].tolist()[:-1] == sorted(found[:-1])
    both = in_order(frame, ["backbone:desc", "seed"])
    assert both["backbone"].tolist() == ["swin_t"] * 9 + ["pvt_t"] * 9
    assert both["train.seed"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] * 2
    with pytest.raises(ValueError, match="--sort top1:up: the direction is asc or desc"):
        in_order(frame, ["top1:up"])


def test_columns_have_the_order_and_the_titles_asked_for(frame: pd.DataFrame) -> None:
    chosen = labelled(frame, ["top1=Top-1 (%)", "attention=Method", "gmacs"])
    names = shown_columns(frame, chosen)
    assert list(names)[:4] == ["backbone", "top1", "attention", "gmacs"]
    assert list(titled(frame, names))[:4] == ["backbone", "Top-1 (%)", "Method", "gmacs"]
    assert titled(frame, names)["gmacs"].isna().all()


def test_a_pivot_averages_seeds_alone(frame: pd.DataFrame) -> None:
    numbers, view = pivoted(frame, "attention x backbone", ["top1"])
    assert list(numbers.columns) == ["attention", "pvt_t", "swin_t"]
    assert numbers.set_index("attention").loc[FOCUSED, "swin_t"] == pytest.approx(83.6)
    assert [row[0] for row in view.rows] == [
        "focused(focusing_factor=3, kernel_size=5)", "focused(focusing_factor=4, kernel_size=None)", "softmax"
    ]  # fmt: skip
    assert view.rows[0][2] == "83.60 ± 0.10"
    assert view.below[0] == "±: the standard deviation over 3 seeds."
    mixed = pivoted(frame[1:], "attention x backbone", ["top1"])[1]
    assert mixed.below[0] == "±: the standard deviation over 2 to 3 seeds."
    mixed = pivoted(frame[2:], "attention x backbone", ["top1"])[1]
    assert mixed.below[0].startswith(
        "±: the standard deviation over 3 seeds; of one seed, the standard error from the choice of"
    )
    assert view.best == {(0, 1), (0, 2)}
    assert view.second == {(1, 1), (1, 2)}


@pytest.mark.parametrize(
    ("layout", "metrics", "said"),
    [
        ("attention", ["top1"], "it takes two columns"),
        ("attention x attention", ["top1"], "rows and columns are both attention"),
        ("attention x backbone", [], "shows one metric"),
        ("attention x backbone", ["top1", "gmacs"], "shows one metric"),
        ("attention x backbon", ["top1"], "no column 'backbon' in these records; near: backbone"),
        ("attention x backbone", ["gmacs"], "no row has a gmacs"),
    ],
)
def test_pivots_that_are_refused(frame: pd.DataFrame, layout: str, metrics: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pivoted(frame, layout, metrics)


def test_a_pivot_never_averages_unlike_circumstances(make: Any) -> None:
    records = [
        make.record(str(batch), make.cell("a", "softmax", make.speed(batch=batch)), {"images_per_s": 10.0 * batch})
        for batch in (1, 64)
    ]
    frame = table(records)
    said = r"several rows for softmax and a, which differ in speed.runtime.batch \(1, 64\): choose with --where"
    with pytest.raises(ValueError, match=said):
        pivoted(frame, "attention x backbone", ["images_per_s"])
    numbers, _ = pivoted(where(frame, ["batch=64"]), "attention x backbone", ["images_per_s"])
    assert numbers.loc[0, "a"] == 640.0


def test_a_pivot_never_averages_two_measurements_of_one_run(make: Any) -> None:
    records = [
        make.record("k", make.cell("swin_t", "a", make.train()), {"top1": top1}, folder=Path(folder))
        for top1, folder in ((80.0, "anna"), (90.0, "ben"))
    ]
    with pytest.raises(ValueError, match=r"unlike numbers of one run, 80[.]0 and 90[.]0: choose with --where folder="):
        pivoted(table(records), "attention x backbone", ["top1"])
    numbers, _ = pivoted(where(table(records), ["folder=ben"]), "attention x backbone", ["top1"])
    assert numbers["swin_t"].tolist() == [90.0]
