"""What a name in an image set says: an image, a class, or what is neither.

    classes = Classes(folder)
    for parts in (("cat", "0.jpg"), ("cat", "._0.jpg"), ("dog", "a.xml")):       # the path below the split, in parts
        if classes.is_image(parts): ...
    classes.in_order()                                    # ValueError: the folder 'dog' has no image

Folders, tars, zips and parquet files all go by these rules.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from harness.cells.source import Split
from results.wording import printable

SPLIT_NAMES: dict[Split, tuple[str, ...]] = {"train": ("train",), "val": ("val", "valid", "validation")}
SPLIT_FOLDERS = frozenset(name for names in SPLIT_NAMES.values() for name in names)

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".avif",
)  # fmt: skip
"""Suffixes of the files that are read: of what Pillow decodes, what people keep photographs in."""
UNREAD_SUFFIXES = (
    ".heic", ".heif", ".jxl", ".jp2", ".j2k", ".svg", ".psd", ".ico", ".tga", ".pcx", ".exr", ".hdr", ".dcm", ".npy",
    ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw",
)  # fmt: skip
"""Suffixes of images that are not read: a set that has such files is not complete."""

LEFT_BEHIND = frozenset(
    ("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "lost+found",
     "@eadir", "#recycle", "__pycache__")
)  # fmt: skip
"""Names, in lower case, of what systems and programs leave beside other people's files; so is all that is hidden."""
APPLE_DOUBLE = (b"\0\5\x16\7", b"\0\5\x16\0")  # how the file ._NAME of a Mac begins, which holds what NAME cannot

SORT = "sort the images into one folder per class (for ImageNet its wnid, such as n01440764)"
SHARD = re.compile(r"(?P<set>(.*[-_.])?)\d{3,}")  # the name of a shard of webdataset without its suffix
BESIDE = (".json", ".txt", ".cls")  # suffixes of what a webdataset sample holds beside its image


def is_image(name: str) -> bool:
    """Return whether a file is an image to be read, by its name."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not left_behind(name)


def is_unread_image(name: str) -> bool:
    """Return whether a file is an image, by its name, in a format that is not read."""
    return os.path.splitext(name)[1].lower() in UNREAD_SUFFIXES and not left_behind(name)


def left_behind(path: str) -> str | None:
    """Return the part of a relative path that a system or a program left there and nobody meant as data, or None."""
    for part in path.split("/"):
        if (part.startswith(".") and part not in (".", "..")) or part.lower() in LEFT_BEHIND:
            return part
    return None


def suffixes(names: Iterable[str]) -> str:
    """Return how many files there are of each suffix, as text."""
    counts = Counter(PurePosixPath(name).suffix or "no suffix" for name in names)
    return ", ".join(f"{number:,} x {suffix}" for suffix, number in sorted(counts.items()))


def encoded_name(name: str) -> bytes:
    """Return a name as the disk or archive has it; one that is not UTF-8 was read with surrogates in it."""
    return name.encode("utf-8", "surrogateescape")


def is_utf8(name: str) -> bool:
    """Return whether a name is UTF-8 on its disk or in its archive."""
    return not re.search("[\udc80-\udcff]", name)


class Classes:
    """The classes of a split whose files are being listed; `where` is the split."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self._images: set[str] = set()  # the classes that have images
        self._others: dict[str, list[str]] = defaultdict(list)  # by class: files that are not images

    def add(self, label: str) -> None:
        """Note that there is a folder of this name, whatever it holds."""
        if not left_behind(label):
            self._others[label]

    def is_image(self, parts: Sequence[str]) -> bool:
        """Note a file, `parts` being its class and path there, and return whether it is an image of that class."""
        if left_behind("/".join(parts)):
            return False
        if is_image(parts[-1]):
            self._images.add(parts[0])
            return True
        if len(parts) > 1:
            self._others[parts[0]].append(parts[-1])
        return False

    def in_order(self, images: Iterable[str]) -> tuple[str, ...]:
        """Return the names of the classes by target: in natural order. `images` are the names of all files taken.

        Raises ValueError for no image, for a class without images (the next classes would take its target), for names
        that natural order cannot distinguish, and for numbered shards that were taken for classes.
        """
        if not self._images:
            raise ValueError(f"no image ({', '.join(sorted(IMAGE_SUFFIXES))}) in {self.where}; {SORT}")
        if empty := sorted(self._others.keys() - self._images, key=sort_key):
            held = suffixes(self._others[empty[0]])
            raise ValueError(
                f"{self.where}: the class '{printable(empty[0])}' has no image that can be read "
                f"({held or 'it is empty'}), and without it later classes would have other numbers; delete it from "
                f"both splits, or give it images ({', '.join(sorted(IMAGE_SUFFIXES))})"
            )
        check_order(self._images, str(self.where))
        self._check_no_shards(images)
        return tuple(sorted(self._images, key=natural_key))

    def _check_no_shards(self, images: Iterable[str]) -> None:
        named = [SHARD.fullmatch(label) for label in self._images]
        if len({match and match["set"] for match in named}) != 1 or None in named:
            return
        images = list(images)
        beside = {
            f"{label}/{key}" for label, names in self._others.items() for name in names
            for key, suffix in [os.path.splitext(name)] if suffix in BESIDE
        }  # fmt: skip
        found = next((name for name in images if os.path.splitext(name)[0] in beside), None) if beside else None
        why = "is one sample with the .json or .txt beside it"
        if found is None and all(map(_numbered_through, images)):
            found, why = min(images), "has the number of its shard and one within the shard as its name"
        if found is not None:
            raise ValueError(
                f"{self.where} has shards of webdataset or img2dataset, not classes: {printable(found)} {why}; write "
                "its class number beside each image (.cls), and put the shards into the data folder itself, named like "
                "train-000000.tar"
            )


def _numbered_through(path: str) -> bool:
    """Whether an image is called as img2dataset calls it: by the number of its shard, then four digits or more."""
    label, _, name = path.rpartition("/")
    key = os.path.splitext(name)[0]
    return re.fullmatch(r"\d{5,}", label) is not None and re.fullmatch(rf"{label}\d{{4,}}", key) is not None


def natural_key(name: str) -> list[Any]:
    """Return timm's sort key: numbers in a name are sorted by value."""
    from timm.utils.misc import natural_key as key_of_timm

    return key_of_timm(name)


def sort_key(name: str) -> tuple[list[Any], str]:
    """Return timm's natural key, then the name itself: disks list `1.jpg` and `01.jpg` in any order."""
    return natural_key(name), name


def check_order(classes: Iterable[str], where: str) -> None:
    """Raise ValueError for classes that natural order cannot distinguish: their targets would be a matter of chance."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        alike[repr(natural_key(name))].append(name)
    for names in alike.values():
        if len(names) > 1:
            listed = " and ".join(f"'{printable(name)}'" for name in sorted(names))
            raise ValueError(
                f"{where}: the classes {listed} differ only in case or leading zeros; rename one, or merge them"
            )


def numbered_classes(targets: set[int], where: str) -> tuple[str, ...]:
    """Return the numbers as class names. Raises ValueError for gaps, which would be classes without images."""
    if not targets:
        raise ValueError(f"no image in {where}")
    if missing := set(range(max(targets) + 1)) - targets:
        raise ValueError(f"{where}: class numbers go up to {max(targets)}, but no image has class {min(missing)}")
    return tuple(map(str, range(len(targets))))
