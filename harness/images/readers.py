"""Readers of one split: images by index, in an order that never changes; arrays and class folders.

    reader = FolderReader(Path("/data/photos/val"))
    reader.image(0), reader.targets[0], reader.classes, reader.filename(0)

Archives are read by tars.py, zips.py and parquet.py; layouts.py finds the reader that fits a folder.

A reader has names, offsets and arrays, and no open file: one that was used before DataLoader workers fork, or that was
pickled, reads the same bytes in each of them. (Processes that share a file handle also share its position, and would
read each other's images.)
"""

import hashlib
import io
import os
import struct
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

SORT = "sort the images into one folder per class (for ImageNet its wnid, such as n01440764)"
# What reading and decoding a damaged image can raise, in any of Pillow's formats.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


class Reader(ABC):
    """One split.

    classes: names, by target. targets: one per image.
    """

    classes: tuple[str, ...]
    targets: list[int]

    def __len__(self) -> int:
        return len(self.targets)

    @abstractmethod
    def encoded(self, index: int) -> bytes:
        """Return the bytes of the image file. Raises OSError if it cannot be read, ValueError if there is no file."""

    @abstractmethod
    def filename(self, index: int) -> str:
        """Return the name of an image for the user; its last two parts are unique within a split."""

    @abstractmethod
    def files(self) -> Iterable[Path]:
        """Return the files on disk that the split consists of."""

    def others(self) -> list[str]:
        """Return the names of files in the split that are not read as images."""
        return []

    def image(self, index: int) -> Image.Image:
        """Return the image, perhaps not yet decoded. Raises what Pillow raises."""
        return Image.open(io.BytesIO(self.encoded(index)))

    def rgb(self, index: int) -> Image.Image:
        """Return the decoded image. Raises one of UNREADABLE."""
        return self.image(index).convert("RGB")

    def unreadable(self, index: int, error: Exception) -> str:
        """Return one line that names the image and says what is wrong with it."""
        # Pillow would name the memory buffer that it read from
        known = not isinstance(error, UnidentifiedImageError)
        why = " ".join(str(error).split()) if known else "not an image that Pillow can read"
        return f"unreadable image {self.filename(index)}: {why}"

    def stamp(self) -> str:
        """Return 16 hex digits over names, targets, and sizes and times of the files: the key of a cache of pixels."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for index, target in enumerate(self.targets):
            digest.update(f"{self.filename(index)}\t{target}\n".encode())
        for path in self.files():
            about = os.stat(path)
            digest.update(f"{about.st_size} {about.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:16]


class ArrayReader(Reader):
    """Images in memory, as one array (N, H, W) or (N, H, W, 3) of uint8."""

    def __init__(
        self, name: str, pixels: np.ndarray, targets: list[int], classes: tuple[str, ...], paths: list[Path]
    ) -> None:
        if len(pixels) != len(targets):
            raise ValueError(f"{paths[0]} has {len(pixels)} images, but there are {len(targets)} labels")
        self.name, self.pixels, self.targets, self.classes, self.paths = name, pixels, targets, classes, paths

    def encoded(self, index: int) -> bytes:
        raise ValueError(f"{self.name} is an array and not image files: there are no bytes to decode")

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])

    def filename(self, index: int) -> str:
        return f"{self.name}[{index}]"

    def files(self) -> list[Path]:
        return self.paths


class FolderReader(Reader):
    """`folder/<class>/<image>`; suffixes, classes and their natural order are timm's.

    Raises ValueError for a folder without images, and for images that are not directly in a class folder.
    """

    def __init__(self, folder: Path) -> None:
        from timm.data.readers.reader_image_folder import find_images_and_targets

        samples, class_to_idx = find_images_and_targets(str(folder), sort=False)
        if not samples:
            raise ValueError(f"no image ({', '.join(sorted(image_suffixes()))}) in {folder}; {SORT}")
        for path, _ in samples:
            if os.path.dirname(os.path.dirname(path)) != str(folder):
                raise ValueError(f"{path} is not in a class folder directly under {folder}: {SORT}")
        self.classes: tuple[str, ...] = tuple(class_to_idx)
        check_order(self.classes, str(folder))
        samples.sort(key=lambda sample: sort_key(sample[0]))
        self.paths: list[str] = [path for path, _ in samples]
        self.targets: list[int] = [target for _, target in samples]
        self.folder = folder

    def others(self) -> list[str]:
        walk = os.walk(self.folder, followlinks=True)
        return sorted(os.path.join(at, name) for at, _, names in walk for name in names if not is_image(name))

    def encoded(self, index: int) -> bytes:
        return Path(self.paths[index]).read_bytes()

    def filename(self, index: int) -> str:
        return self.paths[index]

    def files(self) -> Iterable[Path]:
        return map(Path, self.paths)


@cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of image files, as timm has them."""
    from timm.data.readers.img_extensions import get_img_extensions

    return frozenset(get_img_extensions())


def is_image(name: str) -> bool:
    """Return whether a file is an image, by its suffix."""
    return os.path.splitext(name)[1].lower() in image_suffixes()


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
            raise ValueError(
                f"{where}: the classes {' and '.join(map(repr, sorted(names)))} differ only in case or leading zeros; "
                "rename one, or merge them"
            )


def numbered_classes(targets: set[int], where: str) -> tuple[str, ...]:
    """Return the numbers as class names. Raises ValueError for gaps, which would be classes without images."""
    if not targets:
        raise ValueError(f"no image in {where}")
    if missing := set(range(max(targets) + 1)) - targets:
        raise ValueError(f"{where}: class numbers go up to {max(targets)}, but no image has class {min(missing)}")
    return tuple(map(str, range(len(targets))))


def read_at(path: Path, offset: int, size: int) -> bytes:
    """Read bytes of a file, without a handle that processes could share. Raises OSError if the file is too short."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        data = os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)
    if len(data) != size:
        raise OSError(f"{path} ends within the image")
    return data
