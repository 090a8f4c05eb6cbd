"""Batches of images that depend on seed, epoch and index alone.

    splits = open_splits(source, num_classes=1000)             # see harness/images/sources.py
    images = Images(splits.train, transform, seed=0)
    for batch in batches(images, TrainOrder(len(images), batch=128, epochs=3, seed=0), workers=8):
        ...                                                    # Batch(images, targets, indices)

What is random about an image is drawn from generators seeded by (seed, epoch, index) just before it is transformed, and
the order of an epoch from (seed, epoch). So neither the number of workers nor a resume can change it. `shares` splits a
batch among processes and micro-batches in such a way that neither number changes which images are mixed.
"""

import signal
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from harness.cells import Train
from harness.images.readers import UNREADABLE, ArrayReader, Reader
from harness.images.transforms import TensorTransform, Transform
from harness.process.determinism import derived_seed, seed_generators

REPEAT = 2  # distinguishes the seed of a repeated image from other seeds of four numbers, such as that of its erasing


@dataclass(frozen=True)
class Key:
    """What a sampler passes to the data set; with the epoch in it, workers need not be told of a new one."""

    epoch: int
    index: int
    repeat: int = 0  # which of the copies in this epoch, each augmented on its own

    def seed(self, seed: int) -> int:
        """Return the seed of the generators for the transform of this image."""
        copy = (REPEAT, self.repeat) if self.repeat else ()  # a first copy is the same as without repeats
        return derived_seed(seed, self.epoch, self.index, *copy)


@dataclass(frozen=True)
class Sample:
    image: Tensor
    target: int
    index: int
    seed: int


class Batch(NamedTuple):
    images: Tensor  # (B, C, H, W) uint8
    targets: Tensor  # (B,) int64
    indices: Tensor  # (B,) int64, into the split
    seeds: Tensor  # (B,) int64, one per image, from its key: for what is random about it on the device


class Unreadable(NamedTuple):
    """Returned instead of a sample or batch: an exception would leave a worker process as a page of traceback."""

    message: str


class Images(Dataset[Sample | Unreadable]):
    """Transformed images of one split, by `Key`.

    Raises ValueError for a transform that decodes image files if the split is an array.
    """

    def __init__(self, reader: Reader, transform: Transform | TensorTransform, seed: int) -> None:
        if isinstance(transform, TensorTransform) and isinstance(reader, ArrayReader):
            raise ValueError(f"{reader.name} is an array and not image files: its training input must be 'pillow'")
        self.reader, self.transform, self.seed = reader, transform, seed

    def __len__(self) -> int:
        return len(self.reader.targets)

    def __getitem__(self, key: Key) -> Sample | Unreadable:
        try:
            transform = self._decoded(key.index)
        except UNREADABLE as error:
            return Unreadable(self.reader.unreadable(key.index, error))
        seed = key.seed(self.seed)
        seed_generators(seed)
        return Sample(transform(), self.reader.targets[key.index], key.index, seed)

    def _decoded(self, index: int) -> Callable[[], Tensor]:
        """Decode, and return the rest as a call: an error in that is ours and not the image's."""
        if isinstance(self.transform, TensorTransform):
            return partial(self.transform, self.transform.decode(self.reader.encoded(index)))
        return partial(self.transform, self.reader.rgb(index))


@dataclass(frozen=True)
class TrainOrder:
    """Batches of all epochs as one stream, each epoch shuffled anew; a last incomplete batch is dropped.

    repeats: repeated augmentation, as in DeiT: an epoch has the same number of images, but each image comes `repeats`
    times in a row, so an epoch shows only one in `repeats` images of the split.

    Batch k is a function of the fields and k alone: a resumed run has to know no more.
    """

    images: int
    batch: int
    epochs: int
    seed: int
    repeats: int = 1

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ValueError(f"repeats is {self.repeats}; allowed are numbers from 1 up")
        if self.batch > self.images:
            raise ValueError(f"a batch of {self.batch} needs as many training images; there are {self.images}")

    @property
    def batches_per_epoch(self) -> int:
        return self.images // self.batch

    def __iter__(self) -> Iterator[list[Key]]:
        return self.batches_from(0)

    def batches_from(self, step: int) -> Iterator[list[Key]]:
        """Yield the batches of the stream from number `step` on."""
        first, within = divmod(step, self.batches_per_epoch)
        for epoch in range(first, self.epochs):
            order = np.random.default_rng([self.seed, epoch]).permutation(self.images).tolist()
            begin = within * self.batch if epoch == first else 0
            for start in range(begin, self.batches_per_epoch * self.batch, self.batch):
                copies = (divmod(place, self.repeats) for place in range(start, start + self.batch))
                yield [Key(epoch, order[which], repeat) for which, repeat in copies]


def train_order(task: Train, images: int) -> TrainOrder:
    """Return the batches of `task` over so many training images. Raises ValueError if they do not fill a batch."""
    recipe = task.recipe
    return TrainOrder(images, recipe.batch, recipe.total_epochs, task.seed, recipe.repeated_augmentation)


def shares(batch: list[Key], world: int, accumulation: int) -> list[list[list[Key]]]:
    """Split a batch: return the keys of each micro-batch of each process, world x accumulation x keys.

    timm's mixup mixes image i of its input with image i from the end. Every micro-batch therefore takes half of its
    keys from the front of the batch and their mirror images from its back, so that the pairs are those of the undivided
    batch. A micro-batch of odd size (without mixup) is a contiguous part of the batch.
    """
    size, rest = divmod(len(batch), world * accumulation)
    assert rest == 0, f"{len(batch)} images for {world} x {accumulation} micro-batches"
    half, end = size // 2, len(batch)

    def part(number: int) -> list[Key]:
        if size % 2:
            return batch[number * size : (number + 1) * size]
        return batch[number * half : (number + 1) * half] + batch[end - (number + 1) * half : end - number * half]

    return [[part(rank * accumulation + micro) for micro in range(accumulation)] for rank in range(world)]


def eval_order(images: int, batch: int) -> list[list[Key]]:
    """Return batches of every image once, in order; the last batch may be smaller."""
    return [[Key(0, index) for index in range(start, min(start + batch, images))] for start in range(0, images, batch)]


def batches(images: Images, order: Iterable[list[Key]], *, workers: int, pin_memory: bool = False) -> Generator[Batch]:
    """Read `order`, in this process (workers=0) or in others. Raises ValueError naming an unreadable image."""
    loader = DataLoader(
        images,
        batch_sampler=order,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        worker_init_fn=worker_signals,
    )
    for batch in loader:
        if isinstance(batch, Unreadable):
            raise ValueError(batch.message)
        yield batch


def worker_signals(worker: int) -> None:
    """Set a worker's signal handlers, in place of those inherited from the training process.

    SIGTERM ends a worker, as the DataLoader sends it to do so. Ctrl-C and a scheduler's warnings reach all processes of
    a job, and only the trainer acts on them: it stops its workers when it no longer needs them.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def _collate(samples: list[Sample | Unreadable]) -> Batch | Unreadable:
    readable = []
    for sample in samples:
        if isinstance(sample, Unreadable):
            return sample
        readable.append(sample)
    return Batch(
        # in a worker, into memory that it shares with the trainer: no copy on the way
        default_collate([sample.image for sample in readable]),
        torch.tensor([sample.target for sample in readable]),
        torch.tensor([sample.index for sample in readable]),
        torch.tensor([sample.seed for sample in readable]),
    )
