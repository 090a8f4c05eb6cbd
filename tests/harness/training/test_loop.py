"""Training: a run learns, repeats itself bit for bit, leaves what it says, and stops where it cannot continue."""

import json
import os
import re
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import backbones
import results
from harness.cells import MICRO, Cell, DataSource, Recipe, Train
from harness.images.batches import Images
from harness.images.sources import open_splits
from harness.images.transforms import Normalise, eval_transform
from harness.process.usage import Usage
from harness.runner.run import run
from harness.runner.run_all import run_all
from harness.training import checkpoints, loop
from harness.training.evaluation import Inference, evaluate
from harness.training.learner import Learner
from harness.training.loop import train
from tests.harness.image_sets import coloured
from tests.harness.small_training import EVERYTHING, PAD, RECIPE, deit, task
from tests.on_a_gpu import DEVICES


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured(tmp_path_factory.mktemp("images"))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return checkpoints.read(checkpoints.all_of(run)[0])["model"]


# A whole run


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["fp32", "bf16", pytest.param("fp16", marks=pytest.mark.gpu)])
def test_it_learns(folder: Path, tmp_path: Path, precision: str, device: str) -> None:
    lines: list[str] = []
    workers = int(device == "cuda")  # their batches are pinned by a thread
    this = task(folder, replace(RECIPE, epochs=5), precision=precision, device=device, workers=workers)
    metrics: dict[str, Any] = train(this, deit(), tmp_path, lines.append)
    epochs = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3, 4, 5]
    assert epochs[-1]["train_loss"] < 0.7 * epochs[0]["train_loss"]
    assert metrics["top1"] > 90, "chance is 33"
    assert metrics["train_loss"] == epochs[-1]["train_loss"]
    assert len([line for line in lines if "top-1" in line]) == 5


def test_the_speed_of_a_training_beside_others_is_marked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel would say: others take a core, all the time or not at all."""
    total, spent = (
        Usage(0, 0, 0, 0, 0, 0, 0, 0),
        Usage(9.0, 9.0, 18.0, waited=9.0, others=9.0, stolen=0.0, throttled=0.0),
    )

    def read() -> Usage:
        nonlocal total
        total += spent
        return total

    monkeypatch.setattr(loop, "usage", read)
    metrics = train(task(folder), deit(), tmp_path / "busy", print)
    assert metrics["loop_disturbed"] == "other processes took its cores in 100 % of the time"
    assert metrics["loop_disturbed_share"] == 1
    spent = replace(spent, others=0.0)
    metrics = train(task(folder), deit(), tmp_path / "quiet", print)
    assert (metrics["loop_disturbed_share"], metrics["loop_disturbed"]) == (0, None)


def test_a_run_leaves_what_it_says(folder: Path, tmp_path: Path) -> None:
    metrics: dict[str, Any] = train(task(folder), deit(name="mine"), tmp_path / "run", print)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "best.pt",
        "checkpoint-00000012.pt",
        "checkpoint-00000024.pt",
        "config.json",
        "correct.npy",
        "metrics.jsonl",
    ]
    assert metrics["n_images"] == 39
    assert metrics["top5"] == 100
    assert metrics["top1_ema"] is None
    assert metrics["lr"] == pytest.approx(2e-3)
    p = metrics["top1"] / 100
    assert metrics["top1_stderr"] == pytest.approx(100 * (p * (1 - p) / 39) ** 0.5)
    assert 0 < metrics["data_wait_share"] < 1
    correct = results.read_correct(tmp_path / "run/correct.npy", 39)
    assert 100 * correct.mean() == pytest.approx(metrics["top1"])

    checkpoint = torch.load(tmp_path / "run/checkpoint-00000024.pt", weights_only=True)
    assert checkpoint["backbone"]["name"] == "mine"
    assert checkpoint["task"]["recipe"]["batch"] == 16
    model = backbones.build(deit())
    model.load_state_dict(checkpoint["model"])
    images = Images(
        open_splits(DataSource.folder(folder), 3).val,
        eval_transform((16, 16), 3, PAD),
        seed=0,
    )
    again = evaluate(model, images, Inference(Normalise(PAD, 3, torch.device("cpu")), batch=5))
    assert np.array_equal(again.correct1, correct)


@pytest.mark.parametrize("recipe", [RECIPE, EVERYTHING], ids=["plain", "everything"])
def test_same_seed_same_bits_whatever_the_workers(folder: Path, tmp_path: Path, recipe: Recipe) -> None:
    runs = {}
    for name, seed, workers in (("alone", 0, 0), ("again", 0, 0), ("workers", 0, 2), ("other", 1, 0)):
        torch.rand(3)  # where torch's generator stands before a run must not matter
        metrics = train(task(folder, recipe, seed=seed, workers=workers), deit(), tmp_path / name, lambda line: None)
        runs[name] = weights(tmp_path / name), metrics["train_loss"]
    first, loss = runs["alone"]
    for name in ("again", "workers"):
        assert all(torch.equal(runs[name][0][key], value) for key, value in first.items()), name
        assert runs[name][1] == loss
    assert not torch.equal(runs["other"][0]["head.weight"], first["head.weight"])


def test_a_run_resumed_with_another_split_of_its_batch_says_so(folder: Path, tmp_path: Path) -> None:
    this = task(folder, replace(RECIPE, epochs=1))
    train(this, deit(), tmp_path, print)
    lines: list[str] = []
    train(replace(this, device_batch=8), deit(), tmp_path, lines.append)
    assert lines[1:] == [
        "resumed after 12 of 12 updates",
        "warning: this run began as 1 x 1 x 16 and continues as 1 x 2 x 8: sums are taken in another order, so it does "
        "not repeat an uninterrupted run bit for bit",
    ]


def test_ema_is_evaluated_beside_the_model(folder: Path, tmp_path: Path) -> None:
    metrics = train(task(folder, replace(RECIPE, epochs=1, ema_decay=0.999999)), deit(), tmp_path, print)
    checkpoint = checkpoints.read(tmp_path / "checkpoint-00000012.pt")
    torch.manual_seed(0)
    initial = backbones.build(deit()).state_dict()
    for key, value in checkpoint["ema"].items():
        assert torch.allclose(value, initial[key], atol=1e-4), "an average this slow is still about where it began"
    assert not torch.equal(checkpoint["ema"]["head.weight"], initial["head.weight"])
    assert not torch.allclose(checkpoint["model"]["head.weight"], initial["head.weight"], atol=1e-3)
    assert metrics["top1_ema"] == pytest.approx(100 * results.read_correct(tmp_path / "correct_ema.npy", 39).mean())


def test_torch_is_left_as_it_was(folder: Path, tmp_path: Path) -> None:
    train(task(folder, replace(RECIPE, epochs=1)), deit(), tmp_path, print)
    assert not torch.are_deterministic_algorithms_enabled()
    # A property of the module that its stub does not know.
    assert torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]


def test_embedded_images_train(tmp_path: Path) -> None:
    spec = deit(image_size=(32, 32), num_classes=10)
    recipe = replace(MICRO, epochs=1, warmup_epochs=0.1, batch=256, lr=6e-3)
    data = DataSource(name="fashion_mnist_14k")
    metrics: dict[str, Any] = train(Train(recipe, data), spec, tmp_path, print)
    assert metrics["n_images"] == 2000
    assert metrics["top1"] > 20, "chance is 10"


def test_logs_for_tensorboard(folder: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(task(folder, tensorboard=True), deit(), tmp_path, print)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for name in ("top1", "train_loss"):
        logged = [(event.step, event.value) for event in events.Scalars(name)]
        assert logged == [(line["epoch"], pytest.approx(line[name])) for line in lines]


def test_tensorboard_that_is_not_installed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="need the package tensorboard: pip install tensorboard"):
        run_all([Cell(deit(), task(folder, tensorboard=True))], tmp_path / "out", Console(quiet=True))
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="torch.compile needs a C++ compiler")
def test_compiled_training_learns_the_same(folder: Path, tmp_path: Path) -> None:
    torch.compiler.reset()
    runs = {
        mode: train(task(folder, replace(RECIPE, epochs=1), mode=mode), deit(depth=1), tmp_path / mode, print)
        for mode in ("eager", "compiled")
    }
    assert runs["compiled"]["train_loss"] == pytest.approx(runs["eager"]["train_loss"], rel=1e-3)
    names = weights(tmp_path / "compiled").keys()
    assert names == weights(tmp_path / "eager").keys(), "without the prefix of compiled modules"
    for name, value in weights(tmp_path / "eager").items():
        assert torch.allclose(weights(tmp_path / "compiled")[name], value, atol=1e-3), name


@pytest.mark.parametrize("workers", [0, 1])
def test_a_starved_device_is_called_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Not a CPU that reads its images itself: it does not wait."""
    read = Images.__getitem__

    def slowly(self: Images, key: object) -> object:
        time.sleep(0.005)
        return read(self, key)  # type: ignore[arg-type]

    monkeypatch.setattr(Images, "__getitem__", slowly)
    lines: list[str] = []
    this = task(folder, replace(RECIPE, epochs=1), workers=workers)
    metrics: dict[str, Any] = train(this, deit(), tmp_path, lines.append)
    assert metrics["data_wait_share"] > 0.1
    warned = re.match(r"warning: the loop waited for images \d\d% of the time, above 10%", lines[-1])
    assert bool(warned) == bool(workers)


# What stops a run


def test_steps_without_a_finite_gradient_stop_it_with_batch_and_layer(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SKIPPED_IN_A_ROW", 5)
    with pytest.raises(FloatingPointError) as error:
        train(task(folder, replace(RECIPE, lr=1e30, warmup_epochs=0.0, clip_grad=None)), deit(), tmp_path, print)
    message = str(error.value)
    assert re.match(r"no finite gradient in \d+ steps in a row, up to update 10 of 12 of epoch 1", message)
    assert re.search(r"whose batch begins with .*/train/\w+/\d+\.png; first not finite: layer [\w.]+ \(\w+\)", message)
    assert "\n" not in message


def test_an_unreadable_training_image_is_named(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("*/*/*.png"):
        copy = tmp_path / "images" / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    broken = tmp_path / "images/train/red/3.png"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(ValueError, match="unreadable image") as error:
        train(task(tmp_path / "images", workers=1), deit(), tmp_path / "run", print)
    assert str(broken) in str(error.value)


def test_what_its_record_needs_is_tried_before_its_first_epoch(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(reader: object) -> str:
        raise ValueError("the list of val images has no hash")

    monkeypatch.setattr("harness.training.inputs.list_hash", fails)
    monkeypatch.setattr(Learner, "update", lambda *_: pytest.fail("made a step"))
    with pytest.raises(ValueError, match="has no hash"):
        train(task(folder), deit(), tmp_path / "run", print)


def test_names_that_are_not_utf8_are_trained_on_and_recorded(tmp_path: Path) -> None:
    images = coloured(tmp_path / "images", 8, 2)
    try:
        (images / "val/red/0.png").rename(os.fsdecode(os.fsencode(images) + b"/val/red/fa\xdfade.png"))
    except OSError:
        pytest.skip("needs a file system that takes any bytes as a name")
    record = run(Cell(deit(depth=1), task(images, replace(RECIPE, epochs=1))), tmp_path / "runs", print)
    assert (record.status, record.error) == ("done", None)
    assert record.metrics["n_images"] == 6


def test_cuda_that_is_not_there(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ValueError, match="torch finds no CUDA device here; allowed: cpu"):
        train(task(tmp_path, device="cuda"), deit(), tmp_path, print)
