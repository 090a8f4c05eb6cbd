"""How long cells will take and how much disk they need, before they are submitted.

    estimator = Estimator(results.read_all(out)[0])
    estimator.estimate(cell, processes=8)     # Estimate(seconds=..., basis="recorded", note=..., disk_bytes=...)

Speeds come from records if possible, see rates.py; sums are in totals.py. Processes are assumed to share the work
evenly and without overhead. The start-up time of a process is not included.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from backbones import BackboneSpec
from harness.cells import Cell, Costs, DataSource, Evaluate, Speed, Train
from harness.cells.recipe import split_batch
from harness.cells.runtime import Workload
from harness.cells.source import (
    EMBEDDED,
    FASHION_MNIST,
    FASHION_MNIST_IMAGES,
    IMAGENET,
    IMAGENET_IMAGES,
    Split,
    folder_and_columns,
)
from harness.cells.tasks import BATCH
from harness.estimates.disk import KeptCrops, kept_crops
from harness.estimates.rates import Load, Rate, Rates
from harness.images.batches import train_order
from harness.images.sources import open_splits, open_val
from harness.measures.speed import MIN_SAMPLES
from harness.process.environment import cores as usable_cores
from harness.training.room import RECORD_BYTES, run_bytes, stored
from results import Record
from results.wording import count

COUNTING = 2.5e-3
"""Seconds that `Costs` takes per tensor of a model: 0.3 for Swin-T, 1.9 for the 762 tensors of FLatten-PVT-L."""

COMPILING = 100.0
"""Seconds that torch.compile takes for a model, forward and backward: Swin-T on two CPU cores."""

EXPORTING = 10.0
"""Seconds that an export takes in a process of its own, most of them for its start: DeiT-micro on two CPU cores."""

FILES_PER_S, ARRAYS_PER_S = 200.0, 15_000.0
"""Images that one process reads, crops and augments per second: JPEGs of ImageNet's size; small ones from an array."""

Basis = Literal["recorded", "probe", "GMACs", "size", "unknown"]


@dataclass(frozen=True)
class Estimate:
    """What a cell takes: its seconds on `processes` devices ("cuda" or "cpu") from start to end, None if unknown.

    `basis` is where the seconds come from; `note` says more, for people. `disk_bytes` is the size of the files that the
    cell leaves; a running training needs room for one more checkpoint. `crops` is what it leaves in a `cache`.
    """

    seconds: float | None
    basis: Basis
    note: str
    disk_bytes: int
    device: str = "cpu"
    processes: int = 1
    crops: KeptCrops | None = None


class Estimator:
    """Estimates from `records`; with `probe`, what they do not show is measured briefly on this machine.

    `cores` is the number that a process on a CPU will have, by default all that this process may use.
    """

    def __init__(self, records: Iterable[Record], *, probe: bool = False, cores: int | None = None) -> None:
        self.rates = Rates(records, cores or usable_cores())
        self.probe = probe
        self._images: dict[tuple[DataSource, str | None, int], dict[Split, int]] = {}

    def estimate(self, cell: Cell, processes: int = 1) -> Estimate:
        """Estimate a cell that this many processes measure together, on one device each.

        Raises ValueError, in one line, for images that are here but cannot be used, a batch that does not divide among
        the processes, and a probe that cannot be run.
        """
        spec, task = cell.backbone, cell.task
        match task:
            case Costs():
                seconds = COUNTING * stored(spec).tensors
                return Estimate(seconds, "size", "the size of the model", RECORD_BYTES)
            case Speed():
                return self._speed(spec, task)
            case Train():
                return replace(self._train(spec, task, processes), device=task.device, processes=processes)
            case Evaluate():
                return replace(self._evaluate(spec, task, processes), device=task.device, processes=processes)
        # A sweep file may define a task of its own.
        return Estimate(None, "unknown", f"unknown: no estimate of the task {type(task).__name__}", RECORD_BYTES)

    def _speed(self, spec: BackboneSpec, task: Speed) -> Estimate:
        """Follow `harness.measures.speed.measure`. A probe is never used: it would be the measurement itself."""
        runtime, seconds = task.runtime, 0.0
        exported = runtime.runtime != "torch"
        works: tuple[Workload, ...] = ("infer",) if exported else ("infer", "train")
        for work in works:
            load = Load(spec, work, runtime.device, runtime.precision, runtime.mode, runtime.batch)
            rate = self.rates.of(load)
            call = runtime.batch / rate.images_per_s
            # The first call and the one for the memory; the warm-up of at least two calls; the samples.
            seconds += 2 * call + max(task.min_seconds / 4, 2 * call) + max(task.min_seconds, MIN_SAMPLES * call)
        seconds += COMPILING if runtime.mode == "compiled" else EXPORTING if exported else 0.0
        note = f"{rate.note}; as if torch ran it" if exported else rate.note
        return Estimate(seconds, rate.basis, note, RECORD_BYTES, runtime.device)

    def _train(self, spec: BackboneSpec, task: Train, processes: int) -> Estimate:
        recipe, source = task.recipe, task.data
        accumulation = split_batch(recipe, processes, task.device_batch)
        disk = run_bytes(spec, task)
        images = self._images_of(source, spec.num_classes, "train", "val")
        if images is None:
            return _unknown(source, disk)

        load = Load(spec, "train", task.device, task.precision, task.mode, data=source.name)
        load = load._replace(batch=recipe.batch // (processes * accumulation))
        rate = self.rates.of(load, self.probe)
        # Evaluation uses the uncompiled model.
        inference = self.rates.of(load._replace(work="infer", mode="eager", batch=BATCH), self.probe)
        models = 1 if recipe.ema_decay is None else 2

        updates = train_order(task, images["train"]).batches_per_epoch * recipe.total_epochs
        evaluations = models * recipe.total_epochs
        decoded = evaluations if task.cache is None else 1
        val = images["val"] / processes
        reading = _Reading(source, task.workers)
        seconds = reading.seconds(updates * recipe.batch / processes, rate) + decoded * reading.seconds(val, inference)
        seconds += (evaluations - decoded) * val / inference.images_per_s
        seconds += COMPILING if task.mode == "compiled" else 0.0
        crops = kept_crops(task.cache, source, spec, recipe.evaluation, images["val"])
        return Estimate(seconds, rate.basis, reading.note(rate), disk + models * images["val"] // 8, crops=crops)

    def _evaluate(self, spec: BackboneSpec, task: Evaluate, processes: int) -> Estimate:
        source = task.data
        images = self._images_of(source, spec.num_classes, "val")
        if images is None:
            return _unknown(source, RECORD_BYTES)
        load = Load(spec, "infer", task.device, task.precision, batch=task.batch, data=source.name)
        rate = self.rates.of(load, self.probe)
        reading = _Reading(source, task.workers)
        seconds = reading.seconds(images["val"] / processes, rate)
        crops = kept_crops(task.cache, source, spec, task.preprocessing, images["val"])
        return Estimate(seconds, rate.basis, reading.note(rate), RECORD_BYTES + images["val"] // 8, crops=crops)

    def _images_of(self, source: DataSource, classes: int, *splits: Split) -> dict[Split, int] | None:
        """Return the number of images in each split, or None if it cannot be known here."""
        if source.name == IMAGENET:
            return IMAGENET_IMAGES
        if source.name == FASHION_MNIST:
            return FASHION_MNIST_IMAGES
        if source.root is not None and not folder_and_columns(source.root)[0].exists():
            return None
        key = (source, source.root, classes)
        if not set(splits) <= self._images.get(key, {}).keys():
            if "train" in splits:
                train, val = open_splits(source, classes)
                self._images[key] = {"train": len(train), "val": len(val)}
            else:
                self._images[key] = {"val": len(open_val(source, classes))}
        return self._images[key]


def _unknown(source: DataSource, disk: int) -> Estimate:
    return Estimate(None, "unknown", f"unknown: {source.root} is not here, so its images cannot be counted", disk)


@dataclass(frozen=True)
class _Reading:
    """Reading the images of a source in a process with this many worker processes."""

    source: DataSource
    workers: int

    def seconds(self, images: float, rate: Rate) -> float:
        """Return the seconds for this many images at a rate, including the time to read them."""
        computed, read = images / rate.images_per_s, images / self._per_s
        if rate.reads:
            return computed
        return max(computed, read / self.workers) if self.workers else computed + read

    def note(self, rate: Rate) -> str:
        """Return the note of the rate, and whether reading takes longer than computing."""
        per_s = self._per_s * max(1, self.workers)
        if rate.reads or rate.images_per_s <= per_s:
            return rate.note
        workers = count(self.workers, "worker")
        return f"{rate.note}; mostly for reading images, {per_s:,.0f} per second with {workers}, rough"

    @property
    def _per_s(self) -> float:
        return ARRAYS_PER_S if self.source.name in (*EMBEDDED, FASHION_MNIST) else FILES_PER_S
