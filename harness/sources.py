"""Where images come from: opening the train and the val split of an image set, everything wrong with it said at once.

source = DataSource.folder("/data/photos")
splits = open_splits(source, num_classes=1000)
splits.val.image(0), splits.val.targets[0], splits.val.filename(0)
"""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
from PIL import Image
from timm.data.readers import create_reader
from timm.data.readers.img_extensions import get_img_extensions

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")
LAYOUT = "train/<class>/*.jpg and val/<class>/*.jpg"
DATASETS = Path(__file__).parent / "datasets"
EMBEDDED = {
    "fashion_mnist_14k": (
        "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
    )
}  # fmt: skip
IMAGENET = "imagenet"


@dataclass(frozen=True)
class DataSource:
    """An image set: an embedded one by its `name`, or a folder of the user's, whose name is its path.

    The name is what equality looks at, and so what a cell's key is made of.
    """

    name: str
    root: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.root is None and self.name not in (*EMBEDDED, IMAGENET):
            raise ValueError(f"unknown embedded image set {self.name!r}; there is: {', '.join(EMBEDDED)}")

    @classmethod
    def folder(cls, path: str | Path) -> "DataSource":
        """The folder of a user, with train/<class>/ and val/<class>/."""
        return cls(name=str(path), root=str(path))

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
    where = source.name
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
    if source.name not in EMBEDDED:
        raise ValueError(f"{source.name} does not come with the project; name its folder, with {LAYOUT}")
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
