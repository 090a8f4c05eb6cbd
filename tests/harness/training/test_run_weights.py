"""Cells that need the weights of another: known before it has run, run after it, and refused or failed without it."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import backbones
import results
from harness.cells import MICRO, Cell, Costs, DataSource, Evaluate, Preprocessing, RunWeights, Train, Weights, in_order
from harness.cells.recipe import LR_BATCH
from harness.runner import run
from harness.runner.records import outcome
from harness.runner.run_all import run_all
from harness.training import checkpoints
from harness.training.loading import located, weights_in
from results import tables
from tests.harness.image_sets import coloured

RECIPE = replace(MICRO, epochs=2, batch=4, warmup_epochs=0.5, lr=2e-3 * LR_BATCH / 4, ema_decay=0.9)


def deit(**changes: Any) -> backbones.BackboneSpec:
    size: dict[str, Any] = {"dim": 16, "depth": 2, "heads": 2, "image_size": (16, 16), "num_classes": 3}
    return replace(backbones.preset("deit_micro", attention="focused"), **(size | changes))


def training(data: DataSource, **changes: Any) -> Cell:
    return Cell(deit(), replace(Train(RECIPE, data), **changes))


PHOTOS = DataSource.folder("photos")


def console() -> Console:
    return Console(file=io.StringIO(), width=300)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSource:
    return DataSource.folder(coloured(tmp_path_factory.mktemp("images"), train=4, val=13))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, data: DataSource) -> Path:
    """A folder in which the training is recorded."""
    folder = tmp_path_factory.mktemp("out")
    (record,) = run_all([training(data)], folder, console())
    assert record.status == "done"
    return folder


# Keys


def test_a_cell_of_weights_to_come_is_known_by_the_training_and_what_is_taken_of_it() -> None:
    first, second = training(PHOTOS), training(PHOTOS, seed=1)
    cells = [
        first.evaluation(),
        first.evaluation(which="best"),
        first.evaluation(ema=True),
        first.evaluation(Preprocessing("short_side")),
        second.evaluation(),
        Cell(deit(), Evaluate(first.weights(strict=False), PHOTOS, MICRO.evaluation)),
        replace(first, task=replace(first.training, weights=first.weights())),
        replace(first, task=replace(first.training, weights=second.weights())),
    ]
    assert len({cell.key for cell in [first, second, *cells]}) == 2 + len(cells)
    assert first.evaluation().key == training(PHOTOS).evaluation().key
    assert first.evaluation().key == training(DataSource("photos", "/elsewhere"), workers=3).evaluation().key


def test_what_a_run_is_called_is_no_part_of_a_key() -> None:
    cell = training(PHOTOS).evaluation()
    assert isinstance(cell.task, Evaluate)
    renamed = replace(cell.task, weights=RunWeights(run=training(PHOTOS).key, label="something else"))
    assert Cell(cell.backbone, renamed).key == cell.key


def test_a_training_that_starts_from_scratch_or_a_file_needs_nothing() -> None:
    start = training(PHOTOS)
    assert start.needs == Cell(deit(), Costs()).needs == ()
    assert replace(start, task=replace(start.training, weights=Weights(digest="0" * 16))).needs == ()
    assert start.evaluation().needs == (start.key,)


def test_an_evaluation_is_by_default_the_one_of_the_recipe() -> None:
    cell = training(PHOTOS, precision="bf16").evaluation()
    assert isinstance(cell.task, Evaluate)
    assert (cell.task.preprocessing, cell.task.data, cell.task.precision) == (RECIPE.evaluation, PHOTOS, "bf16")
    assert cell.backbone == deit()


def test_weights_that_no_run_leaves_are_refused() -> None:
    start = training(PHOTOS, recipe=replace(RECIPE, ema_decay=None))
    with pytest.raises(ValueError, match=r"its recipe keeps no moving average \(ema_decay\): leave out ema=True$"):
        start.weights(ema=True)
    with pytest.raises(ValueError, match=r"a costs cell leaves no weights; a train cell does$"):
        Cell(deit(), Costs()).weights()
    with pytest.raises(ValueError, match=r"unknown weights 'first' of a run; allowed: last, best$"):
        start.weights("first")  # type: ignore[arg-type]


# Order


def test_a_cell_stands_after_what_it_needs_and_otherwise_where_it_was() -> None:
    first, second = training(PHOTOS), training(PHOTOS, seed=1)
    tuned = Cell(deit(image_size=(32, 32)), replace(first.training, weights=first.weights()))
    costs = Cell(deit(), Costs())
    cells = [tuned.evaluation(), costs, second.evaluation(), tuned, second, first]
    assert in_order(cells) == [first, tuned, tuned.evaluation(), costs, second, second.evaluation()]
    assert in_order([first, second.evaluation(), costs]) == [first, second.evaluation(), costs]


def test_cells_run_in_order_of_need_and_are_shown_in_their_own(data: DataSource, tmp_path: Path) -> None:
    """Trained at 16 pixels, fine-tuned at 32, evaluated: asked for the other way round."""
    start = training(data)
    tuned = Cell(deit(image_size=(32, 32)), replace(start.training, weights=start.weights(ema=True), seed=1))
    cells = [tuned.evaluation(), tuned, start]
    shown = console()
    found = run_all(cells, tmp_path, shown)
    assert [record.status for record in found] == ["done"] * 3
    assert [record.key for record in found] == [cell.key for cell in cells]
    assert found[0].metrics["top1"] == found[1].metrics["top1"]
    assert "started from last (EMA) of deit_micro " in shown.file.getvalue()  # type: ignore[attr-defined]
    assert "every tensor fits" in shown.file.getvalue()  # type: ignore[attr-defined]
    again = console()
    assert run_all(cells, tmp_path, again) == found
    assert "3 of 3 cells are recorded" in again.file.getvalue()  # type: ignore[attr-defined]


# What is taken


@pytest.mark.parametrize("ema", [False, True])
def test_an_evaluation_of_a_run_is_its_last_one_exactly(data: DataSource, out: Path, ema: bool) -> None:
    start = training(data)
    cell = start.evaluation(ema=ema)
    trained, evaluated = run_all([start, cell], out, console())
    suffix = "_ema" if ema else ""
    assert evaluated.metrics["top1"] == trained.metrics[f"top1{suffix}"]
    assert evaluated.metrics["val_list"] == trained.metrics["val_list"]
    bits = [np.load(path) for path in (out / cell.key / "correct.npy", out / start.key / f"correct{suffix}.npy")]
    assert np.array_equal(*bits)
    assert 0 < evaluated.metrics["top1"] < 100


def test_the_best_weights_and_the_average_are_those_of_the_run(data: DataSource, out: Path) -> None:
    start = training(data)
    folder = out / start.key
    assert located(start.weights(), out) == weights_in(folder)
    assert located(start.weights(ema=True, strict=False), out) == weights_in(folder, ema=True, strict=False)
    assert located(start.weights("best"), out) == weights_in(folder / checkpoints.BEST)


def test_a_fine_tuning_starts_from_the_weights_of_the_run(data: DataSource, out: Path) -> None:
    start = training(data)
    before = torch.load(checkpoints.all_of(out / start.key)[0], weights_only=True)
    frozen = replace(RECIPE, epochs=1, warmup_epochs=0.0, lr=1e-30, warmup_lr=1e-30, min_lr=1e-30)
    for ema in (False, True):
        tuned = replace(start, task=replace(start.training, recipe=frozen, weights=start.weights(ema=ema)))
        (record,) = run_all([tuned], out, console())
        assert record.status == "done"
        after = torch.load(checkpoints.all_of(out / tuned.key)[0], weights_only=True)
        wanted, found = before["ema" if ema else "model"], after["model"]
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


# What is not there


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> dict[str, float]:
        raise RuntimeError("planted failure")

    monkeypatch.setattr(run, "train", fail)


@pytest.mark.usefixtures("failing")
def test_what_needs_a_failed_training_fails_and_the_rest_goes_on(data: DataSource, tmp_path: Path) -> None:
    start = training(data)
    cells = [start.evaluation(), start, Cell(deit(), Costs())]
    found = run_all(cells, tmp_path, console())
    assert [record.status for record in found] == ["failed", "failed", "done"]
    needed = f"needs the training {start.weights().label} ({start.key}), which failed: RuntimeError: planted failure"
    assert outcome(found[0]) == f"failed: ValueError: {needed}"
    assert tables.table(found)["error"].iloc[0].startswith(f"evaluate failed: ValueError: {needed}")


@pytest.mark.usefixtures("failing")
def test_it_runs_once_the_training_has_been_mended(
    data: DataSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = training(data)
    run_all([start, start.evaluation()], tmp_path, console())
    monkeypatch.undo()
    assert [record.status for record in run_all([start, start.evaluation()], tmp_path, console())] == ["done"] * 2


def not_there(out: Path, start: Cell, state: str) -> None:
    (out / f"{start.key}.json").unlink()


def cut_short(out: Path, start: Cell, state: str) -> None:
    (out / f"{start.key}.json").unlink()
    checkpoints.path_of(out / start.key, 3).parent.mkdir()
    checkpoints.path_of(out / start.key, 3).write_bytes(b"")


def recorded_as(out: Path, start: Cell, state: str) -> None:
    error = f"Traceback\n{state.partition(': ')[2]}"
    status = "failed" if "failed" in state else "oom"
    results.write(out, results.Record(start.key, start.to_json(), status, {}, {}, error))


def damaged(out: Path, start: Cell, state: str) -> None:
    (out / f"{start.key}.json").write_text("{")


def emptied(out: Path, start: Cell, state: str) -> None:
    """Recorded as done, and its run folder removed."""


STATES: list[tuple[Callable[[Path, Cell, str], None], str]] = [
    (not_there, "is not recorded in OUT"),
    (cut_short, "has begun and is not done yet in OUT"),
    (recorded_as, "failed: RuntimeError: planted"),
    (recorded_as, "ran out of memory: MemoryError: planted"),
    (damaged, "has no intact record: OUT/KEY.json: not a complete JSON file: "),
    (emptied, "is done, but its last weights are no longer in OUT/KEY"),
]


@pytest.mark.parametrize(("make", "state"), STATES, ids=[state for _, state in STATES])
def test_without_the_training_it_is_refused_before_anything_is_measured(
    tmp_path: Path, make: Callable[[Path, Cell, str], None], state: str
) -> None:
    start = training(PHOTOS)
    results.write(tmp_path, results.Record(start.key, start.to_json(), "done", {}, {}))
    make(tmp_path, start, state)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=r"^deit_micro evaluate needs the training deit_micro ") as refusal:
        run_all([Cell(deit(), Costs()), start.evaluation()], tmp_path, console())
    text = str(refusal.value)
    said = state.replace("OUT", str(tmp_path)).replace("KEY", start.key)
    assert f" photos 2 epochs seed 0 ({start.key}), which {said}" in text
    assert text.endswith("; nor is that training among the cells to run")
    assert "\n" not in text
    assert sorted(tmp_path.rglob("*")) == before


def test_a_recorded_training_need_not_be_among_the_cells(data: DataSource, out: Path) -> None:
    (record,) = run_all([training(data).evaluation(Preprocessing("squash"))], out, console())
    assert record.status == "done"
    assert record.cell["task"]["preprocessing"]["kind"] == "squash"


def test_a_recorded_evaluation_needs_no_training_any_more(data: DataSource, out: Path, tmp_path: Path) -> None:
    cell = training(data).evaluation(which="best")
    (record,) = run_all([cell], out, console())
    results.write(tmp_path, record)
    assert run_all([cell], tmp_path, console()) == [record]
