"""Where images come from, as a value; harness/images opens them."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")

FASHION_CLASSES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
EMBEDDED = {"fashion_mnist_14k": FASHION_CLASSES}
FASHION_MNIST = "fashion_mnist"
FASHION_MNIST_IMAGES: dict[Split, int] = {"train": 60_000, "val": 10_000}
IMAGENET = "imagenet"
IMAGENET_CLASSES = 1000
IMAGENET_IMAGES: dict[Split, int] = {"train": 1_281_167, "val": 50_000}
KNOWN = (*EMBEDDED, FASHION_MNIST, IMAGENET)


@dataclass(frozen=True)
class Columns:
    """The columns of parquet files that hold images and labels; None: the only one that can be meant."""

    image: str | None = None
    label: str | None = None

    def __str__(self) -> str:
        given = {"image": self.image, "label": self.label}
        return "".join(f",{what}={name}" for what, name in given.items() if name is not None)


_COLUMN = re.compile(r"(?P<folder>.*),(?P<what>image|label)=(?P<name>[^,]+)")


def folder_and_columns(text: str) -> tuple[Path, Columns]:
    """Read a folder, and behind it the columns of its parquet files: `/data/cifar100,label=fine_label,image=img`."""
    columns = Columns()
    while found := _COLUMN.fullmatch(text):
        text, columns = found["folder"], replace(columns, **{found["what"]: found["name"]})
    return Path(text), columns


@dataclass(frozen=True)
class DataSource:
    """An image set by its `name`: one of KNOWN, or a user's folder, whose name is its path.

    `root` is the folder of `imagenet`, or the user's folder; `fashion_mnist` without a root is read from where Debian's
    package installs it. The columns of parquet files that leave a choice are named behind it, as `folder_and_columns`
    reads them.

    Only the name is compared for equality, and so enters the key of a cell.
    """

    name: str
    root: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.root is None and self.name not in KNOWN:
            raise ValueError(f"unknown image set {self.name!r}; allowed: {', '.join(KNOWN)}")
        if self.root is not None and self.name in EMBEDDED:
            raise ValueError(f"{self.name} comes with the project and takes no root, got {self.root}")

    @classmethod
    def folder(cls, path: str | Path) -> "DataSource":
        """Return a user's folder, with a train and a val split in one of the layouts of harness/images/layouts.py."""
        return cls(name=str(path), root=str(path))
