"""Training and evaluating one model on one image set: the recipe, the task `Train`, and the loop.

    Train(recipe=MICRO, data=DataSource(name="fashion_mnist_14k"), seed=0).run(spec, Path("run"), print)

The run folder then holds metrics.jsonl (a line per epoch), checkpoint.pt and correct.npy (the val images got right).

What is carried from one step to the next is the `Learner`'s model, optimizer, gradient scaler and moving average;
the learning rate, the images and everything random in step k are functions of the seed and k. On a CPU the same
seed gives the same weights bit for bit, whatever the number of worker processes.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from timm.data.mixup import Mixup
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from backbones import BackboneSpec, build
from harness.augment import (
    Normalise,
    RandomErasing,
    eval_transform,
    seed_generators,
    train_transform,
)
from harness.data import Batch, Images, TrainOrder, batches, seed_of
from harness.evaluate import evaluate
from harness.recipes import Recipe
from harness.sources import DataSource, list_hash, open_splits

Metrics = dict[str, float | int | str | None]
Precision = Literal["fp32", "bf16", "fp16"]
AUTOCAST: dict[Precision, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
DETERMINISTIC: Any = torch.utils.deterministic  # its attributes are made at run time, unseen by type checkers
CHECK_EVERY = 10  # steps between two looks at the loss; each look waits for the device
REPORT_EVERY = 5.0  # seconds
ERASING = 1  # tells the seed of an image's erasing from that of its transform


@dataclass(frozen=True)
class Train:
    """The task: train a model by a recipe, then evaluate it on every val image."""

    name: ClassVar[str] = "train"

    recipe: Recipe
    data: DataSource
    device: str = "cpu"  # or "cuda"
    precision: Precision = "fp32"  # bf16 and fp16 are autocast; weights, loss and updates stay float32
    seed: int = 0
    workers: int = field(default=0, compare=False)  # processes that read images; changes no result

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"unknown device {self.device!r}; allowed: cpu, cuda")
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} is not allowed; it takes a number from 0 up")
        if self.precision not in AUTOCAST:
            raise ValueError(f"unknown precision {self.precision!r}; allowed: {', '.join(AUTOCAST)}")

    @property
    def label(self) -> str:
        """For people: the task and its circumstances."""
        return (
            f"train {self.device} {self.precision} {self.data.name} {self.recipe.total_epochs} epochs seed {self.seed}"
        )

    def run(self, spec: BackboneSpec, folder: Path, report: Callable[[str], None]) -> Metrics:
        """Trains from scratch, evaluates after each epoch, and returns the metrics of the last one.

        top1, top5, top1_stderr: percent of the n_images val images, by the weights as trained; top1_ema: by their
        moving average, None without. val_list: hash of the list of val images. train_loss: mean over the last epoch.
        loop_images_per_s: training alone, all epochs; data_wait_share: the part of that time, 0 to 1, in which the
        loop waited for images. lr: the largest learning rate, scaled to the batch.

        Raises ValueError for data or a device that cannot be used (an unreadable image is named), and
        FloatingPointError for a loss or logits that are not finite.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device cuda was asked for and torch sees none; allowed here: cpu")
        device, recipe = torch.device(self.device), self.recipe
        splits = open_splits(self.data, spec.num_classes)
        train_images = Images(
            splits.train,
            train_transform(
                spec.image_size,
                spec.in_channels,
                augmentation=recipe.augmentation,
                rand_augment=recipe.rand_augment,
                color_jitter=recipe.color_jitter,
                interpolation=recipe.interpolation,
            ),
            self.seed,
        )
        val_images = Images(
            splits.val,
            eval_transform(spec.image_size, spec.in_channels, recipe.evaluation),
            self.seed,
        )
        order = TrainOrder(len(train_images), recipe.batch, recipe.total_epochs, self.seed)
        folder.mkdir(parents=True, exist_ok=True)

        with _deterministic(device), open(folder / "metrics.jsonl", "w") as log:
            learner = Learner(spec, recipe, device, self.precision, self.seed, order.batches_per_epoch)
            stream = batches(train_images, order, workers=self.workers, pin_memory=device.type == "cuda")
            clock = _Clock()
            for epoch in range(recipe.total_epochs):
                loss = _train_epoch(learner, stream, epoch, order.batches_per_epoch, clock, report)
                evaluations = {
                    name: evaluate(
                        model,
                        val_images,
                        normalise=Normalise(recipe.evaluation, spec.in_channels, device),
                        device=device,
                        autocast=AUTOCAST[self.precision],
                        batch=recipe.batch,
                        workers=self.workers,
                    )
                    for name, model in learner.models().items()
                }
                raw = evaluations["model"]
                metrics: Metrics = {
                    "top1": raw.top1,
                    "top1_stderr": raw.top1_stderr,
                    "top5": raw.top5,
                    "top1_ema": evaluations["ema"].top1 if "ema" in evaluations else None,
                    "n_images": raw.n_images,
                    "train_loss": loss,
                    "epochs": epoch + 1,
                    "loop_images_per_s": clock.images / clock.seconds,
                    "data_wait_share": clock.waited / clock.seconds,
                }
                log.write(json.dumps(metrics) + "\n")
                log.flush()
                report(f"epoch {epoch + 1}/{recipe.total_epochs}: loss {loss:.3f}, top-1 {raw.top1:.2f} %")
        raw.write(folder / "correct.npy")
        if "ema" in evaluations:
            evaluations["ema"].write(folder / "correct_ema.npy")
        state = {name: model.state_dict() for name, model in learner.models().items()}
        about = {"backbone": spec.to_json(), "task": {"name": self.name, **asdict(self)}, "epochs": recipe.total_epochs}
        write_checkpoint(folder / "checkpoint.pt", state | about)
        return metrics | {"lr": recipe.effective(recipe.lr), "val_list": list_hash(splits.val)}


class Learner:
    """A model and all that changes with it: one call of `update` is one step of the optimizer."""

    def __init__(
        self,
        spec: BackboneSpec,
        recipe: Recipe,
        device: torch.device,
        precision: Precision,
        seed: int,
        updates_per_epoch: int,
    ) -> None:
        seed_generators(seed, device)
        self.model = build(spec, drop_path=recipe.drop_path).to(device)
        self.ema = ModelEmaV3(self.model, recipe.ema_decay) if recipe.ema_decay is not None else None
        self.optimizer = create_optimizer(self.model, recipe)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.scheduler, _ = create_scheduler_v2(
            self.optimizer,
            "cosine",
            num_epochs=recipe.epochs,
            cooldown_epochs=recipe.cooldown_epochs,
            warmup_epochs=recipe.warmup_epochs,
            warmup_lr=recipe.effective(recipe.warmup_lr),
            min_lr=recipe.effective(recipe.min_lr),
            step_on_epochs=False,
            updates_per_epoch=updates_per_epoch,
        )
        self.normalise = Normalise(recipe.evaluation, spec.in_channels, device)
        self.erase = RandomErasing(recipe.random_erasing, device) if recipe.random_erasing else None
        self.mixup = (
            Mixup(
                mixup_alpha=recipe.mixup,
                cutmix_alpha=recipe.cutmix,
                prob=recipe.mixup_prob,
                label_smoothing=recipe.label_smoothing,
                num_classes=spec.num_classes,
            )
            if recipe.mixes
            else None
        )
        self.recipe, self.device, self.seed = recipe, device, seed
        self.autocast = AUTOCAST[precision]

    def models(self) -> dict[str, nn.Module]:
        """What is evaluated and saved: the model as trained, and its moving average if the recipe has one."""
        return {"model": self.model} | ({"ema": self.ema.module} if self.ema is not None else {})

    def update(self, batch: Batch, epoch: int, step: int) -> Tensor:
        """One step on one batch; `step` counts from the start of training. Returns the loss, on the device."""
        self.scheduler.step_update(step)
        images, targets = self.normalise(batch.images), batch.targets.to(self.device, non_blocking=True)
        if self.erase is not None:
            images = self.erase(images, [seed_of(self.seed, epoch, i, ERASING) for i in batch.indices.tolist()])
        seed_generators(seed_of(self.seed, step), self.device)  # of mixup and drop path
        if self.mixup is not None:
            images, targets = self.mixup(images, targets)  # targets (B,) -> (B, num_classes), label smoothing included
        smoothing = self.recipe.label_smoothing if self.mixup is None else 0.0

        self.model.train()
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            logits = self.model(images)
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)
        self.scaler.scale(loss).backward()
        if self.recipe.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update(self.model)
        return loss.detach()


def create_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW in the official optimizers' two groups: biases, 1-D parameters and `no_weight_decay()` do not decay."""
    return create_optimizer_v2(
        model,
        "adamw",
        lr=recipe.effective(recipe.lr),
        weight_decay=recipe.weight_decay,
        betas=recipe.betas,
        eps=recipe.eps,
    )


@dataclass
class _Clock:
    """Time spent in training, evaluation left out."""

    images: int = 0
    seconds: float = 0.0
    waited: float = 0.0  # seconds of these in which no batch was there yet


def _train_epoch(
    learner: Learner,
    stream: Iterator[Batch],
    epoch: int,
    updates: int,
    clock: _Clock,
    report: Callable[[str], None],
) -> float:
    """Trains on the next `updates` batches, which are those of one epoch, and returns their mean loss."""
    total = torch.zeros((), device=learner.device)
    since = reported = time.perf_counter()
    for i in range(updates):
        asked = time.perf_counter()
        batch = next(stream)
        clock.waited += time.perf_counter() - asked
        total += learner.update(batch, epoch, epoch * updates + i)
        clock.images += len(batch.targets)
        if (i + 1) % CHECK_EVERY and i + 1 < updates:
            continue
        if not math.isfinite(total.item()):  # waits for the device, therefore not in every step
            raise FloatingPointError(
                f"the loss became {total.item()} in epoch {epoch + 1}, at update {i + 1} of {updates} or up to "
                f"{CHECK_EVERY - 1} before it; a lower learning rate, warm-up or clip_grad may help"
            )
        now = time.perf_counter()
        clock.seconds += now - since
        since = now
        if now - reported > REPORT_EVERY:
            reported = now
            report(
                f"epoch {epoch + 1}, update {i + 1}/{updates}: loss {total.item() / (i + 1):.3f}, "
                f"{clock.images / clock.seconds:.0f} images/s"
            )
    return total.item() / updates


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Saves tensors and plain values (`torch.load` with weights_only reads them); a torn file never bears the name."""
    temporary = path.with_name(path.name + ".partial")
    with open(temporary, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """On a CPU, lets torch add up in a fixed order (the gradient of Swin's bias table would not be, with threads)."""
    switched_on, filling = torch.are_deterministic_algorithms_enabled(), DETERMINISTIC.fill_uninitialized_memory
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        DETERMINISTIC.fill_uninitialized_memory = False  # with NaN, a debugging aid, and slow
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(switched_on)
        DETERMINISTIC.fill_uninitialized_memory = filling
