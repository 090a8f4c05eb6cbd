"""How much disk a cell takes: the tensors of a model in files of torch.save, a run folder, crops that are kept."""

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
EPOCH_BYTES = 1024  # a line of metrics, and what TensorBoard is given
TENSOR_BYTES = 310  # that torch.save adds to each tensor in a file


class Stored(NamedTuple):
    """The tensors of a model, and those of them that are trained: how many, and their bytes."""

    tensors: int
    bytes: int
    trained: int
    trained_bytes: int


@lru_cache(maxsize=1024)
def stored(spec: BackboneSpec) -> Stored:
    """What a model's weights take in a file, found without making any."""
    with torch.device("meta"):
        model = build(spec)
    never_used = set(getattr(model, "never_used", ()))
    tensors = model.state_dict().values()
    trained = [parameter for name, parameter in model.named_parameters() if name not in never_used]
    return Stored(len(tensors), sum(t.nbytes for t in tensors), len(trained), sum(t.nbytes for t in trained))


def run_bytes(spec: BackboneSpec, task: Train) -> int:
    """Bytes of a run folder at its end, but for which images were right: checkpoints, best.pt, and small files."""
    model = stored(spec)
    weights = model.bytes + model.tensors * TENSOR_BYTES
    weights *= 1 if task.recipe.ema_decay is None else 2
    # AdamW keeps two moments and a counter of each tensor.
    optimizer = 2 * model.trained_bytes + 3 * model.trained * TENSOR_BYTES
    return KEPT * (weights + optimizer) + weights + RECORD_BYTES + task.recipe.total_epochs * EPOCH_BYTES


class KeptCrops(NamedTuple):
    """Val crops to be kept: equal ones are one file, however many cells read it; and its size."""

    what: tuple[object, ...]
    bytes: int


def kept_crops(
    cache: str | None, source: DataSource, spec: BackboneSpec, preprocessing: Preprocessing, images: int
) -> KeptCrops | None:
    """What an evaluation of so many images leaves in its `cache`, None without one."""
    if cache is None:
        return None
    # Made from raw pixels: mean and deviation come after.
    geometry = replace(preprocessing, mean=Preprocessing().mean, std=Preprocessing().std)
    what = (cache, source.name, source.root, geometry, spec.image_size, spec.in_channels)
    return KeptCrops(what, images * spec.in_channels * math.prod(spec.image_size))
