"""Batches of images that depend on nothing but seed, epoch and index.

    splits = open_splits(source, num_classes=1000)             # see harness/sources.py
    images = Images(splits.train, transform, seed=0)
    for batch in batches(images, TrainOrder(len(images), batch=128, epochs=3, seed=0), workers=8):
        ...                                                    # Batch(images, targets, indices)

What is random about an image is drawn from generators seeded by (seed, epoch, index) just before it is transformed, and
the order of an epoch from (seed, epoch). So neither the number of workers nor where a run was resumed can change it.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness.augment import Transform, seed_generators
from harness.sources import Reader


def seed_of(*key: int) -> int:
    """32 bits for a key such as (seed, epoch, index): neighbouring keys give unrelated seeds."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=4).digest())


@dataclass(frozen=True)
class Key:
    """What a sampler hands to the data set; with the epoch in it, workers need not be told when a new one begins."""

    epoch: int
    index: int


@dataclass(frozen=True)
class Sample:
    image: Tensor
    target: int
    index: int


class Batch(NamedTuple):
    images: Tensor  # (B, C, H, W) uint8
    targets: Tensor  # (B,) int64
    indices: Tensor  # (B,) int64, into the split


class Unreadable(NamedTuple):
    """In place of a sample or batch: an exception would leave a worker process as a page of traceback."""

    message: str


class Images(Dataset[Sample | Unreadable]):
    """Transformed images of one split, by `Key`."""

    def __init__(self, reader: Reader, transform: Transform, seed: int) -> None:
        self.reader, self.transform, self.seed = reader, transform, seed

    def __len__(self) -> int:
        return len(self.reader.targets)

    def __getitem__(self, key: Key) -> Sample | Unreadable:
        try:
            image = self.reader.image(key.index).convert("RGB")  # decodes
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            return Unreadable(f"unreadable image {self.reader.filename(key.index)}: {error}")
        seed_generators(seed_of(self.seed, key.epoch, key.index))
        return Sample(self.transform(image), self.reader.targets[key.index], key.index)


@dataclass(frozen=True)
class TrainOrder:
    """Batches of all epochs as one stream, each epoch a shuffle of its own; what does not fill a batch is left out.

    Batch k is a function of the fields and k alone: that is all a resumed run has to know.
    """

    images: int
    batch: int
    epochs: int
    seed: int

    def __post_init__(self) -> None:
        if self.batch > self.images:
            raise ValueError(f"a batch of {self.batch} needs as many training images, there are {self.images}")

    @property
    def batches_per_epoch(self) -> int:
        return self.images // self.batch

    def __iter__(self) -> Iterator[list[Key]]:
        for epoch in range(self.epochs):
            order = np.random.default_rng([self.seed, epoch]).permutation(self.images).tolist()
            for start in range(0, self.batches_per_epoch * self.batch, self.batch):
                yield [Key(epoch, index) for index in order[start : start + self.batch]]


def eval_order(images: int, batch: int) -> list[list[Key]]:
    """Every image once, in order; the last batch may be smaller."""
    return [[Key(0, index) for index in range(start, min(start + batch, images))] for start in range(0, images, batch)]


def batches(images: Images, order: Iterable[list[Key]], *, workers: int, pin_memory: bool = False) -> Iterator[Batch]:
    """Reads `order`, in this process (workers=0) or in others. Raises ValueError that names an unreadable image."""
    loader = DataLoader(images, batch_sampler=order, num_workers=workers, collate_fn=_collate, pin_memory=pin_memory)
    for batch in loader:
        if isinstance(batch, Unreadable):
            raise ValueError(batch.message)
        yield batch


def _collate(samples: list[Sample | Unreadable]) -> Batch | Unreadable:
    readable = []
    for sample in samples:
        if isinstance(sample, Unreadable):
            return sample
        readable.append(sample)
    return Batch(
        torch.stack([sample.image for sample in readable]),
        torch.tensor([sample.target for sample in readable]),
        torch.tensor([sample.index for sample in readable]),
    )
