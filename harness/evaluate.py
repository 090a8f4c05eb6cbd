"""Exact evaluation: every image of a split once, in order, none padded and none dropped."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from harness.augment import Normalise
from harness.data import Images, batches, eval_order


@dataclass(frozen=True)
class Evaluation:
    """Which images were right: (N,) bools in the order of the split, by the first guess and by the first five."""

    correct1: np.ndarray
    correct5: np.ndarray

    @property
    def n_images(self) -> int:
        return len(self.correct1)

    @property
    def top1(self) -> float:
        """Percent."""
        return 100 * float(self.correct1.mean())

    @property
    def top5(self) -> float:
        """Percent; with five classes or fewer it is 100."""
        return 100 * float(self.correct5.mean())

    @property
    def top1_stderr(self) -> float:
        """Standard error of top1, sqrt(p (1 - p) / n), in percentage points; of the choice of images, not the seed."""
        p = float(self.correct1.mean())
        return 100 * math.sqrt(p * (1 - p) / self.n_images)

    def write(self, path: Path) -> None:
        """The bits of `correct1`, eight to a byte, for paired comparison: 6.25 kB for 50,000 images."""
        np.save(path, np.packbits(self.correct1))


def read_correct(path: Path, n_images: int) -> np.ndarray:
    """(N,) bools as `Evaluation.write` stored them."""
    return np.unpackbits(np.load(path), count=n_images).astype(bool)


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    images: Images,
    *,
    normalise: Normalise,
    device: torch.device,
    autocast: torch.dtype | None,
    batch: int,
    workers: int,
) -> Evaluation:
    """Top-1 and top-5 of `model`, which is put into evaluation mode and left in the mode it was in.

    `autocast`: torch.bfloat16, torch.float16, or None for float32. Raises ValueError for an unreadable image (named),
    and FloatingPointError for logits that are not finite: their largest would still be a class.
    """
    was_training = model.training
    model.eval()
    seen, hits = [], []
    stream = batches(images, eval_order(len(images), batch), workers=workers, pin_memory=device.type == "cuda")
    for pixels, targets, indices in stream:
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            logits = model(normalise(pixels)).float()
        if not logits.isfinite().all():
            first = images.reader.filename(int(indices[0]))
            raise FloatingPointError(f"the logits of the evaluation batch that begins with {first} are not finite")
        guesses = logits.topk(min(5, logits.shape[1])).indices.cpu()  # (B, 5), best first
        hits.append(guesses == targets[:, None])
        seen.append(indices)
    model.train(was_training)
    assert torch.equal(torch.cat(seen), torch.arange(len(images))), "every image once, in order"
    hit: np.ndarray = torch.cat(hits).numpy()
    return Evaluation(correct1=hit[:, 0], correct5=np.any(hit, axis=1))
