"""Training curves are what run folders say, with a mark where a run was resumed."""

import json
from pathlib import Path
from typing import Any

import pytest

from results import Record
from results.figures import curves
from tests.results.figures.common import check, texts_of, values

ONE, TWO = "focused(kernel_size=5)", "focused(kernel_size=None)"


class Runs:
    def __init__(self, make: Any, folder: Path) -> None:
        self.make, self.folder, self.records = make, folder, list[Record]()

    def add(
        self, attention: str, losses: list[float], seed: int = 0, starts: list[dict[str, Any]] | None = None
    ) -> str:
        key = f"k{len(self.records)}"
        cell = self.make.cell("swin_t", attention, self.make.train(seed=seed, epochs=len(losses)))
        lines = [
            {"epoch": epoch, "top1": 50.0 + 10 * epoch + seed, "top1_ema": 20.0, "train_loss": loss}
            for epoch, loss in enumerate(losses, 1)
        ]
        (self.folder / key / "attempts").mkdir(parents=True)
        (self.folder / key / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        for number, start in enumerate(starts or [], 1):
            (self.folder / key / "attempts" / f"{number:04d}.json").write_text(json.dumps(start))
        self.records.append(self.make.record(key, cell, {"top1": lines[-1]["top1"]}, folder=self.folder))
        return key


@pytest.fixture
def runs(make: Any, tmp_path: Path) -> Runs:
    return Runs(make, tmp_path)


def start(step: int | None, ended: str | None) -> dict[str, Any]:
    return {"epoch": 1, "epochs": 4, "step": step, "steps": 40, "ended": ended}


def test_each_epoch_is_drawn(runs: Runs, capfd: Any) -> None:
    runs.add(ONE, [2.0, 1.0, 0.5])
    runs.add(TWO, [2.5, 1.5, 1.0])
    figure = curves(runs.records)
    check(figure, capfd)
    assert list(figure.data[["key", "epoch", "top1", "train_loss"]].itertuples(index=False, name=None)) == [
        (key, epoch, 50.0 + 10 * epoch, loss)
        for key, losses in (("k0", [2.0, 1.0, 0.5]), ("k1", [2.5, 1.5, 1.0]))
        for epoch, loss in enumerate(losses, 1)
    ]
    lines = values(figure, "line")
    assert [line["top1"] for line in lines if "top1" in line] == [60, 70, 80, 60, 70, 80]
    assert [line["train_loss"] for line in lines if "train_loss" in line] == [2.0, 1.0, 0.5, 2.5, 1.5, 1.0]
    written = texts_of(figure)
    for text in ("top-1 (%)", "training loss", "epoch", ONE, TWO, "swin_t"):
        assert text in written
    assert "No run was resumed, as far as run folders say." in figure.notes
    assert set(curves(runs.records, "ema").data["top1"]) == {20.0}


def test_resumes_are_marked(runs: Runs, capfd: Any) -> None:
    runs.add(
        ONE,
        [2.0, 1.0, 0.5, 0.25],
        starts=[
            start(None, "stopped before its first step"),
            start(10, "stopped on SIGTERM after 15 of 40 updates; the same command goes on"),
            start(30, None),  # died without a word
            start(40, "done"),
        ],
    )
    figure = curves(runs.records)
    check(figure, capfd)
    resumed = figure.data[figure.data["event"] == "resumed"]
    assert list(resumed[["epoch", "top1", "train_loss"]].itertuples(index=False, name=None)) == [
        (1.5, 65.0, 1.5),
        (3.0, 80.0, 0.5),
    ]
    assert any("Upright strokes" in line for line in figure.notes)


def test_seeds_are_thin_around_their_mean(runs: Runs) -> None:
    for seed in (0, 1):
        runs.add(ONE, [2.0, 1.0 + seed], seed)
    figure = curves(runs.records)
    lines = [line["top1"] for line in values(figure, "line") if "top1" in line]
    assert lines == [60, 70, 61, 71, 60.5, 70.5]
    assert any(line.startswith("Thin") for line in figure.notes)
    runs.records[1].cell["backbone"] = {**runs.records[1].cell["backbone"], "name": "pvt_t", "family": "pvt"}
    assert not any(line.startswith("Thin") for line in curves(runs.records).notes), "a single seed in each of two"


def test_a_loss_that_is_not_finite_is_a_gap(runs: Runs, capfd: Any) -> None:
    runs.add(ONE, [2.0, float("nan"), float("inf"), 1.0])
    figure = curves(runs.records)
    check(figure, capfd)
    assert [line["train_loss"] for line in values(figure, "line") if "train_loss" in line] == [2.0, None, None, 1.0]
    assert "The loss was not finite: swin_t focused epoch 2, swin_t focused epoch 3." in figure.notes


def test_runs_without_a_folder_are_named(runs: Runs, make: Any) -> None:
    runs.add(ONE, [2.0])
    runs.records.append(make.record("gone", make.cell("swin_t", TWO, make.train()), {"top1": 80.0}))
    runs.records.append(make.record("costs", make.cell("swin_t", TWO, make.costs), {"gmacs": 4.0}))
    figure = curves(runs.records)
    assert set(figure.data["key"]) == {"k0"}
    assert f"Left out, as their run folders are not here: swin_t {TWO}." in figure.notes
    with pytest.raises(ValueError, match="no training here has the epochs"):
        curves(runs.records[1:])


@pytest.mark.parametrize("text", ["{", "[1]\n", '{"epoch": "1"}\n'])
def test_a_damaged_run_folder_is_named(runs: Runs, text: str) -> None:
    key = runs.add(ONE, [2.0])
    (runs.folder / key / "metrics.jsonl").write_text(text)
    with pytest.raises(ValueError, match=f"{key}/metrics.jsonl: "):
        curves(runs.records)
