"""A model that is looked at: its weights, and images as it sees them."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from backbones import BackboneSpec, build
from harness.cells import Preprocessing, Weights
from harness.images.readers import UNREADABLE, in_rgb, why_unreadable
from harness.images.transforms import Normalise, eval_transform
from harness.training.loading import load_weights


@dataclass(frozen=True)
class Viewed:
    """A model in evaluation mode, the way to prepare its images, and where its weights are from, in words."""

    label: str
    spec: BackboneSpec
    model: nn.Module
    preprocessing: Preprocessing
    weights: str

    def pixels(self, image: Image.Image) -> Tensor:
        """Return an image as the model sees it, uint8 (C, H, W)."""
        found: Tensor = eval_transform(self.spec.image_size, self.spec.in_channels, self.preprocessing)(image)
        return found

    def normalised(self, pixels: Tensor) -> Tensor:
        """Return pixels (C, H, W) as the model takes them, (1, C, H, W), on its device."""
        device = next(self.model.parameters()).device
        return Normalise(self.preprocessing, self.spec.in_channels, device)(pixels.unsqueeze(0))


def viewed(
    spec: BackboneSpec, weights: Weights | None, preprocessing: Preprocessing, *, seed: int = 0, device: str = "cpu"
) -> Viewed:
    """Build the model of a spec with weights from a file, or as initialised with a seed.

    Raises ValueError for weights that cannot be read or do not fit.
    """
    # The caller's random state stays as it was.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build(spec).eval()
    label = f"{spec.name} {spec.attention}"
    if weights is None:
        return Viewed(label, spec, model.to(device), preprocessing, f"random weights, seed {seed}")
    report = load_weights(weights, model, spec)
    fits = "" if not any(report) else f"; {report}"
    return Viewed(label, spec, model.to(device), preprocessing, f"{weights.name} ({weights.digest}{fits})")


def read_image(path: Path) -> Image.Image:
    """Return the image in a file, in RGB. Raises ValueError, in one line, for one that cannot be read."""
    try:
        with warnings.catch_warnings():
            # Of an image so large that it may be an attack; what is larger still is an error.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return in_rgb(Image.open(path))
    except UNREADABLE as error:
        raise ValueError(f"unreadable image {path}: {why_unreadable(error)}") from error


def as_jpeg(pixels: Tensor) -> bytes:
    """Return pixels, uint8 (C, H, W) with 1 or 3 channels, as a JPEG."""
    array = pixels.permute(1, 2, 0).numpy()
    stream = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(stream, "JPEG", quality=92)
    return stream.getvalue()
