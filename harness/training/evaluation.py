"""Exact evaluation: every image of a split once, none padded and none dropped, on any number of processes.

Which images form a batch does not depend on the number of processes, and no batch is split among ranks. So the logits,
and with them the answers, are the same to the last bit on one rank and on many.
"""

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import results
from backbones import BackboneSpec, build
from harness.cells import Evaluate, Metrics, Weights
from harness.cells.runtime import AUTOCAST, Precision
from harness.cells.tasks import BATCH
from harness.images.batches import Images, Key, batches, eval_order
from harness.images.crops import Crops, crops_of
from harness.images.sources import ILSVRC_NUMBERS, counted_from_one, list_hash, open_val
from harness.images.transforms import Normalise, eval_transform
from harness.process.determinism import ieee_float32
from harness.process.ranks import Ranks, ranks, usable_device
from harness.process.stopping import StopRequest
from harness.training.loading import load_weights, located

REPORT_EVERY = 50  # batches


@dataclass(frozen=True)
class Inference:
    """How images become logits: the normalisation of the input, its device, the number format, and how it is read."""

    normalise: Normalise  # to the device on which the model is
    precision: Precision = "fp32"  # that of autocast
    batch: int = BATCH  # images
    workers: int = 0  # processes that read images; 0: this one

    @property
    def device(self) -> torch.device:
        return self.normalise.mean.device

    def logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """uint8 (B, C, H, W) -> float32 (B, num_classes)."""
        dtype = AUTOCAST[self.precision]
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            return model(self.normalise(images)).float()


@dataclass(frozen=True)
class Evaluation:
    """Which images were right, by the first guess and by the first five: (N,) bools in the order of the split."""

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
        """Standard error of top1, sqrt(p (1 - p) / n), in percentage points; over the choice of images, not seeds."""
        p = float(self.correct1.mean())
        return 100 * math.sqrt(p * (1 - p) / self.n_images)


def evaluate_weights(task: Evaluate, spec: BackboneSpec, folder: Path, report: Callable[[str], None]) -> Metrics:
    """Evaluate weights, and write which images were right to `folder`/correct.npy: the task `Evaluate`.

    Evaluation uses the uncompiled model. top1, top5, top1_stderr: percent of the n_images val images. val_list: hash of
    the list of val images. weights_missing, weights_unexpected, weights_reshaped: how many tensors did not fit.
    head_trained: whether the classifier is from the file; otherwise the accuracy is that of guessing.

    Raises ValueError for data, weights or a device that cannot be used, FloatingPointError for logits that are not
    finite, and Stopped on request.
    """
    group = ranks()
    device = usable_device(task.device, group)
    reader = open_val(task.data, spec.num_classes)
    val_list = list_hash(reader)  # before the work: whatever can fail at its end
    if isinstance(task.weights, Weights) and counted_from_one(reader):
        report(f"warning: the classes of {task.data.name} are called 1 to {len(reader.classes)}: {ILSVRC_NUMBERS}")
    model = build(spec).to(device)
    loaded = load_weights(located(task.weights, folder.parent), model, spec)
    report(f"{task.weights.name}: {loaded}")
    with ieee_float32(), StopRequest() as stop:
        result = evaluate(
            model,
            Images(reader, eval_transform(spec.image_size, spec.in_channels, task.preprocessing), seed=0),
            Inference(
                Normalise(task.preprocessing, spec.in_channels, device), task.precision, task.batch, task.workers
            ),
            group=group,
            crops=crops_of(task.cache, reader, spec.image_size, spec.in_channels, task.preprocessing, group),
            stop=stop,
            report=report,
        )
    if group.first:
        folder.mkdir(parents=True, exist_ok=True)
        results.write_correct(folder / "correct.npy", result.correct1)
        results.write_image_list(folder.parent, val_list, reader.classes, reader.targets)
    return {
        "top1": result.top1,
        "top1_stderr": result.top1_stderr,
        "top5": result.top5,
        "n_images": result.n_images,
        "val_list": val_list,
        "weights_missing": len(loaded.missing),
        "weights_unexpected": len(loaded.unexpected),
        "weights_reshaped": len(loaded.reshaped),
        "head_trained": loaded.head,
        "ranks": group.world,
    }


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    images: Images,
    inference: Inference,
    *,
    group: Ranks = Ranks(),  # noqa: B008, a frozen value
    crops: Crops | None = None,
    stop: StopRequest | None = None,
    report: Callable[[str], None] | None = None,
) -> Evaluation:
    """Return top-1 and top-5 of `model`, which is put into evaluation mode and left in the mode it was in.

    Each process of `group` evaluates its share, and all return the complete answer. `crops`: where decoded images are
    kept between evaluations.

    Raises ValueError for an unreadable image (named), FloatingPointError for logits that are not finite (their largest
    would still be a class), and Stopped on request.
    """
    if crops is not None:
        crops.open()
    was_training = model.training
    model.eval()
    counts = torch.zeros(3, len(images), dtype=torch.int32)  # seen, right by the first guess, by the first five
    order = eval_order(len(images), inference.batch)
    stream = _stream(images, order[group.rank :: group.world], inference, crops)
    try:
        for number in range(-(-len(order) // group.world)):
            if stop is not None and group.any(stop.asked):
                raise stop.stopped(f"in the evaluation of {len(images)} images", group)
            share = next(stream, None)
            if share is None:  # the other ranks have one more batch
                continue
            pixels, targets, indices = share
            logits = inference.logits(model, pixels)
            if not logits.isfinite().all():
                first = images.reader.shown(int(indices[0]))
                raise FloatingPointError(f"the logits of the evaluation batch that begins with {first} are not finite")
            right = logits.topk(min(5, logits.shape[1])).indices.cpu() == targets[:, None]  # (B, 5), best first
            counts[0, indices] += 1
            counts[1, indices] = right[:, 0].int()
            counts[2, indices] = right.any(1).int()
            if report is not None and number % REPORT_EVERY == REPORT_EVERY - 1:
                done = min((number + 1) * inference.batch * group.world, len(images))
                report(f"evaluated {done} of {len(images)} images")
        if crops is not None:
            crops.finish()
    finally:
        model.train(was_training)
        stream.close()
        if crops is not None:
            crops.discard()
    seen, correct1, correct5 = group.sum(counts).numpy()
    if not (seen == 1).all():
        raise RuntimeError(f"{(seen != 1).sum()} of {len(images)} images were not evaluated exactly once")
    return Evaluation(correct1.astype(bool), correct5.astype(bool))


def _stream(
    images: Images, order: list[list[Key]], inference: Inference, crops: Crops | None
) -> Generator[tuple[Tensor, Tensor, Tensor]]:
    """Yield pixels, targets and indices of each batch: from the kept crops if complete, else decoded (and kept)."""
    pin = inference.device.type == "cuda"
    if crops is not None and crops.complete:
        targets = torch.tensor(images.reader.targets)
        for keys in order:
            indices = torch.tensor([key.index for key in keys])
            pixels = crops.read(indices)
            yield pixels.pin_memory() if pin else pixels, targets[indices], indices
        return
    for batch in batches(images, order, workers=inference.workers, pin_memory=pin):
        if crops is not None:
            crops.keep(batch.indices, batch.images)
        yield batch.images, batch.targets, batch.indices


def best_of(history: list[Metrics]) -> Metrics:
    """Return the largest top-1 over the epochs, of the moving average if there is one, and its first epoch."""
    name = "top1" if history[-1]["top1_ema"] is None else "top1_ema"
    values: list[float] = [line[name] for line in history]  # type: ignore[misc]
    return {"top1_best": max(values), "epoch_best": values.index(max(values)) + 1}
