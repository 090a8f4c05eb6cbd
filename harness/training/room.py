"""How much disk a run folder takes, and whether there is as much: asked before the first epoch, not after the last."""

from __future__ import annotations

import shutil
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


def run_bytes(spec: BackboneSpec, task: Train) -> int:
    """Return the bytes of a finished run folder without correct.npy: checkpoints, best.pt, and small files."""
    model = stored(spec)
    weights = model.bytes + model.tensors * TENSOR_BYTES
    weights *= 1 if task.recipe.ema_decay is None else 2
    # AdamW keeps two moments and a counter per tensor.
    optimizer = 2 * model.trained_bytes + 3 * model.trained * TENSOR_BYTES
    return KEPT * (weights + optimizer) + weights + RECORD_BYTES + task.recipe.total_epochs * EPOCH_BYTES


def check_room(folder: Path, spec: BackboneSpec, task: Train) -> None:
    """Raise ValueError if the files of a run would not fit on the disk of its `folder`, less what is there already."""
    needed = run_bytes(spec, task) - sum(path.stat().st_size for path in folder.glob("*.pt"))
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ValueError(
            f"cannot keep checkpoints in {folder}: they take {needed / 1e9:.2g} GB more, and {free / 1e9:.2g} are free"
        )
