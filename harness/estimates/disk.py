"""How much disk a cell takes: the tensors of a model in files of torch.save, a run folder, cached crops."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import torch

from backbones import BackboneSpec, build
from harness.cells import DataSource, Preprocessing, Train
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


class KeptCrops(NamedTuple):
    """Val crops to be cached: what identifies the file, which cells with equal crops share, and its size."""

    what: tuple[object, ...]
    bytes: int


def kept_crops(
    cache: str | None, source: DataSource, spec: BackboneSpec, preprocessing: Preprocessing, images: int
) -> KeptCrops | None:
    """Return what an evaluation of this many images leaves in its `cache`, None without one."""
    if cache is None:
        return None
    # Crops are of raw pixels: mean and standard deviation are applied afterwards.
    geometry = replace(preprocessing, mean=Preprocessing().mean, std=Preprocessing().std)
    what = (cache, source.name, source.root, geometry, spec.image_size, spec.in_channels)
    return KeptCrops(what, images * spec.in_channels * math.prod(spec.image_size))
