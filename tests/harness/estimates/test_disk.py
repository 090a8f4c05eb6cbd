"""Disk: what is said of a run folder and of kept crops is what they take, within a few percent."""

from dataclasses import replace
from pathlib import Path

import pytest

from backbones import preset
from harness.cells import MICRO, DataSource, Preprocessing, Train
from harness.estimates.disk import kept_crops
from harness.training.loop import train
from harness.training.room import run_bytes, stored
from tests.harness.image_sets import coloured


@pytest.mark.parametrize("ema_decay", [None, 0.9], ids=["plain", "moving average"])
def test_a_run_folder_and_its_crops_take_what_was_said(tmp_path: Path, ema_decay: float | None):
    source = DataSource.folder(coloured(tmp_path / "images", train=8, val=3))
    # Pyramids have a norm that is never used: it is stored and has no moments.
    spec = preset(
        "flatten_pvt_t", image_size=32, num_classes=3, dims=(32, 32, 32, 32), heads=1, block_counts=(1, 1, 1, 1)
    )
    recipe = replace(MICRO, epochs=2, batch=8, augmentation="imagenet", ema_decay=ema_decay)
    task = Train(recipe, source, cache=str(tmp_path / "crops"))
    train(task, spec, tmp_path / "run", lambda text: None)

    run = sum(path.stat().st_size for path in (tmp_path / "run").iterdir())
    assert run_bytes(spec, task) == pytest.approx(run, rel=0.05)
    (crops,) = (tmp_path / "crops").iterdir()
    said = kept_crops(task.cache, source, spec, recipe.evaluation, 9)
    assert said is not None
    assert said.bytes == pytest.approx(crops.stat().st_size, rel=0.05)


def test_parameters_that_are_never_used_are_stored_and_not_trained():
    found = stored(preset("flatten_pvt_t"))
    assert found.trained == found.tensors - 2
    assert found.trained_bytes == found.bytes - 2 * 4 * 512


def test_crops_do_not_depend_on_what_comes_after_them_and_do_on_what_comes_before():
    spec, source = preset("deit_micro"), DataSource("fashion_mnist_14k")

    def what(preprocessing: Preprocessing) -> object:
        crops = kept_crops("cache", source, spec, preprocessing, 10)
        assert crops is not None
        return crops.what

    plain = Preprocessing()
    assert what(plain) == what(replace(plain, mean=(0.5, 0.5, 0.5)))
    assert what(plain) != what(replace(plain, crop_pct=1.0))
    assert kept_crops(None, source, spec, plain, 10) is None
