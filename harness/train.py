"""Training and evaluating one model on one image set: the task `Train`. The loop itself is in harness/loop.py.

    Train(recipe=MICRO, data=DataSource("fashion_mnist_14k"), seed=0).run(spec, Path("run"), print)

The run folder then holds config.json, metrics.jsonl (a line per epoch), the newest two checkpoints, best.pt, and
correct.npy (the val images got right). A run that ended early, however it ended, goes on from its newest whole
checkpoint when it is asked for again; on a CPU it ends with the same weights bit for bit, whatever the number of
worker processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, get_args

from backbones import BackboneSpec
from harness.evaluate import Metrics, check_runtime
from harness.process.determinism import deterministic
from harness.process.ranks import ranks, usable
from harness.process.stopping import StopRequest
from harness.recipes import Recipe
from harness.runs import RunWeights
from harness.sources import DataSource, open_splits
from harness.speed import Mode, Precision
from harness.weights import Weights

if TYPE_CHECKING:
    from harness.data import TrainOrder


@dataclass(frozen=True)
class Train:
    """The task: train a model by a recipe, evaluating it on every val image after each epoch."""

    name: ClassVar[str] = "train"

    recipe: Recipe
    data: DataSource
    device: str = "cpu"  # or "cuda"
    precision: Precision = "fp32"  # bf16 and fp16 are autocast; weights, loss and updates stay float32
    seed: int = 0
    mode: Mode = "eager"  # or "compiled"
    weights: Weights | RunWeights | None = None  # to start from; None: from scratch
    # What follows is how it is run, and changes no result beyond the order of sums.
    workers: int = field(default=0, compare=False)  # processes that read images, for each rank
    device_batch: int | None = field(default=None, compare=False)  # most images at once on a device; None: no limit
    checkpoint_minutes: float = field(default=10.0, compare=False)  # between two checkpoints; 0: after every step
    cache: str | None = field(default=None, compare=False)  # folder where val crops are kept
    tensorboard: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        check_runtime(self.device, self.precision)
        if self.mode not in get_args(Mode):
            raise ValueError(f"unknown mode {self.mode!r}; allowed: {', '.join(get_args(Mode))}")
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} is not allowed; it takes a number from 0 up")
        if self.workers < 0 or self.checkpoint_minutes < 0:
            raise ValueError("workers and checkpoint_minutes take numbers from 0 up")
        if self.device_batch is not None and self.device_batch < 1:
            raise ValueError(f"device_batch is {self.device_batch}; it takes a number of images from 1 up")
        if self.tensorboard:
            from harness.loop import summary_writer

            summary_writer()

    @property
    def label(self) -> str:
        """For people: the task and its circumstances."""
        epochs = self.recipe.total_epochs
        start = "" if self.weights is None else f" from {self.weights.name}"
        return f"train {self.device} {self.precision} {self.data.name} {epochs} epochs seed {self.seed}{start}"

    def order(self, images: int) -> TrainOrder:
        """Which of so many training images each batch is made of. Raises ValueError if they do not fill a batch."""
        from harness.data import TrainOrder

        recipe = self.recipe
        return TrainOrder(images, recipe.batch, recipe.total_epochs, self.seed, recipe.repeated_augmentation)

    def run(self, spec: BackboneSpec, folder: Path, report: Callable[[str], None]) -> Metrics:
        """Trains, evaluates after each epoch, and returns the metrics of the last one.

        top1, top5, top1_stderr: percent of the n_images val images, by the weights as trained; top1_ema and so on: by
        their moving average, None without. top1_best, epoch_best: the largest over the epochs, of the average if there
        is one; chosen on the val images, so flattered by it. val_list: hash of the list of val images. train_loss: mean
        over the last epoch. nonfinite_steps: steps left out because a gradient was not finite. loop_images_per_s:
        training alone, all epochs, all ranks; data_wait_share: the part of that time, 0 to 1, in which the loop waited
        for images. lr: the largest learning rate, scaled to the batch. ranks, accumulation, device_batch: how the
        global batch was split.

        Raises ValueError for data, weights, a device or a disk that cannot be used (an unreadable image is named),
        FloatingPointError for losses or logits that are not finite, and Stopped on request.
        """
        from harness.loop import Loop

        group = ranks()
        device = usable(self.device, group)
        accumulation = split_batch(self.recipe, group.world, self.device_batch)
        splits = open_splits(self.data, spec.num_classes)
        if group.first:
            folder.mkdir(parents=True, exist_ok=True)
        with deterministic(device), StopRequest() as stop:
            return Loop(self, spec, folder, splits, device, group, accumulation, stop, report).run()


def split_batch(recipe: Recipe, world: int, device_batch: int | None) -> int:
    """Micro-batches per step and rank, as few as fit `device_batch` images each.

    Raises ValueError where the global batch of the recipe cannot be split evenly, naming what could.
    """
    each, rest = divmod(recipe.batch, world)
    pairs = 2 if recipe.mixes else 1  # mixup mixes the images of a micro-batch in pairs
    if rest or each % pairs:
        counts = [n for n in range(1, recipe.batch // pairs + 1) if recipe.batch % (n * pairs) == 0]
        raise ValueError(
            f"the recipe's global batch of {recipe.batch} does not divide among {world} processes; "
            f"allowed: {', '.join(map(str, counts))}"
        )
    most = device_batch or each
    for accumulation in range(-(-each // most), each // pairs + 1):
        if each % (accumulation * pairs) == 0:
            return accumulation
    raise ValueError(f"device_batch is {most}; mixup mixes pairs, so it takes 2 or more")
