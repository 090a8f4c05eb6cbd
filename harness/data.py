"""Image sets: opening a train and a val split, and reading batches that depend on nothing but seed, epoch and index.

    source = DataSource(root="/data/imagenet")
    splits = open_splits(source, num_classes=1000)             # everything wrong with the folders is said here
    images = Images(splits.train, transform, seed=0)
    for batch in batches(images, TrainOrder(len(images), batch=128, epochs=3, seed=0), workers=8):
        ...                                                    # Batch(images, targets, indices)

What is random about an image is drawn from generators seeded by (seed, epoch, index) just before it is transformed, and
the order of an epoch from (seed, epoch). So neither the number of workers nor where a run was resumed can change it.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from timm.data.readers import create_reader
from timm.data.readers.img_extensions import get_img_extensions
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness.augment import Transform, seed_generators

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")
LAYOUT = "train/<class>/*.jpg and val/<class>/*.jpg"
DATASETS = Path(__file__).parent / "datasets"
EMBEDDED = {
    "fashion_mnist_14k": (
        "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
    )
}  # fmt: skip


@dataclass(frozen=True)
class DataSource:
    """Where images come from: an embedded set by `name`, or a folder `root` with train/<class>/ and val/<class>/."""

    name: str | None = None
    root: str | None = None

    def __post_init__(self) -> None:
        if (self.name is None) == (self.root is None):
            raise ValueError("a data source has either a name or a root folder")
        if self.name is not None and self.name not in EMBEDDED:
            raise ValueError(f"unknown embedded image set {self.name!r}; there is: {', '.join(EMBEDDED)}")

    def check(self, num_classes: int) -> None:
        """Raises what `open_splits` raises; for before a run, and without reading an image."""
        open_splits(self, num_classes)


class Reader(Protocol):
    """One split: images by index, in an order that never changes."""

    classes: tuple[str, ...]
    targets: list[int]

    def image(self, index: int) -> Image.Image:
        """The image, not yet decoded perhaps. Raises what Pillow raises."""

    def filename(self, index: int) -> str:
        """What to call it when speaking to the user."""


class Splits(NamedTuple):
    train: Reader
    val: Reader


def open_splits(source: DataSource, num_classes: int) -> Splits:
    """Both splits, checked: they exist, hold the same classes, and as many as the model tells apart.

    Raises ValueError, in one line, for a folder that is missing, empty or laid out in another way. timm alone would
    evaluate the training images where val is missing, and call every image class 0 where val is flat.
    """
    splits = Splits(*(_open(source, split) for split in SPLITS))
    train, val = set(splits.train.classes), set(splits.val.classes)
    where = source.root or source.name
    if train != val:
        raise ValueError(
            f"{where}: train and val must hold the same classes; only in train: {_some(train - val)}; "
            f"only in val: {_some(val - train)}"
        )
    if len(train) != num_classes:
        raise ValueError(f"{where} has {len(train)} classes, the model {num_classes}: --set num_classes={len(train)}")
    return splits


def _some(names: set[str]) -> str:
    shown = sorted(names)[:3]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "none"


def _open(source: DataSource, split: Split) -> Reader:
    if source.root is not None:
        return FolderReader(Path(source.root), split)
    assert source.name is not None
    return EmbeddedReader(source.name, split)


class EmbeddedReader:
    """An image set of this repository, held in memory."""

    def __init__(self, name: str, split: Split) -> None:
        with np.load(DATASETS / name / f"{split}.npz") as file:
            self.pixels: np.ndarray = file["images"]
            self.targets: list[int] = file["labels"].tolist()
        self.name = f"{name}/{split}"
        self.classes: tuple[str, ...] = EMBEDDED[name]

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])

    def filename(self, index: int) -> str:
        return f"{self.name}[{index}]"


class FolderReader:
    """`root/split/<class>/<image>` through timm's reader, which knows the suffixes and the natural order of classes."""

    def __init__(self, root: Path, split: Split) -> None:
        folder = root / split
        if not root.is_dir():
            raise ValueError(f"data folder {root} does not exist or is not a folder; expected {LAYOUT}")
        if not any(root.iterdir()):
            raise ValueError(f"data folder {root} is empty; expected {LAYOUT}")
        if not folder.is_dir():
            raise ValueError(f"data folder {root} has no folder {split!r}; expected {LAYOUT}")
        try:
            self.reader = create_reader("", root=str(folder))
        except RuntimeError:  # timm's word for no image
            raise ValueError(f"no image ({', '.join(get_img_extensions())}) in {folder}; expected {LAYOUT}") from None
        for path, _ in self.reader.samples:
            if os.path.dirname(os.path.dirname(path)) != str(folder):
                raise ValueError(f"{path} does not lie in a class folder directly under {folder}; expected {LAYOUT}")
        self.targets: list[int] = [target for _, target in self.reader.samples]
        self.classes: tuple[str, ...] = tuple(self.reader.class_to_idx)
        if len(self.classes) == 1:
            raise ValueError(f"{folder} has the one class {self.classes[0]!r}; expected two or more in {LAYOUT}")

    def image(self, index: int) -> Image.Image:
        return Image.open(self.reader.samples[index][0])

    def filename(self, index: int) -> str:
        return self.reader.samples[index][0]


def list_hash(reader: Reader) -> str:
    """16 hex digits over the names below the split and targets: equal for two evaluations of the same images."""
    digest = hashlib.sha256()
    for index, target in enumerate(reader.targets):
        digest.update(f"{'/'.join(Path(reader.filename(index)).parts[-2:])}\t{target}\n".encode())
    return digest.hexdigest()[:16]


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
