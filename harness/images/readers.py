"""Readers of one split: images by index, in an order that never changes; arrays and class folders.

    reader = FolderReader(Path("/data/photos/val"))
    reader.image(0), reader.targets[0], reader.classes, reader.filename(0)

Archives are read by tars.py, zips.py and parquet.py beside this file; layouts.py finds the reader that fits a folder.

A reader holds names, offsets and arrays, and no open file: one that was used before DataLoader workers fork, or that
was pickled, reads the same bytes in each of them. (Processes that share a file handle also share its position, and
would read each other's images.)
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
# What reading and decoding a damaged image raises, in any of Pillow's formats.
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
        """The bytes of the image file. Raises OSError where it cannot be read, ValueError where there is no file."""

    @abstractmethod
    def filename(self, index: int) -> str:
        """What to call it when speaking to the user; its last two parts tell images of a split apart."""

    @abstractmethod
    def files(self) -> Iterable[Path]:
        """The files on disk that the split is made of."""

    def others(self) -> list[str]:
        """Names of files in the split that were not taken for images."""
        return []

    def image(self, index: int) -> Image.Image:
        """The image, not yet decoded perhaps. Raises what Pillow raises."""
        return Image.open(io.BytesIO(self.encoded(index)))

    def rgb(self, index: int) -> Image.Image:
        """The image, decoded. Raises one of UNREADABLE."""
        return self.image(index).convert("RGB")

    def unreadable(self, index: int, error: Exception) -> str:
        """One line that names the image and says what is wrong with it."""
        # Pillow would name the memory that it read from
        known = not isinstance(error, UnidentifiedImageError)
        why = " ".join(str(error).split()) if known else "no image that Pillow knows"
        return f"unreadable image {self.filename(index)}: {why}"

    def stamp(self) -> str:
        """16 hex digits over names, targets, and the sizes and times of the files: the key of a cache of pixels."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for index, target in enumerate(self.targets):
            digest.update(f"{self.filename(index)}\t{target}\n".encode())
        for path in self.files():
            about = os.stat(path)
            digest.update(f"{about.st_size} {about.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:16]


class ArrayReader(Reader):
    """Images held in memory as one array (N, H, W) or (N, H, W, 3) of uint8."""

    def __init__(
        self, name: str, pixels: np.ndarray, targets: list[int], classes: tuple[str, ...], paths: list[Path]
    ) -> None:
        if len(pixels) != len(targets):
            raise ValueError(f"{paths[0]} holds {len(pixels)} images, and there are {len(targets)} labels")
        self.name, self.pixels, self.targets, self.classes, self.paths = name, pixels, targets, classes, paths

    def encoded(self, index: int) -> bytes:
        raise ValueError(f"{self.name} holds arrays and not image files: there are no bytes to decode")

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])

    def filename(self, index: int) -> str:
        return f"{self.name}[{index}]"

    def files(self) -> list[Path]:
        return self.paths


class FolderReader(Reader):
    """`folder/<class>/<image>`; suffixes, classes and their natural order are timm's.

    Raises ValueError for a folder without images, and for images that do not lie directly in a class folder.
    """

    def __init__(self, folder: Path) -> None:
        from timm.data.readers.reader_image_folder import find_images_and_targets

        samples, class_to_idx = find_images_and_targets(str(folder), sort=False)
        if not samples:
            raise ValueError(f"no image ({', '.join(sorted(suffixes()))}) in {folder}; {SORT}")
        for path, _ in samples:
            if os.path.dirname(os.path.dirname(path)) != str(folder):
                raise ValueError(f"{path} does not lie in a class folder directly under {folder}: {SORT}")
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
def suffixes() -> frozenset[str]:
    """Of image files, as timm has them."""
    from timm.data.readers.img_extensions import get_img_extensions

    return frozenset(get_img_extensions())


def is_image(name: str) -> bool:
    """By its suffix."""
    return os.path.splitext(name)[1].lower() in suffixes()


def natural_key(name: str) -> list[Any]:
    """What timm sorts by: numbers in a name by their value."""
    from timm.utils.misc import natural_key as key_of_timm

    return key_of_timm(name)


def sort_key(name: str) -> tuple[list[Any], str]:
    """timm's natural order; the name itself then parts `1.jpg` from `01.jpg`, which disks list in any order."""
    return natural_key(name), name


def check_order(classes: Iterable[str], where: str) -> None:
    """Raises ValueError for classes that natural order cannot tell apart, whose targets would be a matter of chance."""
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
    """Numbers as class names. Raises ValueError for gaps, which would make classes that no image has."""
    if not targets:
        raise ValueError(f"no image in {where}")
    if missing := set(range(max(targets) + 1)) - targets:
        raise ValueError(f"{where}: class numbers go up to {max(targets)}, and no image has class {min(missing)}")
    return tuple(map(str, range(len(targets))))


def read_at(path: Path, offset: int, size: int) -> bytes:
    """Bytes of a file, without a handle that processes could share. Raises OSError if it ends before."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        data = os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)
    if len(data) != size:
        raise OSError(f"{path} ends within it")
    return data
