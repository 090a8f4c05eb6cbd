"""Supported layouts of a split, and detection of the one in use.

    found = find_split(Path("/data/imagenet"), "train")     # Found(layout="one tar", path=.../ILSVRC2012_img_train.tar)
    reader = open_split(found)

Train and val may have different layouts: ILSVRC2012_img_train.tar beside a folder `val/` of classes is common.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.cells.source import Split
from harness.images.parquet import ParquetReader
from harness.images.readers import SORT, FolderReader, Reader
from harness.images.tars import open_class_tars, open_shards, open_tar
from harness.images.zips import ZipReader
from results.wording import and_more

NAMES: dict[Split, tuple[str, ...]] = {"train": ("train",), "val": ("val", "validation")}  # the first that exists


@dataclass(frozen=True)
class Found:
    """A split in its layout: `path` names it, `open` lists its images."""

    layout: str
    path: Path
    open: Callable[[], Reader]


def _class_folders(root: Path, split: Split) -> tuple[Path, Callable[[], Reader]] | None:
    for name in NAMES[split]:
        folder = root / name
        if folder.is_dir():
            only_tars = _class_tar_files(folder) and not any(path.is_dir() for path in folder.iterdir())
            return None if only_tars else (folder, partial(FolderReader, folder))
    return None


def _class_tars(root: Path, split: Split) -> tuple[Path, Callable[[], Reader]] | None:
    for name in NAMES[split]:
        folder = root / name
        if folder.is_dir():
            tars = _class_tar_files(folder)
            return (folder, partial(open_class_tars, folder, tars)) if tars else None
    return None


def _class_tar_files(folder: Path) -> list[Path]:
    # the usual script unpacks ImageNet's val tar beside it and leaves it there
    return [path for path in folder.glob("*.tar") if not path.name.startswith("ILSVRC2012_img_")]


def _one_tar(root: Path, split: Split) -> tuple[Path, Callable[[], Reader]] | None:
    for name in (*NAMES[split], f"ILSVRC2012_img_{split}"):
        path = root / f"{name}.tar"
        if path.is_file():
            return path, partial(open_tar, path)
    return None


def _zip_and_map(root: Path, split: Split) -> tuple[Path, Callable[[], Reader]] | None:
    path = root / f"{split}.zip"
    return (path, partial(ZipReader, path, root / f"{split}_map.txt")) if path.is_file() else None


def _shards(root: Path, split: Split) -> tuple[Path, Callable[[], Reader]] | None:
    pattern = re.compile(rf"(?P<set>(.*[-_.])?({'|'.join(NAMES[split])})[-_.](.*[-_.])?)(?P<number>\d+)\.tar")
    paths = _numbered_files(root, pattern)
    return (paths[0], partial(open_shards, paths)) if paths else None


def _parquet(root: Path, split: Split) -> tuple[Path, Callable[[], Reader]] | None:
    pattern = re.compile(rf"(?P<set>{'|'.join(NAMES[split])})-(?P<number>\d+)-of-(?P<of>\d+)(-\w+)?\.parquet")
    for folder in (root / "data", root):
        paths = _numbered_files(folder, pattern) if folder.is_dir() else []
        if paths:
            return paths[0], partial(ParquetReader, paths)
    return None


def _numbered_files(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    """Return the files whose names match `pattern`, in order of their numbers.

    The groups of the pattern are `set`, `number` and, if the names include it, `of`. Raises ValueError if the files
    belong to more than one set, or one of a set is missing.
    """
    found = {path: match for path in folder.iterdir() if (match := pattern.fullmatch(path.name)) and path.is_file()}
    paths = sorted(found, key=lambda path: int(found[path]["number"]))
    if len(sets := sorted({match["set"] for match in found.values()})) > 1:
        raise ValueError(f"{folder} has files of more than one set: {', '.join(sets)}; keep one of them in a folder")
    counts = {int(match["of"]) for match in found.values() if match.groupdict().get("of")}
    for number, path in enumerate(paths):
        if int(found[path]["number"]) != number:
            raise ValueError(f"{folder}: file number {number}, before {path.name}, is missing")
    if counts and counts != {len(paths)}:
        raise ValueError(f"{folder} has {len(paths)} of the {max(counts)} files of {paths[0].name}")
    return paths


# name, example, and a function that finds a split in this layout
LAYOUTS: tuple[tuple[str, str, Callable[[Path, Split], tuple[Path, Callable[[], Reader]] | None]], ...] = (
    ("class folders", "train/<class>/*.jpg and val/<class>/*.jpg", _class_folders),
    ("one tar per class", "train/<class>.tar", _class_tars),
    ("one tar", "train.tar or ILSVRC2012_img_train.tar, of class folders or of one tar per class", _one_tar),
    ("zip and map", "train.zip with train_map.txt", _zip_and_map),
    ("webdataset shards", "*train*-000000.tar", _shards),
    ("parquet", "[data/]train-00000-of-<n>.parquet", _parquet),
)
ACCEPTED = "; ".join(looks for _, looks, _ in LAYOUTS)


def find_split(root: Path, split: Split) -> Found:
    """Return the one layout of a split, without opening it.

    Raises ValueError, in one line, for a missing or empty folder, and for a split that is missing or there twice.
    """
    if not root.is_dir():
        raise ValueError(f"data folder {root} does not exist or is not a folder; expected {ACCEPTED}")
    if not any(root.iterdir()):
        raise ValueError(f"data folder {root} is empty; expected {ACCEPTED}")
    found = []
    for layout, _, look in LAYOUTS:
        if place := look(root, split):
            found.append(Found(layout, *place))
    if not found:
        there = sorted(path.name for path in root.iterdir())
        raise ValueError(
            f"data folder {root} has no folder {NAMES[split][0]!r}, nor this split in another layout; "
            f"it has {and_more(there, 5)}; expected {ACCEPTED}; val likewise"
        )
    if len(found) > 1:
        listed = " and as ".join(f"{one.layout} ({one.path.relative_to(root)})" for one in found)
        raise ValueError(f"data folder {root} has the {split} split as {listed}; keep one of them in this folder")
    return found[0]


def open_split(found: Found) -> Reader:
    """List the images of a split. Raises ValueError, in one line, where its layout is not as it should be."""
    reader = found.open()
    if len(reader.classes) == 1:
        raise ValueError(f"{found.path} has only the class {reader.classes[0]!r}; expected two or more: {SORT}")
    return reader
