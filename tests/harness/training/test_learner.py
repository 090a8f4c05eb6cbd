"""One step of the optimizer: what each field of a recipe does to it, and what it leaves out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import backbones
from harness.cells import Recipe
from harness.cells.runtime import Precision
from harness.images.batches import Batch
from harness.training import checkpoints
from harness.training.learner import Learner, Setup, create_optimizer
from tests.harness.small_training import RECIPE, deit
from tests.on_a_gpu import DEVICES


def batch_of(images: int = 4, size: int = 16) -> Batch:
    pixels = torch.randint(0, 256, (images, 3, size, size), generator=torch.Generator().manual_seed(0))
    return Batch(pixels.to(torch.uint8), torch.arange(images) % 3, torch.arange(images), torch.arange(images))


def learner(recipe: Recipe, precision: Precision = "fp32", updates_per_epoch: int = 10) -> Learner:
    return Learner(deit(), recipe, Setup(torch.device("cpu"), precision), updates_per_epoch)


def head(one: Learner) -> nn.Linear:
    classifier = one.model.head
    assert isinstance(classifier, nn.Linear)
    return classifier


def loss_of(one: Learner, step: int, batch: Batch | None = None) -> float:
    """The loss of one update."""
    before = one.counts.loss_sum.item()
    one.update([batch or batch_of()], step)
    return one.counts.loss_sum.item() - before


def test_a_step_without_a_finite_gradient_is_left_out_and_counted() -> None:
    one = learner(replace(RECIPE, ema_decay=0.9))
    one.update([batch_of()], step=5)
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    poison = head(one).weight.register_hook(lambda gradient: gradient * torch.inf)
    for step in (6, 7):
        one.update([batch_of()], step)
    assert (one.counts.skipped, one.counts.skipped_in_a_row, one.counts.finite_steps) == (2, 2, 1)
    assert all(torch.equal(value, before[name]) for name, value in one.model.state_dict().items())
    assert one.counts.loss_sum.isfinite()
    assert one.culprit([batch_of()], 8) == "the gradient of head.weight"
    poison.remove()
    one.update([batch_of()], 8)
    assert (one.counts.skipped, one.counts.skipped_in_a_row, one.counts.finite_steps) == (2, 0, 2)
    assert one.culprit([batch_of()], 8) is None


def test_fp16_finds_its_scale_and_keeps_it_in_the_state() -> None:
    one = learner(RECIPE, "fp16")
    one.scaler._init_scale = 2.0**60  # as its constructor would take it
    for step in range(60):
        one.update([batch_of()], step)
    assert one.counts.finite_steps > 10 < one.counts.skipped
    other = learner(RECIPE, "fp16")
    other.load_state(one.state())
    assert other.scaler.get_scale() == one.scaler.get_scale() < 2.0**60


def test_learning_rate_is_scaled_warmed_up_annealed_and_held() -> None:
    rates_at_512: dict[str, Any] = {"lr": 1.0, "warmup_lr": 0.1, "min_lr": 0.01}
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
    head(one).register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    one.update([batch_of()], step=5)
    assert seen == [{"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]]
    assert one.counts.loss_sum.dtype == torch.float32
    assert one.counts.finite_steps == 1
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
    assert torch.equal(head(one).weight, head(other).weight)
    other = learner(recipe)
    other.update([batch_of()], step=6)
    assert not torch.equal(head(one).weight, head(other).weight)


def test_a_step_trains_also_after_an_evaluation() -> None:
    one = learner(replace(RECIPE, drop_path=0.5))
    one.model.eval()
    one.update([batch_of()], step=5)
    assert one.model.training


def test_mixup_prob_of_zero_mixes_nothing() -> None:
    assert first_loss(replace(RECIPE, mixup=0.8, mixup_prob=0.0)) == pytest.approx(first_loss(RECIPE), rel=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_a_state_is_read_back_to_the_bit(tmp_path: Path, device: str) -> None:
    setup = Setup(torch.device(device), "bf16" if device == "cpu" else "fp16")
    one, other = (Learner(deit(), replace(RECIPE, ema_decay=0.9), setup, 10) for _ in range(2))
    for step in range(3):
        one.update([batch_of()], step)
    checkpoints.write(tmp_path / "state.pt", {"progress": None, **one.state()})
    other.load_state(checkpoints.read(tmp_path / "state.pt"))
    before, after = one.state(), other.state()
    for name in before:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=0)
