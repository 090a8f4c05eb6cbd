"""A DeiT that trains in a second, recipes for it, and its training on a folder of images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import backbones
from harness.cells import MICRO, DataSource, Preprocessing, Recipe, Train
from harness.cells.recipe import LR_BATCH

PAD = Preprocessing("pad", crop_pct=1.0)
RECIPE = replace(MICRO, epochs=2, batch=16, warmup_epochs=0.5, lr=2e-3 * LR_BATCH / 16)


EVERYTHING = replace(
    RECIPE,
    drop_path=0.2,
    label_smoothing=0.1,
    mixup=0.8,
    cutmix=1.0,
    random_erasing=0.25,
    rand_augment="rand-m9-mstd0.5-inc1",
    ema_decay=0.9,
)


def deit(**changes: Any) -> backbones.BackboneSpec:
    """A DeiT of 6,000 parameters for 16 x 16 pixels and three classes."""
    size: dict[str, Any] = {"dim": 16, "depth": 2, "heads": 2, "image_size": (16, 16), "num_classes": 3}
    return replace(backbones.preset("deit_micro"), **(size | changes))


def task(folder: Path, recipe: Recipe = RECIPE, **changes: Any) -> Train:
    return replace(Train(recipe, DataSource.folder(folder)), **changes)
