"""How much disk a run folder takes, and whether there is as much: asked before the first epoch, not after the last."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

from backbones import BackboneSpec, build
from harness.cells import Train
from harness.training.checkpoints import KEPT

RECORD_BYTES = 4096
EPOCH_BYTES = 1024  # a line of metrics, and what is logged to TensorBoard
TENSOR_BYTES = 310  # which torch.save adds per tensor in a file


class Stored(NamedTuple):
    """The tensors of a model and those that are trained: their numbers and bytes."""

    tensors: int
    bytes: int
    trained: int
    trained_bytes: int


@lru_cache(maxsize=1024)
def stored(spec: BackboneSpec) -> Stored:
    """Return what the weights of a model take in a file, without allocating any."""
    with torch.device("meta"):
        model = build(spec)
    never_used = set(getattr(model, "never_used", ()))
    tensors = model.state_dict().values()
    trained = [parameter for name, parameter in model.named_parameters() if name not in never_used]
    return Stored(len(tensors), sum(t.nbytes for t in tensors), len(trained), sum(t.nbytes for t in trained))


def weights_bytes(spec: BackboneSpec, task: Train) -> int:
    """Return the bytes of best.pt."""
    model = stored(spec)
    return (model.bytes + model.tensors * TENSOR_BYTES) * (1 if task.recipe.ema_decay is None else 2)


def checkpoint_bytes(spec: BackboneSpec, task: Train) -> int:
    """Return the bytes of one checkpoint."""
    model = stored(spec)
    # AdamW keeps two moments and a counter per tensor.
    return weights_bytes(spec, task) + 2 * model.trained_bytes + 3 * model.trained * TENSOR_BYTES


def run_bytes(spec: BackboneSpec, task: Train) -> int:
    """Return the bytes of a finished run folder without correct.npy: checkpoints, best.pt, and small files."""
    small = RECORD_BYTES + task.recipe.total_epochs * EPOCH_BYTES
    return KEPT * checkpoint_bytes(spec, task) + weights_bytes(spec, task) + small


def check_room(folder: Path, spec: BackboneSpec, task: Train) -> None:
    """Raise ValueError if the files of a run would not fit on the disk of its `folder`, less what is there already.

    A new checkpoint is whole before the oldest one goes, so there is one more for a moment. One is tried: a quota, or
    a limit on the size of a file, is not seen in what the disk has left.
    """
    one = checkpoint_bytes(spec, task)
    needed = run_bytes(spec, task) + one - sum(path.stat().st_size for path in folder.glob("*.pt"))
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ValueError(
            f"cannot keep checkpoints in {folder}: they take {needed / 1e9:.2g} GB more, and {free / 1e9:.2g} are free"
        )
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            reserve(file.fileno(), one)
    except OSError as problem:
        # Any other error is that of a file system which does not reserve space.
        if problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ValueError(
                f"cannot keep checkpoints in {folder}: one takes {one / 1e9:.2g} GB ({problem.strerror})"
            ) from problem


def reserve(descriptor: int, size: int) -> None:
    """Reserve the first `size` bytes of a file on its disk. Raises OSError.

    Not by os.posix_fallocate: where a file system reserves nothing, that writes to each block in turn.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(descriptor, 0, ctypes.c_int64(0), ctypes.c_int64(size)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
