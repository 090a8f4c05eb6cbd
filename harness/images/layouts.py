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

from harness.cells.source import Columns, Split
from harness.images.names import SORT, SPLIT_FOLDERS, SPLIT_NAMES, left_behind
from harness.images.parquet import ParquetReader
from harness.images.readers import FolderReader, Reader
from harness.images.tars import open_class_tars, open_shards, open_tar
from harness.images.zips import ZipReader
from results.wording import and_more

Places = list[tuple[Path, Callable[[], Reader]]]
"""Where a split lies in one layout, and how it is opened there; more than one place is one too many."""


@dataclass(frozen=True)
class Found:
    """A split in its layout: `path` names it, `open` lists its images."""

    layout: str
    path: Path
    open: Callable[[], Reader]


def _class_folders(root: Path, name: str, columns: Columns) -> Places:
    folder = root / name
    if not folder.is_dir() or (_in_files(folder) and not any(path.is_dir() for path in _entries(folder))):
        return []
    return [(folder, partial(FolderReader, folder))]


def _class_tars(root: Path, name: str, columns: Columns) -> Places:
    tars = _class_tar_files(root / name)
    return [(root / name, partial(open_class_tars, root / name, tars))] if tars else []


def _in_files(folder: Path) -> bool:
    """Whether a split folder holds files of many images each."""
    return bool(_class_tar_files(folder) or any(path.suffix == ".parquet" for path in _entries(folder)))


def _class_tar_files(folder: Path) -> list[Path]:
    # the usual script unpacks ImageNet's val tar beside it and leaves it there
    tars = [path for path in _entries(folder) if path.suffix == ".tar"]
    return [path for path in tars if not path.name.startswith("ILSVRC2012_img_")]


def _one_tar(root: Path, name: str, columns: Columns) -> Places:
    paths = [root / f"{name}.tar", root / f"ILSVRC2012_img_{name}.tar"]
    return [(path, partial(open_tar, path)) for path in paths if path.is_file()]


def _zip_and_map(root: Path, name: str, columns: Columns) -> Places:
    path = root / f"{name}.zip"
    return [(path, partial(ZipReader, path, root / f"{name}_map.txt"))] if path.is_file() else []


def _shards(root: Path, name: str, columns: Columns) -> Places:
    pattern = re.compile(rf"(?P<set>(.*[-_.])?{name}[-_.](.*[-_.])?)(?P<number>\d+)\.tar")
    paths = _numbered_files(root, pattern)
    return [(paths[0], partial(open_shards, paths))] if paths else []


def _parquet(root: Path, name: str, columns: Columns) -> Places:
    """As the Hub has it: files with the split in their names, or a folder of files per split; at the root or in it."""
    named = re.compile(rf"(?P<set>{name})-(?P<number>\d+)-of-(?P<of>\d+)(-\w+)?\.parquet")
    # Spark's end in -c000.snappy.parquet, behind a long identifier
    numbered = re.compile(r"(?P<set>(.*?[-_.])?)(?P<number>\d+)(-of-(?P<of>\d+))?(-\w+|-[\w-]+-c\d+(\.\w+)?)?\.parquet")
    # the Hub's folder of a configuration, such as data, default or plain_text
    configurations = [path for path in _entries(root) if path.is_dir() and path.name not in SPLIT_FOLDERS]
    places: Places = []
    for folder in (root, *configurations):
        one = folder / f"{name}.parquet"
        for paths in (
            _numbered_files(folder, named),
            _numbered_files(folder / name, numbered),
            [one] if one.is_file() else [],
        ):
            if paths:
                places.append((paths[0], partial(ParquetReader, paths, columns)))
    return places


def _entries(folder: Path) -> list[Path]:
    """Return what is in a folder, in order, except what systems and programs leave behind; nothing without a folder."""
    return sorted(path for path in folder.iterdir() if not left_behind(path.name)) if folder.is_dir() else []


def _numbered_files(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    """Return the files whose names match `pattern`, in order of their numbers.

    The groups of the pattern are `set`, `number` and, if the names include it, `of`. Raises ValueError if the files
    belong to more than one set, or one of a set is missing.
    """
    found = {path: match for path in _entries(folder) if (match := pattern.fullmatch(path.name)) and path.is_file()}
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


# name, example, and a function that finds a split of one name in this layout
LAYOUTS: tuple[tuple[str, str, Callable[[Path, str, Columns], Places]], ...] = (
    ("class folders", "train/<class>/*.jpg and val/<class>/*.jpg", _class_folders),
    ("one tar per class", "train/<class>.tar", _class_tars),
    ("one tar", "train.tar or ILSVRC2012_img_train.tar, of class folders or of one tar per class", _one_tar),
    ("zip and map", "train.zip with train_map.txt", _zip_and_map),
    ("webdataset shards", "*train*-000000.tar", _shards),
    ("parquet", "[data/]train-00000-of-<n>.parquet or default/train/0000.parquet", _parquet),
)
ACCEPTED = "; ".join(looks for _, looks, _ in LAYOUTS)


def find_split(root: Path, split: Split, columns: Columns = Columns()) -> Found:  # noqa: B008, a frozen value
    """Return the one layout of a split, without opening it. `columns`: those of parquet files that are to be read.

    Raises ValueError, in one line, for a missing or empty folder, for a split that is missing or there twice, and for
    columns of anything but parquet files.
    """
    if not root.is_dir():
        raise ValueError(f"data folder {root} does not exist or is not a folder; expected {ACCEPTED}")
    there = [path.name for path in _entries(root)]
    if not there:
        raise ValueError(f"data folder {root} is empty; expected {ACCEPTED}")
    names = SPLIT_NAMES[split]
    found = [
        Found(layout, *place) for layout, _, look in LAYOUTS for name in names for place in look(root, name, columns)
    ]
    if not found:
        other = f"; it may be called {' or '.join(names)}: rename what is to be {split}" if len(names) > 1 else ""
        raise ValueError(
            f"data folder {root} has no folder {names[0]!r}, nor this split in another layout{other}; "
            f"it has {and_more(there, 5)}; expected {ACCEPTED}; val likewise"
        )
    if len(found) > 1:
        listed = " and as ".join(f"{one.layout} ({one.path.relative_to(root)})" for one in found)
        raise ValueError(f"data folder {root} has the {split} split as {listed}; keep one of them in this folder")
    if columns != Columns() and found[0].layout != "parquet":
        raise ValueError(f"{found[0].path} has no columns to choose from ({str(columns)[1:]}): only parquet files have")
    return found[0]


def open_split(found: Found) -> Reader:
    """List the images of a split. Raises ValueError, in one line, where its layout is not as it should be."""
    reader = found.open()
    if strange := [name for name in reader.classes if left_behind(name)]:
        raise ValueError(
            f"{found.path} has {strange[0]!r} as a class, which is what a program left behind; leave it out, "
            "and number the classes without it"
        )
    if len(reader.classes) == 1:
        raise ValueError(f"{found.path} has only the class {reader.classes[0]!r}; expected two or more: {SORT}")
    return reader
