"""Evaluating weights on an image set: the task `Evaluate`. The loop itself is in harness/evaluation.py."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import results
from backbones import BackboneSpec, build
from harness.preprocessing import Preprocessing
from harness.process.ranks import ranks, usable
from harness.process.stopping import StopRequest
from harness.runs import RunWeights, located
from harness.sources import DataSource, list_hash, open_val
from harness.speed import AUTOCAST, Precision
from harness.weights import Weights, load

Metrics = dict[str, float | int | str | None]
BATCH = 128
"""Images of a batch in the evaluations of a training run: not an option, since logits depend on it in the last bits."""


@dataclass(frozen=True)
class Evaluate:
    """The task: load weights, from a file or of a run, and evaluate them on every val image."""

    name: ClassVar[str] = "evaluate"

    weights: Weights | RunWeights
    data: DataSource
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    device: str = "cpu"
    precision: Precision = "fp32"
    batch: int = BATCH
    workers: int = field(default=0, compare=False)
    cache: str | None = field(default=None, compare=False)  # folder of decoded crops; changes no result

    def __post_init__(self) -> None:
        check_runtime(self.device, self.precision)
        if self.batch < 1:
            raise ValueError(f"batch is {self.batch}; allowed are numbers from 1 up")

    @property
    def label(self) -> str:
        """For people: the task and its circumstances."""
        return f"evaluate {self.weights.name} {self.data.name} {self.preprocessing} {self.device} {self.precision}"

    def run(self, spec: BackboneSpec, folder: Path, report: Callable[[str], None]) -> Metrics:
        """Evaluates, and writes which images were right to `folder`/correct.npy.

        top1, top5, top1_stderr: percent of the n_images val images. val_list: hash of the list of val images.
        weights_missing, weights_unexpected, weights_reshaped: how many tensors did not fit.

        Raises ValueError for data, weights or a device that cannot be used, FloatingPointError for logits that are not
        finite, and Stopped on request.
        """
        from harness.augment import Normalise, eval_transform
        from harness.data import Images
        from harness.evaluation import crops_of, evaluate

        group = ranks()
        device = usable(self.device, group)
        reader = open_val(self.data, spec.num_classes)
        model = build(spec).to(device)
        loaded = load(located(self.weights, folder.parent), model, spec)
        report(f"{self.weights.name}: {loaded}")
        with StopRequest() as stop:
            result = evaluate(
                model,
                Images(reader, eval_transform(spec.image_size, spec.in_channels, self.preprocessing), seed=0),
                normalise=Normalise(self.preprocessing, spec.in_channels, device),
                device=device,
                autocast=AUTOCAST[self.precision],
                batch=self.batch,
                workers=self.workers,
                group=group,
                crops=crops_of(self.cache, reader, spec, self.preprocessing, group),
                stop=stop,
                report=report,
            )
        if group.first:
            folder.mkdir(parents=True, exist_ok=True)
            results.write_correct(folder / "correct.npy", result.correct1)
        return {
            "top1": result.top1,
            "top1_stderr": result.top1_stderr,
            "top5": result.top5,
            "n_images": result.n_images,
            "val_list": list_hash(reader),
            "weights_missing": len(loaded.missing),
            "weights_unexpected": len(loaded.unexpected),
            "weights_reshaped": len(loaded.reshaped),
            "ranks": group.world,
        }


def check_runtime(device: str, precision: str) -> None:
    """Raises ValueError for a device or number format that there is not."""
    if device not in ("cpu", "cuda"):
        raise ValueError(f"unknown device {device!r}; allowed: cpu, cuda")
    if precision not in AUTOCAST:
        raise ValueError(f"unknown precision {precision!r}; allowed: {', '.join(AUTOCAST)}")
