"""Where images come from: opens the train and val splits of an image set, and checks them before anything is run.

    source = DataSource.folder("/data/photos")              # or DataSource("imagenet", root="/data/imagenet")
    splits = open_splits(source, num_classes=1000)
    splits.val.image(0), splits.val.targets[0], splits.val.filename(0)

The supported layouts of a split in a folder are in harness/images/layouts.py.
"""

import hashlib
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.cells import DataSource
from harness.cells.source import (
    EMBEDDED,
    FASHION_CLASSES,
    FASHION_MNIST,
    FASHION_MNIST_IMAGES,
    IMAGENET,
    IMAGENET_CLASSES,
    IMAGENET_IMAGES,
    Split,
    folder_and_columns,
)
from harness.images.idx import DEBIAN_FOLDER, idx_files, read_idx
from harness.images.layouts import find_split, open_split
from harness.images.names import encoded_name
from harness.images.readers import ArrayReader, Reader
from results.wording import and_more, printable

HERE = Path(__file__).parent
"""Where the embedded image sets are, one folder each."""
WNID = re.compile(r"n\d{8}")
ILSVRC_NUMBERS = (
    "ILSVRC's numbers are not in the order of the wnids, by which published weights number their classes; rename the "
    "folders to their wnids (synsets of meta.mat in ILSVRC's development kit)"
)


class Splits(NamedTuple):
    train: Reader
    val: Reader


def open_splits(source: DataSource, num_classes: int) -> Splits:
    """Open both splits and check that their classes are the same, in the same order, and as many as the model's.

    Raises ValueError, in one line, for a folder that is missing, empty or in an unsupported layout. timm alone would
    evaluate the training images where val is missing, and call every image class 0 where val is flat.
    """
    splits = Splits(train=_open(source, "train"), val=_open(source, "val"))
    if difference := class_difference(splits.train, splits.val):
        raise ValueError(f"{source.name}: {difference}")
    _check(source, {"train": splits.train, "val": splits.val}, num_classes)
    return splits


def open_val(source: DataSource, num_classes: int) -> Reader:
    """Open and check the val split alone; the training images need not be there."""
    val = _open(source, "val")
    _check(source, {"val": val}, num_classes)
    return val


def check_present(source: DataSource, *splits: Split) -> None:
    """Looks whether these splits are there, without listing their images, before a job waits for hours in vain.

    A folder that this machine does not see is passed over: it may lie on the disks of the nodes that will read it.
    Raises ValueError, in one line, as `open_splits`.
    """
    for split in splits:
        if source.root is None:
            _open(source, split)
            continue
        folder, columns = folder_and_columns(source.root)
        if source.name != FASHION_MNIST and folder.exists():
            find_split(folder, split, columns)


def class_difference(train: Reader, val: Reader) -> str | None:
    """Return a sentence on what is wrong with the classes of two splits of one set, or None."""
    one, other = set(train.classes), set(val.classes)
    if one != other and {*map(_composed, one)} == {*map(_composed, other)}:
        return (
            f"train and val spell the same classes in two forms of Unicode, as a Mac and other systems do: "
            f"{_some(one - other)}; rename those of one split"
        )
    if one != other:
        return (
            f"train and val must have the same classes; only in train: {_some(one - other)}; "
            f"only in val: {_some(other - one)}"
        )
    for target, (ours, theirs) in enumerate(zip(train.classes, val.classes, strict=True)):
        if ours != theirs:
            return (
                f"train and val must number classes the same way; class {target} is {printable(ours)} in train, "
                f"{printable(theirs)} in val"
            )
    return None


def _composed(name: str) -> str:
    """Return a name with every accent and its letter as one character, where there is one."""
    return unicodedata.normalize("NFC", name)


def imagenet_difference(splits: dict[Split, Reader]) -> str | None:
    """Return how the counts of a set differ from ImageNet-1K, or None."""
    wrong = []
    for split, reader in splits.items():
        if len(reader.classes) != IMAGENET_CLASSES:
            wrong.append(f"{split} has {len(reader.classes):,} classes instead of {IMAGENET_CLASSES:,}")
        if len(reader) != IMAGENET_IMAGES[split]:
            wrong.append(f"{split} has {len(reader):,} images instead of {IMAGENET_IMAGES[split]:,}")
        if all(map(WNID.fullmatch, reader.classes)) and list(reader.classes) != sorted(reader.classes):
            # published weights number the classes in the order of their wnids
            wrong.append(f"the classes of {split} are not numbered in the order of their wnids")
        if counted_from_one(reader):
            wrong.append(f"the classes of {split} are called 1 to {len(reader.classes)}: {ILSVRC_NUMBERS}")
    return "; ".join(wrong) or None


def counted_from_one(reader: Reader) -> bool:
    """Whether there are as many classes as in ImageNet, with the numbers that ILSVRC's development kit gives them."""
    numbers = [int(name) for name in reader.classes if name.isdecimal()]
    return len(reader.classes) == IMAGENET_CLASSES and sorted(numbers) == list(range(1, IMAGENET_CLASSES + 1))


def _check(source: DataSource, splits: dict[Split, Reader], num_classes: int) -> None:
    if source.name == IMAGENET and (difference := imagenet_difference(splits)):
        raise ValueError(f"{source.root} is not ImageNet-1K: {difference}")
    found = len(splits["val"].classes)
    if found != num_classes:
        raise ValueError(f"{source.name} has {found} classes, the model {num_classes}: --set num_classes={found}")


def _some(names: set[str]) -> str:
    return and_more([printable(name) for name in sorted(names)]) or "none"


def _open(source: DataSource, split: Split) -> Reader:
    if source.name in EMBEDDED:
        return _embedded(source.name, split)
    if source.name == FASHION_MNIST:
        return _fashion_mnist(Path(source.root or DEBIAN_FOLDER), split)
    if source.root is None:
        raise ValueError(f"{source.name} does not come with the project; say where it is: --data /path/to/imagenet")
    folder, columns = folder_and_columns(source.root)
    return open_split(find_split(folder, split, columns))


def _embedded(name: str, split: Split) -> Reader:
    path = HERE / name / f"{split}.npz"
    with np.load(path) as file:
        return ArrayReader(f"{name}/{split}", file["images"], file["labels"].tolist(), EMBEDDED[name], [path])


def _fashion_mnist(folder: Path, split: Split) -> Reader:
    paths = idx_files(folder, split)
    try:
        images, labels = map(read_idx, paths)
    except FileNotFoundError as error:
        raise ValueError(
            f"{FASHION_MNIST}: {error.filename} is missing; install it with: apt-get install dataset-fashion-mnist"
        ) from None
    if len(images) != FASHION_MNIST_IMAGES[split]:
        raise ValueError(f"{paths[0]} has {len(images):,} images instead of {FASHION_MNIST_IMAGES[split]:,}")
    return ArrayReader(f"{FASHION_MNIST}/{split}", images, labels.tolist(), FASHION_CLASSES, list(paths))


def list_hash(reader: Reader) -> str:
    """Return 16 hex digits over names (within the split) and targets: equal for evaluations of the same images."""
    digest = hashlib.sha256()
    for index, target in enumerate(reader.targets):
        digest.update(encoded_name(f"{'/'.join(Path(reader.filename(index)).parts[-2:])}\t{target}\n"))
    return digest.hexdigest()[:16]
