"""The images of a recipe, read in turn by its own input and by timm's loader with the same transform.

What is timed is an epoch: files are read, decoded, transformed and put together by data workers, and on the device
normalised, erased and mixed, up to what a model gets. Workers start with each epoch, so that none of them is at work
while another reader is timed. Before that, images of the input "pillow" are compared with timm's, bit by bit.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, get_args

import torch

from backbones import BackboneSpec
from harness.cells import Recipe
from harness.cells.preprocessing import TrainInput
from harness.images.batches import Images, Key, TrainOrder, Unreadable, batches
from harness.images.readers import Reader
from harness.images.transforms import accept_zero_bits
from harness.measures.comparison import Ratio, interleaved
from harness.measures.quiet import PATIENCE, Watch, wait_for_quiet, watch
from harness.process.determinism import seed_generators
from harness.training.inputs import training_images
from harness.training.learner import Learner, Setup

if TYPE_CHECKING:
    from timm.data import ImageDataset

TIMM = "timm"
COMPARED = 8
"""Images that are compared with timm's before anything is timed."""


@dataclass(frozen=True)
class Reading:
    """How fast one reader was. seconds: of an epoch of so many `images`, two per round. ratio: over timm's time."""

    reader: str
    images: int
    seconds: tuple[float, ...]
    ratio: Ratio | None

    @property
    def images_per_s(self) -> tuple[float, float, float]:
        """The lower quartile, the median and the upper quartile."""
        low, middle, high = quantiles(self.seconds, n=4, method="inclusive")
        return self.images / high, self.images / middle, self.images / low


def race_inputs(
    folder: Path,
    reader: Reader,
    spec: BackboneSpec,
    recipe: Recipe,
    *,
    batch: int,
    workers: int,
    device: torch.device,
    min_seconds: float,
    report: Callable[[str], None],
    watching: Watch | None = None,
) -> list[Reading]:
    """Read the images of class folders in turn: by timm's loader, the baseline, and by each input that a recipe takes.

    folder: that of the classes, which `reader` has the images of. batch: images that are put together.
    min_seconds: per reader. Images have the size and channels of `spec`.

    Raises:
        ValueError: for a recipe without timm's transform, too few images, one that is unreadable, or bits that differ.
    """
    from timm.data import ImageDataset

    if recipe.augmentation != "imagenet":
        raise ValueError("timm has no such transform: this takes a recipe with the augmentation 'imagenet'")
    order = TrainOrder(len(reader), batch, epochs=1, seed=0)
    recipe = replace(recipe, batch=batch, mixup_images=None, ema_decay=None)
    spec = replace(spec, num_classes=len(reader.classes))
    learner = Learner(spec, recipe, Setup(device), order.batches_per_epoch)
    inputs = {name: training_images(reader, spec, replace(recipe, input=name), seed=0) for name in get_args(TrainInput)}
    theirs = ImageDataset(str(folder))
    loader = _loader(theirs, spec, recipe, workers, device)
    check_bits(inputs["pillow"], theirs)

    def timms() -> None:
        for images, targets in loader:
            if learner.mixup is not None:
                learner.mixup(images, targets)
        _wait(device)

    calls = [timms, *(_epochs(each, order, learner, workers) for each in inputs.values())]
    for call in calls:
        call()  # files come from memory from here on
    watching = watching or watch("cpu")  # where all of this is work of the cores
    wait_for_quiet(watching, PATIENCE * min_seconds, report)
    report("measuring")
    rounds = interleaved(calls, _seconds, min_seconds * len(calls), watching)
    images = order.batches_per_epoch * batch
    return [
        Reading(name, images, tuple(rounds.times(at)), rounds.ratio(at, 0) if at else None)
        for at, name in enumerate([TIMM, *inputs])
    ]


def check_bits(ours: Images, theirs: ImageDataset) -> None:
    """Raise ValueError unless the first images are timm's to the bit, from the same random numbers."""
    for index in range(min(COMPARED, len(ours))):
        key = Key(0, index)
        sample = ours[key]
        if isinstance(sample, Unreadable):
            raise ValueError(sample.message)
        seed_generators(key.seed(ours.seed))
        image, target = theirs[index]
        if sample.target != target or not torch.equal(sample.image, torch.as_tensor(image)):
            raise ValueError(f"{ours.reader.shown(index)} is not the image that timm makes of it")


def _epochs(images: Images, order: TrainOrder, learner: Learner, workers: int) -> Callable[[], None]:
    """Return a call that reads the next epoch as the training loop does, up to what the model gets."""
    device = learner.setup.device
    numbers = itertools.count()

    def epoch() -> None:
        number = next(numbers)
        keys = ([replace(key, epoch=number) for key in keys] for keys in order)
        stream = batches(images, keys, workers=workers, pin_memory=device.type == "cuda")
        for step, batch in enumerate(stream):
            learner.augmented(batch, batch.targets.to(device, non_blocking=True), step, 0)
        _wait(device)

    return epoch


def _loader(
    dataset: ImageDataset, spec: BackboneSpec, recipe: Recipe, workers: int, device: torch.device
) -> torch.utils.data.DataLoader:
    """Return timm's loader as its training script makes it, with the values of the recipe."""
    from timm.data import create_loader
    from timm.data.auto_augment import RandAugment

    loader = create_loader(
        dataset,
        (spec.in_channels, *spec.image_size),
        recipe.batch,
        is_training=True,
        re_prob=recipe.random_erasing,
        re_mode="pixel",
        color_jitter=recipe.color_jitter or None,
        auto_augment=recipe.rand_augment,
        interpolation=recipe.interpolation,
        mean=recipe.evaluation.mean,
        std=recipe.evaluation.std,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        device=device,
        persistent_workers=False,
    )
    for op in dataset.transform.transforms:
        if isinstance(op, RandAugment):
            accept_zero_bits(op)  # an epoch would end with an error from Pillow 13 on
    return loader


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
