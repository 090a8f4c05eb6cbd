"""Records join into rows only where that mixes nothing."""

import io
import math
from typing import Any

import pandas as pd
import pytest

from results.tables import table, to_csv


def rows(frame: pd.DataFrame, *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(None if pd.isna(v) else v for v in row) for row in frame[list(columns)].itertuples(index=False)]


def test_the_tasks_of_a_model_are_one_row(make: Any) -> None:
    records = [
        make.record("a", make.cell("swin_t", "softmax", make.costs), {"params_m": 28.288354, "gmacs": 4.4905}),
        make.record("b", make.cell("swin_t", "softmax", make.speed()), {"images_per_s": 12.5}),
        make.record("c", make.cell("swin_t", "softmax", make.train()), {"top1": 83.5, "top1_stderr": 0.8}),
    ]
    frame = table(records)
    assert rows(frame, "backbone", "attention", "params_m", "images_per_s", "top1", "status") == [
        ("swin_t", "softmax", 28.288354, 12.5, 83.5, "done")
    ]
    assert list(frame.columns[:4]) == ["backbone", "attention", "status", "error"]


def test_paths_that_are_not_utf8_are_written_out(make: Any) -> None:
    """pandas takes no such text: one record of a folder called so left no table of any."""
    cell = make.cell("swin_t", "softmax", make.train())
    cell["task"]["data"]["root"] = "/data/w\udcfcrzel"
    frame = table([make.record("a", cell, {"top1": 83.5, "top1_stderr": 0.8})])
    assert rows(frame, "train.data.root") == [("/data/w\\xfcrzel",)]
    assert "/data/w\\xfcrzel" in to_csv(frame)


def test_a_label_does_not_part_a_model(make: Any) -> None:
    records = [
        make.record("a", make.cell("swin_t", "softmax", make.costs), {"params_m": 28.0}),
        make.record("b", make.cell("my_swin", "softmax", make.speed()), {"images_per_s": 12.5}),
    ]
    assert len(table(records)) == 1


@pytest.mark.parametrize("change", [{"attention": "focused"}, {"image_size": [384, 384]}, {"stages": "LLSS"}], ids=str)
def test_any_other_field_parts_models(make: Any, change: dict[str, Any]) -> None:
    other = make.cell("swin_t", "softmax", make.speed())
    other["backbone"].update(change)
    records = [
        make.record("a", make.cell("swin_t", "softmax", make.costs), {"params_m": 28.0}),
        make.record("b", other, {"images_per_s": 12.5}),
    ]
    frame = table(records)
    assert len(frame) == 2
    assert not (frame["params_m"].notna() & frame["images_per_s"].notna()).any()


def test_runtimes_and_seeds_each_have_a_row_with_costs_repeated(make: Any) -> None:
    records = [make.record("costs", make.cell("swin_t", "softmax", make.costs), {"params_m": 28.0})]
    for batch, images_per_s in ((1, 10.0), (64, 90.0)):
        cell = make.cell("swin_t", "softmax", make.speed(batch=batch))
        records.append(make.record(f"speed{batch}", cell, {"images_per_s": images_per_s}))
    for seed, top1 in ((0, 80.0), (1, 81.0), (2, 82.0)):
        cell = make.cell("swin_t", "softmax", make.train(seed=seed))
        records.append(make.record(f"train{seed}", cell, {"top1": top1}))
    frame = table(records)
    found = rows(frame, "params_m", "speed.runtime.batch", "images_per_s", "train.seed", "top1")
    assert sorted(found) == [
        (28.0, batch, images_per_s, seed, top1)
        for batch, images_per_s in ((1, 10.0), (64, 90.0))
        for seed, top1 in ((0, 80.0), (1, 81.0), (2, 82.0))
    ]


def test_a_cell_measured_twice_is_never_averaged(make: Any) -> None:
    cell = make.cell("swin_t", "softmax", make.speed())
    records = [make.record("same", cell, {"images_per_s": speed}) for speed in (10.0, 20.0)]
    assert list(table(records)["images_per_s"]) == [10.0, 20.0]


def test_a_metric_of_two_tasks_is_two_columns(make: Any) -> None:
    records = [
        make.record("a", make.cell("swin_t", "softmax", make.speed()), {"train_images_per_s": 10.0}),
        make.record("b", make.cell("swin_t", "softmax", make.train()), {"train_images_per_s": 7.0, "top1": 80.0}),
    ]
    frame = table(records)
    assert "train_images_per_s" not in frame
    assert rows(frame, "speed_train_images_per_s", "train_train_images_per_s") == [(10.0, 7.0)]


def test_training_and_evaluation_of_a_model_are_one_row_with_an_accuracy_each(make: Any) -> None:
    records = [
        make.record("t", make.cell("swin_t", "softmax", make.train()), {"top1": 79.0, "top1_ema": 80.0, "lr": 0.1}),
        make.record("e", make.cell("swin_t", "softmax", make.evaluate()), {"top1": 81.2, "top5": 95.5}),
        make.record("c", make.cell("swin_t", "softmax", make.costs), {"params_m": 28.3}),
    ]
    frame = table(records)
    found = rows(frame, "train_top1", "train_top1_ema", "evaluate_top1", "top5", "lr", "evaluate.weights.name")
    assert found == [(79.0, 80.0, 81.2, 95.5, 0.1, "swin_t.pth")]
    assert "top1" not in frame
    assert list(frame.columns[4:8]) == ["params_m", "evaluate_top1", "train_top1", "train_top1_ema"]


def test_expected_cells_without_record_are_missing_in_the_order_asked_for(make: Any) -> None:
    expected = [
        ("k1", make.cell("swin_t", "softmax", make.costs, dim=96)),
        ("k2", make.cell("deit_t", "softmax", make.costs, dim=192)),
        ("k3", make.cell("cswin_t", "softmax", make.costs, dim=64)),
        ("k4", make.cell("swin_t", "softmax", make.speed(batch=8), dim=96)),
    ]
    records = [
        make.record("z", make.cell("aaa", "softmax", make.costs, dim=1), {"params_m": 1.0}),
        # Measured under another label of the same cell; the label asked for counts.
        make.record("k3", make.cell("other", "softmax", make.costs, dim=64), {"params_m": 22.0}),
        make.record("k1", expected[0][1], {"params_m": 28.0}),
    ]
    frame = table(records, expected)
    assert rows(frame, "backbone", "params_m", "status", "speed.runtime.batch") == [
        ("swin_t", 28.0, "missing", 8),
        ("deit_t", None, "missing", None),
        ("cswin_t", 22.0, "done", None),
        ("aaa", 1.0, "done", None),
    ]
    assert list(frame["record.costs.status"]) == ["done", "missing", "done", "done"]


def test_a_cell_expected_twice_is_one_row_under_its_first_label(make: Any) -> None:
    expected = [("k", make.cell(name, "softmax", make.costs)) for name in ("first", "second")]
    assert rows(table([], expected), "backbone", "status") == [("first", "missing")]


def test_unexpected_records_follow_in_natural_order(make: Any) -> None:
    names = [("swin_t", "focused(focusing_factor=32)"), ("swin_t", "focused(focusing_factor=4)")]
    names += [("pvt_v2_b10", "x"), ("pvt_v2_b2", "x")]
    records = [make.record(str(i), make.cell(*name, make.costs, dim=i)) for i, name in enumerate(names)]
    assert rows(table(records), "backbone", "attention") == [names[3], names[2], names[1], names[0]]


@pytest.mark.parametrize(
    ("statuses", "worst"),
    [
        (("done", "done"), "done"),
        (("done", "oom"), "oom"),
        (("failed", "oom"), "failed"),
        (("done", None), "missing"),
        (("oom", None), "oom"),
    ],
)
def test_a_row_is_as_done_as_its_least_done_record(make: Any, statuses: tuple[str | None, ...], worst: str) -> None:
    cells = [make.cell("swin_t", "softmax", task) for task in (make.costs, make.speed())]
    expected = [(str(i), cell) for i, cell in enumerate(cells)]
    records = [
        make.record(key, cell, status=status, error=None if status == "done" else "a\nRuntimeError: boom\n")
        for (key, cell), status in zip(expected, statuses, strict=True)
        if status
    ]
    frame = table(records, expected)
    assert list(frame["status"]) == [worst]
    failed = any(status in ("oom", "failed") for status in statuses)
    assert frame["error"].notna().all() == failed
    if failed:
        assert frame["error"].str.contains("RuntimeError: boom").all()


def test_csv_comes_back_through_pandas_at_full_precision(make: Any) -> None:
    records = [
        make.record("a", make.cell("swin_t", "focused(focusing_factor=3, kernel_size=5)", make.costs),
                    {"params_m": 1 / 3, "gmacs_attention": 0.1 + 0.2}),
        make.record("b", make.cell("pvt_t", "softmax", make.speed(batch=64)), {"images_per_s": 1234.5678901234567}),
        make.record("c", make.cell("pvt_t", "softmax", make.train()), {"top1": 83.52, "train_loss": math.nan}),
    ]  # fmt: skip
    frame = table(records)
    text = to_csv(frame)
    back = pd.read_csv(io.StringIO(text))
    assert list(back.columns) == list(frame.columns)
    assert text.count("\n") == 1 + len(frame)
    by_name = back.set_index("backbone")
    assert by_name.loc["swin_t", "params_m"] == 1 / 3
    assert by_name.loc["swin_t", "gmacs_attention"] == 0.1 + 0.2
    assert by_name.loc["pvt_t", "images_per_s"] == 1234.5678901234567
    assert by_name.loc["swin_t", "attention"] == "focused(focusing_factor=3, kernel_size=5)"
    # A gap in the column turns no integer into a float, and a null stays apart from "not there".
    assert ",64," in text
    assert by_name.loc["pvt_t", "train.data.path"] == "none"
    gap: Any = by_name.loc["swin_t", "train.data.path"]
    assert pd.isna(gap)
    assert by_name.loc["pvt_t", "record.train.key"] == "c"
    assert by_name.loc["pvt_t", "record.speed.environment.torch"] == "2.11.0"


@pytest.mark.parametrize("key", ["9253954e51983261", "0985376301e59136", "1234567890123456", "0012345678901234"])
@pytest.mark.parametrize("other", [None, "1b2c3d4e5f607182"])
def test_a_key_of_digits_comes_back_as_a_text(make: Any, key: str, other: str | None) -> None:
    records = [
        make.record(each, make.cell("swin_t", attention, make.costs), {"params_m": 28.0, "val_list": key})
        for each, attention in ((key, "linear"), (other, "softmax"))
        if each is not None
    ]
    frame = table(records)
    assert key in frame["record.costs.key"].tolist(), "only what is exported is marked"
    back = pd.read_csv(io.StringIO(to_csv(frame)))
    assert back["record.costs.key"].str.removeprefix("'").tolist() == [record.key for record in records]
    assert back["val_list"].tolist() == [f"'{key}"] * len(records)
    assert back["params_m"].tolist() == [28.0] * len(records)


@pytest.mark.parametrize("text", ["28.3", "2026", "570.124", "1b2c3d4e5f607182", "e234567890123456", "12345678e"])
def test_other_texts_are_exported_as_they_are(text: str) -> None:
    assert to_csv(pd.DataFrame({"theirs": [text], "top1": [81.5]})) == f"theirs,top1\n{text},81.5\n"


def test_a_loss_that_is_not_a_number_stays_apart_from_a_missing_one(make: Any) -> None:
    losses = [0.5, math.nan, None, math.inf]
    records = [
        make.record(
            f"r{seed}", make.cell("swin_t", "softmax", make.train(seed=seed)), {"top1": 80.0, "train_loss": loss}
        )
        for seed, loss in enumerate(losses)
    ]
    records.append(make.record("other", make.cell("pvt_t", "softmax", make.train()), {"top1": 80.0}))
    frame = table(records).set_index("record.train.key")
    found = frame["train_loss"].to_dict()
    assert found.pop("other") is None
    assert found.pop("r2") is None
    assert list(map(repr, found.values())) == ["0.5", "nan", "inf"]
    text = to_csv(frame.reset_index())
    reading: Any = {"engine": "pyarrow", "dtype_backend": "pyarrow", "keep_default_na": False, "na_values": [""]}
    back = pd.read_csv(io.StringIO(text), **reading).set_index("record.train.key")["train_loss"]
    assert back.isna().to_dict() == {"r0": False, "r1": False, "r2": True, "r3": False, "other": True}
    assert math.isnan(back["r1"])
    assert (back["r0"], back["r3"]) == (0.5, math.inf)


def test_columns_stand_in_the_order_in_which_rows_name_them(make: Any) -> None:
    first, second = make.cell("a", "softmax", make.train()), make.cell("b", "softmax", make.train())
    second["task"] = {
        "name": "train",
        "early": 1,
        **{k: v for k, v in second["task"].items() if k != "name"},
        "late": [{"x": 1}],
    }
    frame = table([make.record("1", first, {"m": 1.0, "n": None}), make.record("2", second, {"k": 2.0, "n": 3.0})])
    of_task = [name for name in frame if str(name).startswith("train.")]
    assert of_task[-2:] == ["train.early", "train.late.0.x"]
    assert [name for name in frame if name in ("m", "n", "k")] == ["m", "n", "k"]


def test_no_records_is_an_empty_table() -> None:
    frame = table([])
    assert len(frame) == 0
    assert to_csv(frame) == "backbone,attention,status,error\n"
