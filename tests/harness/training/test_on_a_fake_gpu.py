"""What training and evaluation do with a GPU, up to its kernels: pinned images, scaler, average, checkpoints, waits."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from harness.cells import Cell, DataSource, Evaluate
from harness.cells.runtime import Precision
from harness.images.batches import Batch
from harness.process.stopping import Stopped, StopRequest
from harness.runner.run import run
from harness.training import checkpoints, loop
from harness.training.evaluation import Inference
from harness.training.learner import Learner, Setup
from harness.training.loading import weights_in
from tests.fake_gpu import DEVICE, FakeGpu, fake_gpu
from tests.harness.image_sets import coloured
from tests.harness.small_training import EVERYTHING, deit, task

PRECISIONS = pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])

WHERE_IT_WAITS = {
    *("Learner.__init__", "Normalise.__init__", "load_as", "Learner.load_state"),  # copies of weights and constants
    *("Loop._check_gradients", "Counts.mean_loss", "Loop._evaluate"),  # numbers, every ten steps and at an epoch's end
    *("Learner.state", "evaluate"),  # numbers of the scaler; answers of each batch
}
"""Functions that may wait for the GPU in a training; no step is among them."""


def functions(lines: Iterable[str]) -> set[str]:
    """The functions in which these lines are."""
    return {line.split()[0] for line in lines}


def micro_batch(images: int, *, pinned: bool = True) -> Batch:
    pixels = torch.zeros(images, 3, 16, 16, dtype=torch.uint8)
    batch = Batch(pixels, torch.zeros(images, dtype=torch.int64), torch.arange(images), torch.arange(images))
    return Batch(*(tensor.pin_memory() for tensor in batch)) if pinned else batch


def made_steps(gpu: FakeGpu, precision: Precision, accumulation: int, *, pinned: bool = True) -> Learner:
    """A learner after two steps, with nothing noted before the first."""
    recipe = replace(EVERYTHING, batch=16, mixup_images=4)
    learner = Learner(deit(depth=1), recipe, Setup(DEVICE, precision, accumulation=accumulation), 12)
    batches = [micro_batch(16 // accumulation, pinned=pinned) for _ in range(accumulation)]
    gpu.waits.clear()
    for number in range(2):
        learner.update(batches, number)
    return learner


@PRECISIONS
def test_a_step_never_waits(precision: Precision) -> None:
    with fake_gpu() as gpu:
        learner = made_steps(gpu, precision, accumulation=2)
    assert not gpu.waits, gpu.waits
    assert gpu.uploads.total() == 2 * 2 * 2, "images and targets of each micro-batch of both steps, and nothing else"
    assert not gpu.doubles
    assert learner.scaler.is_enabled() == (precision == "fp16")
    for name, model in learner.models().items():
        for parameter in model.parameters():
            assert (parameter.device, parameter.dtype) == (DEVICE, torch.float32), name
    for state in learner.optimizer.state.values():
        assert {value.device for value in state.values()} == {DEVICE}


def test_images_that_are_not_pinned_are_found() -> None:
    with fake_gpu() as gpu:
        made_steps(gpu, "fp32", accumulation=1, pinned=False)
    assert functions(gpu.waits) == {"Normalise.__call__", "Learner.loss"}


def noted_tf32(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, bool]]:
    """Whether cuDNN may use TF32, noted in each step and each batch of an evaluation."""
    seen: set[tuple[str, bool]] = set()
    loss, logits = Learner.loss, Inference.logits

    def noted_loss(self: Learner, batch: Batch, step: int, micro_batch: int) -> Tensor:
        seen.add(("training", torch.backends.cudnn.allow_tf32))
        return loss(self, batch, step, micro_batch)

    def noted_logits(self: Inference, model: nn.Module, images: Tensor) -> Tensor:
        seen.add(("evaluation", torch.backends.cudnn.allow_tf32))
        return logits(self, model, images)

    monkeypatch.setattr(Learner, "loss", noted_loss)
    monkeypatch.setattr(Inference, "logits", noted_logits)
    return seen


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_training_resumed_and_evaluated(
    tmp_path: Path, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out, cache = coloured(tmp_path / "images"), tmp_path / "runs", str(tmp_path / "crops")
    recipe = replace(EVERYTHING, batch=64, random_erasing=0.0)
    spec = deit(depth=1)
    monkeypatch.setattr(loop, "CHECK_EVERY", 2)
    tf32 = noted_tf32(monkeypatch)
    stop = iter([False, False, True])
    with fake_gpu() as gpu:
        this = task(folder, recipe, device="cuda", precision=precision, cache=cache)
        lines: list[str] = []
        with monkeypatch.context() as interrupted:
            interrupted.setattr(StopRequest, "asked", property(lambda self: next(stop)))
            with pytest.raises(Stopped):
                run(Cell(spec, this), out, lines.append)
        record = run(Cell(spec, this), out, lines.append)
        assert record.status == "done", record.error
        assert f"resumed after 3 of {2 * 3} updates" in lines
        assert record.environment["device_name"] == "a fake GPU"
        assert functions(gpu.waits) <= WHERE_IT_WAITS, functions(gpu.waits) - WHERE_IT_WAITS
        assert not gpu.doubles
        (weights, *_) = checkpoints.all_of(out / record.key)
        assert (checkpoints.read(weights)["scaler"] != {}) == (precision == "fp16")
        gpu.waits.clear()
        again = Evaluate(
            weights_in(weights), DataSource.folder(folder), device="cuda", precision=precision, batch=13,
            preprocessing=recipe.evaluation, cache=cache,
        )  # fmt: skip
        evaluated = run(Cell(spec, again), out, lines.append)
        assert evaluated.status == "done", evaluated.error
        assert functions(gpu.waits) <= {"evaluate_weights", "Normalise.__init__", "load_as", "evaluate"}
        assert functions(gpu.uploads) >= {"Normalise.__call__"}
    assert tf32 == {("training", False), ("evaluation", False)}
    assert torch.backends.cudnn.allow_tf32, "torch's default is left as it was"
