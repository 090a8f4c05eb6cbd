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
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from harness.images.names import APPLE_DOUBLE, SORT, Classes, encoded_name, left_behind, sort_key
from results.wording import printable

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
        """Return the name of an image; its last two parts are unique within a split."""

    def shown(self, index: int) -> str:
        """Return the name of an image for the user."""
        return printable(self.filename(index))

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
        return in_rgb(self.image(index))

    def unreadable(self, index: int, error: Exception) -> str:
        """Return one line that names the image and says what is wrong with it."""
        why = why_unreadable(error)
        if isinstance(error, UnidentifiedImageError) and self.encoded(index).startswith(APPLE_DOUBLE):
            why = "not an image, but what a Mac keeps beside one (AppleDouble, in files called ._NAME)"
        return f"unreadable image {self.shown(index)}: {why}"

    def stamp(self) -> str:
        """Return 16 hex digits over names, targets, and sizes and times of the files: the key of a cache of pixels."""
        digest = hashlib.sha256(encoded_name(repr(self.classes)))
        for index, target in enumerate(self.targets):
            digest.update(encoded_name(f"{self.filename(index)}\t{target}\n"))
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
    """`folder/<class>/<image>`; classes, and images by their paths, are in timm's natural order.

    Raises ValueError for a folder without images, for images that are not directly in a class folder, for a class
    folder without images, and for a folder that cannot be read: later classes would take the number of its class.
    """

    def __init__(self, folder: Path) -> None:
        root, classes = str(folder), Classes(folder)
        self.paths: list[str] = []
        self._others: list[str] = []
        for at, folders, names in os.walk(root, onerror=_unreadable_folder, followlinks=True):
            self._others += [os.path.join(at, name) for name in folders if left_behind(name)]
            folders[:] = [name for name in folders if not left_behind(name)]
            below = () if at == root else tuple(os.path.relpath(at, root).split(os.sep))
            if len(below) == 1:
                classes.add(below[0])
            for name in names:
                path = os.path.join(at, name)
                if not below and os.path.islink(path) and not os.path.exists(path):
                    classes.add(name)  # a class whose folder is gone, or whose disk is not there
                if not classes.is_image((*below, name)):
                    self._others.append(path)
                elif len(below) == 1:
                    self.paths.append(path)
                else:
                    raise ValueError(f"{printable(path)} is not in a class folder directly under {folder}: {SORT}")
        self.classes: tuple[str, ...] = classes.in_order(path[len(root) + 1 :] for path in self.paths)
        self.paths.sort(key=sort_key)
        target_of = {label: target for target, label in enumerate(self.classes)}
        self.targets: list[int] = [target_of[os.path.basename(os.path.dirname(path))] for path in self.paths]

    def others(self) -> list[str]:
        return sorted(self._others)

    def encoded(self, index: int) -> bytes:
        with open(self.paths[index], "rb", opener=_without_waiting) as file:
            return file.read()

    def filename(self, index: int) -> str:
        return self.paths[index]

    def files(self) -> Iterable[Path]:
        return map(Path, self.paths)


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; of a pipe nobody might ever write to its other end."""
    return os.open(path, flags | os.O_NONBLOCK)


def why_unreadable(error: Exception) -> str:
    """Return what one of UNREADABLE says is wrong with an image, on one line."""
    if isinstance(error, UnidentifiedImageError):  # which names the file, or the memory buffer that Pillow read from
        return "not an image that Pillow can read"
    return getattr(error, "strerror", None) or " ".join(str(error).split())


def _unreadable_folder(error: OSError) -> None:
    raise ValueError(f"the folder {printable(str(error.filename))} cannot be read: {error.strerror}") from error


def in_rgb(image: Image.Image) -> Image.Image:
    """Decode an image to 8 bits per channel.

    Raises what Pillow raises, and ValueError for values above 255 (16 bits) or between 0 and 1: Pillow makes white of
    the ones and black of the others. How they are to be scaled, only their owner knows.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        least, most = np.asarray(image.getextrema(), float).tolist()
        if image.mode == "F" or least < 0 or most > 255:
            raise ValueError(f"its values go from {least:g} to {most:g} (mode {image.mode}): scale them to 8 bits")
    image.load()
    # Without this, convert() would copy what is in the right mode already, as photographs are.
    return image if image.mode == "RGB" else image.convert("RGB")


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
