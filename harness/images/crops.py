"""Decoded and cropped evaluation images, kept between evaluations: a memory-mapped array of the exact bytes.

An evaluation that finds the file reads it; one that does not writes it as it proceeds. The file's name is a hash of all
that the bytes depend on: the list of images with the sizes and dates of their files, the transform, and the versions of
the libraries that made them. So a result cannot depend on whether crops were kept. 50,000 crops of 224 x 224 take
7.5 GB.
"""

import hashlib
import json
import math
import os
import shutil
import uuid
from dataclasses import asdict
from pathlib import Path

import numpy as np
import PIL
import torch
from torch import Tensor

from harness.cells import Preprocessing
from harness.images.readers import Reader
from harness.process.ranks import Ranks


class Crops:
    """The crops of one split for one input size and transform, (N, C, H, W) uint8, made by the processes of `group`.

    Raises ValueError where the folder cannot be written or has too little space.
    """

    def __init__(
        self,
        folder: Path,
        reader: Reader,
        image_size: tuple[int, int],
        in_channels: int,
        preprocessing: Preprocessing,
        group: Ranks,
    ) -> None:
        import timm
        import torchvision

        geometry = {name: value for name, value in asdict(preprocessing).items() if name not in ("mean", "std")}
        made_by = {library.__name__: library.__version__ for library in (PIL, timm, torchvision)}
        values = [reader.stamp(), geometry, image_size, in_channels, made_by]
        key = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
        self.path = folder / f"crops-{key}.npy"
        self.shape = (len(reader.targets), in_channels, *image_size)
        self.group = group
        self.complete = False
        """Whether every crop can be read; known after `open`."""
        self._array: np.ndarray | None = None
        self._partial: Path | None = None
        group.agreed(self._check_room)

    def open(self) -> None:
        """Open the crops for reading, or else for keeping them; all processes call this before each evaluation.

        Not earlier, so that a training run that ends before its first evaluation leaves no file behind.
        """
        if self._array is not None:
            return
        self.complete = self.group.agreed(self.path.exists)
        self._partial = None if self.complete else Path(self.group.agreed(self._reserve))
        try:
            array = np.lib.format.open_memmap(self._partial or self.path, mode="r" if self.complete else "r+")
        except (OSError, ValueError, EOFError) as problem:
            raise ValueError(f"{self.path} is damaged ({problem}): delete it") from problem
        if (array.shape, array.dtype) != (self.shape, np.uint8):
            raise ValueError(f"{self.path} is damaged: its content is {array.dtype} of shape {array.shape}: delete it")
        self._array = array

    def _check_room(self) -> None:
        """Raise now what would otherwise be raised after an epoch."""
        if self.path.exists():
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.path.parent).free
        except OSError as problem:
            raise self._refusal(problem.strerror) from problem
        if free < math.prod(self.shape):
            raise self._refusal(f"{free / 1e9:.2g} GB are free")

    def _refusal(self, reason: str | None) -> ValueError:
        return ValueError(f"cannot keep {math.prod(self.shape) / 1e9:.2g} GB of crops in {self.path.parent}: {reason}")

    def _reserve(self) -> str:
        """Allocate the file for the crops, all of it now, as a disk that fills up later would kill the process."""
        partial = self.path.with_name(f"{self.path.stem}.{uuid.uuid4().hex[:8]}.partial")
        try:
            np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=self.shape)
            with open(partial, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)
        except OSError as problem:
            partial.unlink(missing_ok=True)
            raise self._refusal(problem.strerror) from problem
        return str(partial)

    def read(self, indices: Tensor) -> Tensor:
        """Return the crops of these images, (B, C, H, W)."""
        assert self._array is not None
        return torch.from_numpy(self._array[indices.numpy()])

    def keep(self, indices: Tensor, pixels: Tensor) -> None:
        """Write the crops (B, C, H, W) of these images."""
        assert self._array is not None
        self._array[indices.numpy()] = pixels.numpy()

    def finish(self) -> None:
        """Complete the file once every process has written its crops: from now on they are read."""
        if self._partial is None:
            return
        assert isinstance(self._array, np.memmap)
        self._array.flush()
        self.group.wait()
        if self.group.first:
            os.replace(self._partial, self.path)
        self.group.wait()
        self._partial, self.complete = None, True

    def discard(self) -> None:
        """Delete what a failed evaluation has written; after `finish`, nothing."""
        if self._partial is not None:
            self._partial.unlink(missing_ok=True)
            self._partial = self._array = None


def crops_of(
    cache: str | None,
    reader: Reader,
    image_size: tuple[int, int],
    in_channels: int,
    preprocessing: Preprocessing,
    group: Ranks,
) -> Crops | None:
    """Return the kept crops of a split for a model's input, or None without a `cache` folder."""
    return None if cache is None else Crops(Path(cache), reader, image_size, in_channels, preprocessing, group)
