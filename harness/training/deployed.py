"""What a graph in int8 loses of a model's accuracy: the val images that it, or the model itself, alone has right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from backbones import BackboneSpec
from harness.cells import DataSource, Preprocessing
from harness.images.batches import Images
from harness.images.readers import UNREADABLE
from harness.images.sources import list_hash, open_splits
from harness.images.transforms import Normalise, eval_transform
from harness.runtimes.sessions import Session
from harness.training.evaluation import Evaluation, Inference, evaluate
from results.statistics import Pair, paired_shares

LOSS = 1.0
"""Percentage points of top-1 that a graph in int8 may lose: one that has certainly lost more is wrong."""

SEED = 0
"""Of the choice of the images that a graph is calibrated on."""


@dataclass(frozen=True)
class Loss:
    """The accuracies of a model and of its graph in int8 on the same val images, top-1 in percent.

    own_alone, int8_alone: how many images only one of them has right. val_list: hash of the list of the images.
    """

    images: int
    val_list: str
    top1: float
    top1_int8: float
    own_alone: int
    int8_alone: int

    @property
    def pair(self) -> Pair:
        """The difference, int8 minus the model itself, its 95 % interval, and McNemar's p."""
        return paired_shares(self.int8_alone, self.own_alone, self.images)

    @property
    def right(self) -> bool:
        """Whether it may have lost no more than `LOSS`."""
        return 100 * self.pair.high >= -LOSS

    def __str__(self) -> str:
        of = self.pair
        points = f"{100 * of.difference:+.2f} points ({100 * of.low:+.2f} to {100 * of.high:+.2f}, p {of.p:.2g})"
        verdict = "right" if self.right else f"wrong, as more than {LOSS:g} point is lost"
        return (
            f"{verdict}: top-1 {self.top1_int8:.2f} %, {self.top1:.2f} % in float32, {points}; of {self.images:,} val "
            f"images {self.own_alone} are right in float32 alone, {self.int8_alone} in int8 alone"
        )

    def plain(self) -> dict[str, Any]:
        """Return it as plain JSON; the difference in percentage points."""
        of = self.pair
        return {
            **{name: getattr(self, name) for name in self.__dataclass_fields__},
            "points": 100 * of.difference,
            "points_low": 100 * of.low,
            "points_high": 100 * of.high,
            "p": of.p,
            "allowed": LOSS,
            "right": self.right,
        }


class _InBatches(nn.Module):
    """A session whose graph takes so many images (None: any number): where some are missing, the last is repeated."""

    def __init__(self, session: Session, batch: int | None) -> None:
        super().__init__()
        self.session, self.batch = session, batch

    def forward(self, images: Tensor) -> Tensor:
        if self.batch is None:
            return self.session(images)
        found = []
        for part in images.split(self.batch):
            whole = torch.cat([part, *[part[-1:]] * (self.batch - len(part))])
            found.append(self.session(whole)[: len(part)])
        return torch.cat(found)


class ImagesOf:
    """The images of a set, as the evaluation of a model prepares them.

    Raises ValueError, in one line, for a set that cannot be opened, or whose classes are not those of the model.
    """

    def __init__(self, source: DataSource, spec: BackboneSpec, preprocessing: Preprocessing) -> None:
        self.source = source
        self._train, self._val = open_splits(source, spec.num_classes)
        self._transform = eval_transform(spec.image_size, spec.in_channels, preprocessing)
        self._inference = Inference(Normalise(preprocessing, spec.in_channels, torch.device("cpu")))

    def some(self, number: int, batch: int) -> np.ndarray:
        """Return so many train images, drawn at random, in whole batches (K, B, C, H, W).

        Raises ValueError where there are fewer, or one cannot be read.
        """
        if number > len(self._train):
            raise ValueError(f"{self.source.name} has {len(self._train):,} train images; {number:,} are asked for")
        order = torch.randperm(len(self._train), generator=torch.Generator().manual_seed(SEED))[:number].tolist()
        pixels = []
        for index in order:
            try:
                pixels.append(self._transform(self._train.rgb(index)))
            except UNREADABLE as error:
                raise ValueError(self._train.unreadable(index, error)) from error
        images = self._inference.normalise(torch.stack(pixels))
        whole = len(images) // batch * batch
        return images[:whole].unflatten(0, (-1, batch)).numpy()

    def lost(
        self, model: nn.Module, session: Session, batch: int | None, report: Callable[[str], None] | None = None
    ) -> Loss:
        """Compare a model with its graph on all val images; raises as `evaluate`."""
        ours, theirs = (self._evaluated(each, report) for each in (model, _InBatches(session, batch)))
        one, other = ours.correct1, theirs.correct1
        alone = (int((a & ~b).sum()) for a, b in ((one, other), (other, one)))
        return Loss(len(one), list_hash(self._val), ours.top1, theirs.top1, *alone)

    def _evaluated(self, model: nn.Module, report: Callable[[str], None] | None) -> Evaluation:
        return evaluate(model, Images(self._val, self._transform, seed=0), self._inference, report=report)
