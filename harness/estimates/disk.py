"""How much disk the crops take that evaluations leave in a cache."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from backbones import BackboneSpec
from harness.cells import DataSource, Preprocessing


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
