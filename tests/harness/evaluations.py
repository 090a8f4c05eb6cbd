"""Evaluations of a small model on images of noise, where a change of the last bits changes the answers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import backbones
from harness.cells import DataSource, Preprocessing
from harness.images import readers
from harness.images.batches import Images
from harness.images.crops import Crops, crops_of
from harness.images.readers import FolderReader
from harness.images.sources import open_val
from harness.images.transforms import Normalise, eval_transform
from harness.process.ranks import Ranks
from harness.training.evaluation import Inference, evaluate

CPU = torch.device("cpu")


VIEW = Preprocessing("squash", crop_pct=0.875)


IMAGES, BATCH = 39, 4  # 10 batches: 5 and 5 on two ranks, 4 and 3 and 3 on three


def spec(**changes: Any) -> backbones.BackboneSpec:
    """So unsure of the noise that it sees that its guesses change with the last bits."""
    size: dict[str, Any] = {"dim": 16, "depth": 2, "heads": 2, "image_size": (16, 16), "num_classes": 13}
    return replace(backbones.preset("deit_micro", attention="focused"), **(size | changes))


def fill(root: Path) -> Path:
    """13 classes of three images of noise, of sizes of their own."""
    generator = np.random.default_rng(0)
    for number in range(IMAGES):
        folder = root / "val" / f"class{number // 3:02}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (20 + number % 5, 24, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


class Recorded(nn.Module):
    """The model of the spec, and what it said."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.model = backbones.build(spec())
        self.logits: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        self.logits.append(logits.clone())
        return logits


def reader_of(folder: Path) -> readers.Reader:
    return open_val(DataSource.folder(folder), 13)


def crops_in(cache: Path, folder: Path, group: Ranks = Ranks(), view: Preprocessing = VIEW) -> Crops:  # noqa: B008
    crops = crops_of(str(cache), reader_of(folder), spec().image_size, spec().in_channels, view, group)
    assert crops is not None
    return crops


def evaluated(
    folder: Path,
    group: Ranks = Ranks(),  # noqa: B008
    cache: Path | None = None,
    model: nn.Module | None = None,
    view: Preprocessing = VIEW,
    **options: Any,
) -> tuple[bytes, bytes]:
    """Which images were right, by the first guess and by the first five."""
    result = evaluate(
        model or Recorded(),
        Images(reader_of(folder), eval_transform((16, 16), 3, view), seed=0),
        Inference(Normalise(view, 3, CPU), batch=BATCH),
        group=group,
        crops=None if cache is None else crops_in(cache, folder, group, view),
        **options,
    )
    assert result.n_images == IMAGES
    return result.correct1.tobytes(), result.correct5.tobytes()


def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, an image that is read is an error."""

    def refuse(self: FolderReader, index: int) -> bytes:
        raise AssertionError(f"image {index} is read")

    monkeypatch.setattr(FolderReader, "encoded", refuse)
