"""Values from the command line in place of the cells' own: each acts on some cell, or is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backbones import preset
from harness.cells import FOLDER, MICRO, Cell, Costs, DataSource, Evaluate, Preprocessing, Speed, Train
from harness.cli.replacing import adjusted
from harness.cli.selection import ad_hoc, data_source, narrowed
from harness.sweeps.expand import expand
from harness.sweeps.quickstart import FASHION


def grid(*tasks: str) -> list[Cell]:
    return ad_hoc(["deit_micro"], [], tasks, {})


def keys(cells: list[Cell]) -> list[str]:
    return [cell.key for cell in cells]


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("device", "cuda"),
        ("precision", "bf16"),
        ("mode", "compiled"),
        ("channels_last", True),
        ("batch", 8),
    ],
)
def test_each_flag_of_speed_acts_and_changes_the_key(flag: str, value: Any) -> None:
    before = grid("speed")
    (after,) = adjusted(before, {flag: value})
    assert isinstance(after.task, Speed)
    assert getattr(after.task.runtime, flag) == value
    assert after.key != before[0].key
    assert after.backbone == before[0].backbone


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("device", "cuda", Train(recipe=MICRO, data=FASHION, device="cuda")),
        ("precision", "bf16", Train(recipe=MICRO, data=FASHION, precision="bf16")),
        ("mode", "compiled", Train(recipe=MICRO, data=FASHION, mode="compiled")),
        ("seed", (7,), Train(recipe=MICRO, data=FASHION, seed=7)),
    ],
)
def test_each_flag_of_training_acts_and_changes_the_key(flag: str, value: Any, expected: Train) -> None:
    before = grid("train")
    (after,) = adjusted(before, {flag: value})
    assert after.task == expected
    assert after.key != before[0].key


def test_epochs_change_the_recipe_alone() -> None:
    (after,) = adjusted(grid("train"), {"epochs": 9})
    assert isinstance(after.task, Train)
    assert after.task.recipe.epochs == 9
    assert after.task.recipe.lr == MICRO.lr
    assert after.key != grid("train")[0].key


def test_a_folder_of_images_brings_the_recipe_of_folders(tmp_path: Path) -> None:
    (after,) = adjusted(grid("train"), {"data": str(tmp_path)})
    assert after.task == Train(recipe=FOLDER, data=DataSource.folder(tmp_path))
    (embedded,) = adjusted(grid("train"), {"data": "fashion_mnist_14k"})
    assert embedded == grid("train")[0]


@pytest.mark.parametrize(("flag", "value"), [("workers", 3), ("device_batch", 8), ("cache", "crops")])
def test_how_a_training_is_run_changes_no_key(flag: str, value: Any) -> None:
    before = grid("train")
    (after,) = adjusted(before, {flag: value})
    assert getattr(after.task, flag) == value
    assert after.key == before[0].key


def test_data_tells_the_cells_of_imagenet_where_it_lies_and_leaves_their_recipe(tmp_path: Path) -> None:
    cells = narrowed(expand("paper_accuracy"), ["swin_b"])
    assert len([cell for cell in cells if cell.needs]) == 4
    for text in (str(tmp_path), f"imagenet={tmp_path}"):
        after = adjusted(cells, {"data": text})
        assert keys(after) == keys(cells), "the name is the same, and where it lies does not matter"
        assert {cell.training.data.root for cell in after} == {str(tmp_path)}
        assert [cell.training.recipe for cell in after] == [cell.training.recipe for cell in cells]
    assert data_source(f"imagenet={tmp_path}") == DataSource("imagenet", root=str(tmp_path))


def test_several_seeds_give_a_cell_each() -> None:
    cells = adjusted(grid("train", "costs"), {"seed": (0, 1, 2)})
    assert [c.task.seed for c in cells if isinstance(c.task, Train)] == [0, 1, 2]
    assert len(set(keys(cells))) == len(cells) == 4


def test_flags_together(tmp_path: Path) -> None:
    (cell,) = adjusted(
        grid("train"), {"device": "cuda", "precision": "fp16", "data": str(tmp_path), "epochs": 5, "seed": [3]}
    )
    task = cell.task
    assert isinstance(task, Train)
    assert (task.device, task.precision, task.recipe.epochs, task.seed) == ("cuda", "fp16", 5, 3)
    assert task.data.root == str(tmp_path)


def test_without_flags_nothing_changes() -> None:
    cells = grid("costs", "speed", "train")
    assert adjusted(cells, {}) == cells


def test_among_mixed_cells_a_flag_acts_where_it_can() -> None:
    costs, speed, train = adjusted(grid("costs", "speed", "train"), {"batch": 8, "epochs": 2, "precision": "bf16"})
    assert costs.task == Costs()
    assert isinstance(speed.task, Speed)
    assert isinstance(train.task, Train)
    assert (speed.task.runtime.batch, speed.task.runtime.precision) == (8, "bf16")
    assert (train.task.recipe.epochs, train.task.precision) == (2, "bf16")
    assert train.task.recipe.batch == MICRO.batch, "the batch of training is part of its recipe"


WITHOUT_EFFECT: dict[str, dict[str, Any]] = {
    "costs": {
        "device": "cpu",
        "precision": "fp32",
        "mode": "eager",
        "channels_last": False,
        "batch": 8,
        "data": "fashion_mnist_14k",
        "epochs": 1,
        "seed": (0,),
    },
    "speed": {"data": "fashion_mnist_14k", "epochs": 1, "seed": (0,), "workers": 2, "device_batch": 8, "cache": "x"},
    "train": {"channels_last": False, "batch": 8},
}


@pytest.mark.parametrize(
    ("task", "flag", "value"),
    [(task, flag, value) for task, flags in WITHOUT_EFFECT.items() for flag, value in flags.items()],
)
def test_a_flag_that_no_cell_can_use_is_refused(task: str, flag: str, value: Any) -> None:
    shown = {"channels_last": "--channels-last", "device_batch": "--device-batch"}.get(flag, f"--{flag}")
    with pytest.raises(ValueError, match=f"{shown} has no effect"):
        adjusted(grid(task), {flag: value})


@pytest.mark.parametrize(
    ("task", "flags", "message"),
    [
        ("speed", {"device": "tpu"}, "unknown device 'tpu'"),
        ("speed", {"precision": "int8"}, "unknown precision 'int8'"),
        ("speed", {"mode": "fast"}, "unknown mode 'fast'"),
        ("speed", {"batch": 0}, "batch is 0"),
        ("train", {"device": "tpu"}, "unknown device 'tpu'"),
        ("train", {"precision": "int8"}, "unknown precision 'int8'"),
        ("train", {"epochs": 0}, "at least 1, got 0"),
        ("train", {"seed": (-1,)}, "seed is -1; allowed are numbers from 0 up"),
    ],
)
def test_values_that_are_not_allowed(task: str, flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adjusted(grid(task), flags)


def test_cells_made_equal_by_flags_stand_once() -> None:
    assert len(keys(adjusted(grid("train"), {"seed": (1, 1)}))) == 1
    small, large = (adjusted(grid("speed"), {"batch": batch}) for batch in (8, 16))
    assert len(keys(adjusted(small + large, {"batch": 4}))) == 1


# Cells that need others


def following() -> list[Cell]:
    """A training, another at twice the size that goes on from it, and their evaluations; the last come first."""
    start = Cell(preset("deit_micro"), Train(recipe=MICRO, data=FASHION))
    tuned = Cell(preset("deit_micro", image_size=56), replace(start.training, weights=start.weights("best")))
    return [tuned.evaluation(), start.evaluation(Preprocessing("squash")), tuned, start]


def trainings(cells: list[Cell]) -> list[Cell]:
    return [cell for cell in cells if isinstance(cell.task, Train)]


@pytest.mark.parametrize(("flag", "value"), [("epochs", 7), ("device", "cuda"), ("precision", "bf16"), ("seed", (3,))])
def test_what_needs_a_training_follows_it_when_a_flag_makes_it_another(flag: str, value: Any) -> None:
    before, after = following(), adjusted(following(), {flag: value})
    assert [(cell.task.name, cell.backbone) for cell in after] == [(cell.task.name, cell.backbone) for cell in before]
    assert not set(keys(after)) & set(keys(before))
    tuned, start = trainings(after)
    wanted = [tuned.weights(), start.weights(), start.weights("best")]
    assert [cell.takes for cell in after] == [*wanted, None]
    assert [cell.takes.name for cell in after if cell.takes] == [weights.name for weights in wanted]


def test_with_several_seeds_a_training_goes_on_from_its_own_and_each_is_evaluated() -> None:
    after = adjusted(following(), {"seed": (0, 1)})
    start = {cell.training.seed: cell for cell in trainings(after) if not cell.needs}
    tuned = {cell.training.seed: cell for cell in trainings(after) if cell.needs}
    assert {seed: cell.needs for seed, cell in tuned.items()} == {seed: (start[seed].key,) for seed in (0, 1)}
    evaluated = [cell.needs[0] for cell in after if cell.task.name == "evaluate"]
    assert evaluated == [tuned[0].key, tuned[1].key, start[0].key, start[1].key]


def test_an_evaluation_by_the_recipe_stays_so_when_data_bring_another_recipe(tmp_path: Path) -> None:
    tuned, start, *_ = adjusted(following(), {"data": str(tmp_path)})
    assert isinstance(tuned.task, Evaluate)
    assert isinstance(start.task, Evaluate)
    assert tuned.task.preprocessing == FOLDER.evaluation != MICRO.evaluation
    assert start.task.preprocessing == Preprocessing("squash")


def test_what_needs_a_training_that_is_not_among_the_cells_keeps_it() -> None:
    before = following()[:1]
    (after,) = adjusted(before, {"precision": "bf16"})
    assert after.takes == before[0].takes
    assert after.key != before[0].key


def test_what_needs_a_training_follows_it_also_where_only_the_sweep_has_it() -> None:
    sweep = following()
    (after,) = adjusted(sweep[:1], {"epochs": 7}, sweep)
    assert after == adjusted(sweep, {"epochs": 7})[0]
    with pytest.raises(ValueError, match=r"--epochs has no effect on these cells"):
        adjusted(sweep[:1], {"epochs": 7})


def test_how_a_training_is_run_moves_nothing_that_needs_it() -> None:
    assert keys(adjusted(following(), {"workers": 3, "device_batch": 8})) == keys(following())
