"""Training and evaluating: a run learns, repeats itself bit for bit, evaluates every image once; recipe fields act."""

import json
import re
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

import backbones
import results
from harness.cells import MICRO, Cell, DataSource, Preprocessing, Recipe, Train
from harness.cells.recipe import LR_BATCH
from harness.cells.runtime import Precision
from harness.images.batches import Batch, Images
from harness.images.sources import open_splits
from harness.images.transforms import Normalise, eval_transform
from harness.process.ranks import Ranks
from harness.runner.run_all import run_all
from harness.training import checkpoints, evaluation, loop
from harness.training.learner import Learner, create_optimizer
from harness.training.loop import train
from tests.harness.image_sets import coloured

CPU = torch.device("cpu")
PAD = Preprocessing("pad", crop_pct=1.0)
NORMALISE = Normalise(PAD, 3, CPU)
RECIPE = replace(MICRO, epochs=2, batch=16, warmup_epochs=0.5, lr=2e-3 * LR_BATCH / 16)
EVERYTHING = replace(
    RECIPE,
    drop_path=0.2,
    label_smoothing=0.1,
    mixup=0.8,
    cutmix=1.0,
    random_erasing=0.25,
    rand_augment="rand-m9-mstd0.5-inc1",
    ema_decay=0.9,
)


def deit(**changes: object) -> backbones.BackboneSpec:
    """A DeiT of 6,000 parameters for 16 x 16 pixels and three classes."""
    size = {"dim": 16, "depth": 2, "heads": 2, "image_size": (16, 16), "num_classes": 3}
    return replace(backbones.preset("deit_micro"), **(size | changes))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured(tmp_path_factory.mktemp("images"))


def task(folder: Path, recipe: Recipe = RECIPE, **changes: object) -> Train:
    return replace(Train(recipe, DataSource.folder(folder)), **changes)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return checkpoints.read(checkpoints.all_of(run)[0])["model"]


def batch_of(images: int = 4, size: int = 16) -> Batch:
    pixels = torch.randint(0, 256, (images, 3, size, size), generator=torch.Generator().manual_seed(0))
    return Batch(pixels.to(torch.uint8), torch.arange(images) % 3, torch.arange(images), torch.arange(images))


def learner(recipe: Recipe, precision: Precision = "fp32", updates_per_epoch: int = 10) -> Learner:
    return Learner(deit(), recipe, CPU, precision, seed=0, updates_per_epoch=updates_per_epoch, ranks=Ranks())


def loss_of(one: Learner, step: int, batch: Batch | None = None) -> float:
    """The loss of one update."""
    before = one.loss_sum.item()
    one.update([batch or batch_of()], step)
    return one.loss_sum.item() - before


# A whole run


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_learns(folder: Path, tmp_path: Path, precision: str) -> None:
    lines: list[str] = []
    metrics = train(task(folder, replace(RECIPE, epochs=5), precision=precision), deit(), tmp_path, lines.append)
    epochs = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3, 4, 5]
    assert epochs[-1]["train_loss"] < 0.7 * epochs[0]["train_loss"]
    assert metrics["top1"] > 90, "chance is 33"
    assert metrics["train_loss"] == epochs[-1]["train_loss"]
    assert len([line for line in lines if "top-1" in line]) == 5


def test_a_run_leaves_what_it_says(folder: Path, tmp_path: Path) -> None:
    metrics = train(task(folder), deit(name="mine"), tmp_path / "run", print)
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
    again = evaluation.evaluate(model, images, normalise=NORMALISE, device=CPU, autocast=None, batch=5, workers=0)
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
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_embedded_images_train(tmp_path: Path) -> None:
    spec = deit(image_size=(32, 32), num_classes=10)
    recipe = replace(MICRO, epochs=1, warmup_epochs=0.1, batch=256, lr=6e-3)
    metrics = train(Train(recipe, DataSource(name="fashion_mnist_14k")), spec, tmp_path, print)
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
    metrics = train(task(folder, replace(RECIPE, epochs=1), workers=workers), deit(), tmp_path, lines.append)
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


def test_a_step_without_a_finite_gradient_is_left_out_and_counted() -> None:
    one = learner(replace(RECIPE, ema_decay=0.9))
    one.update([batch_of()], step=5)
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    poison = one.model.head.weight.register_hook(lambda gradient: gradient * torch.inf)
    for step in (6, 7):
        one.update([batch_of()], step)
    assert (one.skipped, one.skipped_in_a_row, one.finite_steps) == (2, 2, 1)
    assert all(torch.equal(value, before[name]) for name, value in one.model.state_dict().items())
    assert one.loss_sum.isfinite()
    assert one.culprit([batch_of()], 8) == "the gradient of head.weight"
    poison.remove()
    one.update([batch_of()], 8)
    assert (one.skipped, one.skipped_in_a_row, one.finite_steps) == (2, 0, 2)
    assert one.culprit([batch_of()], 8) is None


def test_fp16_finds_its_scale_and_keeps_it_in_the_state() -> None:
    one = learner(RECIPE, "fp16")
    one.scaler._init_scale = 2.0**60  # as its constructor would take it
    for step in range(60):
        one.update([batch_of()], step)
    assert one.finite_steps > 10 < one.skipped
    other = learner(RECIPE, "fp16")
    other.load_state(one.state())
    assert other.scaler.get_scale() == one.scaler.get_scale() < 2.0**60


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "at least 1"),
        ({"batch": 15, "mixup": 0.8}, "must be even, got 15"),
        ({"warmup_epochs": 2.0}, "must lie in the 2 epochs"),
        ({"mixup_prob": 0.5}, "no effect without mixup or cutmix"),
        ({"color_jitter": 0.4, "rand_augment": "rand-m9"}, "timm drops it"),
        ({"augmentation": "large"}, "allowed: small, imagenet"),
        ({"interpolation": "nearest"}, "allowed: bilinear, bicubic"),
    ],
)
def test_contradictions_in_a_recipe_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(RECIPE, **changes)


@pytest.mark.parametrize(
    ("changes", "message"), [({"device": "tpu"}, "allowed: cpu, cuda"), ({"precision": "fp8"}, "fp32, bf16, fp16")]
)
def test_unknown_device_or_precision(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(Path("/nowhere"), **changes)


def test_cuda_that_is_not_there(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ValueError, match="torch finds no CUDA device here; allowed: cpu"):
        train(task(tmp_path, device="cuda"), deit(), tmp_path, print)


# One step


def test_learning_rate_is_scaled_warmed_up_annealed_and_held() -> None:
    rates_at_512 = {"lr": 1.0, "warmup_lr": 0.1, "min_lr": 0.01}
    recipe = replace(RECIPE, batch=1024, epochs=4, cooldown_epochs=1, warmup_epochs=1, **rates_at_512)
    scheduler = learner(recipe).scheduler
    rates = [scheduler._get_lr(step)[0] for step in range(50)]  # step_update would need optimizer steps between
    assert rates[0] == pytest.approx(0.2), "twice, for a batch of twice LR_BATCH"
    assert rates[10] == pytest.approx(0.02 + (2 - 0.02) * (1 + np.cos(np.pi * 10 / 40)) / 2)
    assert rates[5] == pytest.approx((0.2 + 2) / 2)
    assert rates[39] < 0.04
    assert rates[40:] == [pytest.approx(0.02)] * 10
    assert recipe.total_epochs == 5


@pytest.mark.parametrize("name", ["deit_micro", "pvt_micro", "pvt_v2_micro", "swin_micro", "cswin_micro"])
def test_weight_decay_groups_are_the_official_ones(name: str) -> None:
    model = backbones.build(backbones.preset(name))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = {group["weight_decay"]: group["params"] for group in create_optimizer(model, RECIPE).param_groups}
    assert set(groups) == {0.0, RECIPE.weight_decay}
    decayed, undecayed = ({names[id(p)] for p in groups[decay]} for decay in (RECIPE.weight_decay, 0.0))
    assert decayed | undecayed == set(names.values())
    special = ("pos_embed", "cls_token", "relative_position_bias_table")
    for parameter_name, parameter in model.named_parameters():
        expected = parameter.ndim == 1 or parameter_name.endswith((".bias", *special))
        assert (parameter_name in undecayed) == expected, parameter_name
    assert any(parameter_name.endswith("weight") for parameter_name in decayed)


def test_optimizer_has_the_recipes_values() -> None:
    (group, *_) = create_optimizer(nn.Linear(2, 2), replace(RECIPE, betas=(0.8, 0.95), eps=1e-6)).param_groups
    assert (group["betas"], group["eps"], group["lr"]) == ((0.8, 0.95), 1e-6, pytest.approx(2e-3))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_precision_is_that_of_the_forward_pass(precision: Precision) -> None:
    one = learner(RECIPE, precision)
    seen = []
    one.model.head.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    one.update([batch_of()], step=5)
    assert seen == [{"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]]
    assert one.loss_sum.dtype == torch.float32
    assert one.finite_steps == 1
    assert all(parameter.dtype == torch.float32 for parameter in one.model.parameters())


def test_clip_grad_bounds_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    def norm(clip_grad: float | None, precision: Precision) -> float:
        one = learner(replace(RECIPE, clip_grad=clip_grad), precision)
        monkeypatch.setattr(one.optimizer, "zero_grad", lambda: None)
        one.update([batch_of()], 5)
        return torch.cat([p.grad.flatten() for p in one.model.parameters() if p.grad is not None]).norm().item()

    assert norm(None, "fp32") > 0.5
    for precision in ("fp32", "fp16"):
        assert norm(0.1, precision) == pytest.approx(0.1, rel=1e-2)


def first_loss(recipe: Recipe, step: int = 5) -> float:
    return loss_of(learner(recipe), step)


@pytest.mark.parametrize(
    "changes",
    [
        {"label_smoothing": 0.3},
        {"mixup": 0.8},
        {"cutmix": 1.0},
        {"mixup": 0.8, "label_smoothing": 0.3},
        {"random_erasing": 1.0},
        {"drop_path": 0.5},
    ],
    ids=str,
)
def test_regularisers_change_the_loss_repeatably(changes: dict) -> None:
    recipe = replace(RECIPE, **changes)
    losses = [first_loss(recipe, step) for step in range(4)]
    assert losses == [first_loss(recipe, step) for step in range(4)]
    assert any(loss != first_loss(RECIPE) for loss in losses)


def test_smoothing_and_mixup_go_together() -> None:
    smooth, mixed = replace(RECIPE, label_smoothing=0.3), replace(RECIPE, mixup=0.8, mixup_prob=0.0)
    assert first_loss(replace(mixed, label_smoothing=0.3)) == pytest.approx(first_loss(smooth), rel=1e-6)
    assert first_loss(smooth) != pytest.approx(first_loss(RECIPE), rel=1e-3)


def test_randomness_of_a_step_is_a_function_of_seed_and_step() -> None:
    recipe = replace(RECIPE, drop_path=0.5, mixup=0.8)
    one, other = learner(recipe), learner(recipe)
    one.update([batch_of()], step=5)
    torch.rand(100), np.random.rand(100)  # the generators stand elsewhere
    other.update([batch_of()], step=5)
    assert torch.equal(one.model.head.weight, other.model.head.weight)
    other = learner(recipe)
    other.update([batch_of()], step=6)
    assert not torch.equal(one.model.head.weight, other.model.head.weight)


def test_a_step_trains_also_after_an_evaluation() -> None:
    one = learner(replace(RECIPE, drop_path=0.5))
    one.model.eval()
    one.update([batch_of()], step=5)
    assert one.model.training


def test_mixup_prob_of_zero_mixes_nothing() -> None:
    assert first_loss(replace(RECIPE, mixup=0.8, mixup_prob=0.0)) == pytest.approx(first_loss(RECIPE), rel=1e-6)


# Evaluation


@pytest.mark.parametrize(("batch", "workers"), [(1, 0), (7, 0), (39, 0), (64, 0), (7, 2), (39, 2), (64, 2)])
def test_every_image_is_evaluated_once(folder: Path, batch: int, workers: int) -> None:
    seen: list[torch.Tensor] = []
    modes: set[bool] = set()

    class Brightest(nn.Module):
        """Says the class right: the channel of the largest mean."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            modes.add(self.training)
            return x.mean((2, 3))

    images = Images(
        open_splits(DataSource.folder(folder), 3).val,
        eval_transform((16, 16), 3, PAD),
        seed=0,
    )
    model = Brightest()
    # class order is blue, green, red: the first and last guess are exchanged, green ones are right
    result = evaluation.evaluate(
        model, images, normalise=NORMALISE, device=CPU, autocast=None, batch=batch, workers=workers
    )
    assert len(torch.cat(seen)) == result.n_images == 39
    assert modes == {False}
    assert result.correct1.tolist() == [False] * 13 + [True] * 13 + [False] * 13
    assert result.top1 == pytest.approx(100 / 3)
    assert result.top5 == 100
    assert model.training


def test_evaluating_logits_that_are_not_finite_is_an_error(folder: Path) -> None:
    images = Images(
        open_splits(DataSource.folder(folder), 3).val,
        eval_transform((16, 16), 3, PAD),
        seed=0,
    )
    model = backbones.build(deit())
    nn.init.constant_(model.head.bias, torch.nan)
    with pytest.raises(FloatingPointError, match=r"val/blue/0\.png are not finite"):
        evaluation.evaluate(model, images, normalise=NORMALISE, device=CPU, autocast=None, batch=8, workers=0)
