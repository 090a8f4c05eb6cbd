"""How many images per second a device processes: as recorded, as probed here, or from multiply-adds.

    rates = Rates(records, cores=2)
    rates.of(Load(preset("swin_t"), "train", "cuda", "bf16"))     # Rate(images_per_s=..., basis="recorded", note=...)

A rate is for an estimate, not for a comparison: it comes from whatever record is nearest, and says which that was.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from statistics import median
from typing import Any, Literal, NamedTuple

import torch

from backbones import BackboneSpec, build, from_json, macs
from harness.cells import Runtime
from harness.cells.runtime import Device, Mode, Precision, Workload
from harness.cells.tasks import BATCH
from harness.measures.quiet import watch
from harness.measures.speed import prepare, sample, timer
from harness.process.errors import first_line
from results import Record, model_of

PASSES: dict[Workload, int] = {"infer": 1, "train": 3}
"""In forward passes: the backward pass takes two, for the gradients of inputs and of weights."""

GPU_GMACS_PER_S = {"fp32": 3000.0, "bf16": 6000.0, "fp16": 6000.0}
"""For one data-centre GPU, low on purpose. Digitised runtimes of an A100 in results/published/efficiency.csv give 6,800
to 10,500: Swin-T 0.66 ms for 4.5 GMACs, PVT-S 0.53 for 3.8, Swin-B 1.47 for 15.4. fp32, without TF32: assumed half."""

CPU_GMACS_PER_S = 15.0
"""For one core. On two of a Xeon with AVX-512, micro and tiny presets reached 15 to 60 per core in fp32."""

ALIKE = 4.0
"""Largest ratio of the multiply-adds of two backbones of which one is used to estimate the speed of the other."""

PROBE_SECONDS = 1.0
PROBE_CALLS = 3  # at least, after one that is not timed
PROBE_CPU_IMAGES = 32  # at most: larger batches take a CPU longer and show nothing more

Basis = Literal["recorded", "probe", "GMACs"]


class Load(NamedTuple):
    """Work for one device: `batch` images at a time, from the image set `data` or, if None, generated on the device."""

    backbone: BackboneSpec
    work: Workload
    device: str
    precision: Precision
    mode: Mode = "eager"
    batch: int = BATCH
    data: str | None = None


class Rate(NamedTuple):
    """Images per second of one device, and where that comes from; `note` is for people."""

    images_per_s: float
    basis: Basis
    note: str
    reads: bool = False  # whether it includes the time to read images


class RecordedSpeed(NamedTuple):
    """A speed from a record: images per second of one device."""

    images_per_s: float
    backbone: str  # as JSON without its name, which equality does not look at
    name: str
    work: Workload
    device: str
    precision: str
    mode: str
    batch: int
    data: str | None
    machine: str | None


class Rates:
    """Rates from records, which are sorted once. `cores` is the number that a process on a CPU has."""

    def __init__(self, records: Iterable[Record], cores: int) -> None:
        self.cores = cores
        # By backbone, the newest first: of equally near speeds the first is used.
        self._speeds: dict[str, list[RecordedSpeed]] = {}
        for record in sorted(records, key=lambda record: record.created, reverse=True):
            # A task of a user may have the name of one of ours and other metrics.
            with suppress(KeyError):
                for each in _speeds_of(record):
                    self._speeds.setdefault(each.backbone, []).append(each)
        self._known: dict[tuple[Load, bool], Rate] = {}

    def of(self, load: Load, probe: bool = False) -> Rate:
        """Return the rate of a load, from the first available source.

        These are: a record of the backbone; if `probe`, a probe here; a record of a similar backbone of the family,
        scaled by GMACs; GMACs alone.

        Raises ValueError for a probe without the device, or one that fails there, such as for lack of memory.
        """
        if (load, probe) not in self._known:
            self._known[load, probe] = self._find(load, probe)
        return self._known[load, probe]

    def _find(self, load: Load, probe: bool) -> Rate:
        own = _nearest(self._speeds.get(model_of(load.backbone.to_json()), ()), load)
        if own is not None and (own.precision == load.precision or not probe):
            return _recorded(own, load, 1.0)
        if probe:
            return _probed(load)
        alike = self._alike(load)
        if alike is not None:
            return alike
        gmacs = macs(load.backbone).total / 1e9
        per_s = GPU_GMACS_PER_S[load.precision] if load.device == "cuda" else CPU_GMACS_PER_S * self.cores
        note = f"{gmacs:.3g} GMACs at {per_s:,.0f} per second, rough"
        return Rate(per_s / (gmacs * PASSES[load.work]), "GMACs", note)

    def _alike(self, load: Load) -> Rate | None:
        """Return the rate from the backbone of the same family that is nearest in multiply-adds, if any is near."""
        total = macs(load.backbone).total
        found: list[tuple[float, RecordedSpeed, float]] = []
        for text, speeds in self._speeds.items():
            each, spec = _nearest(speeds, load), _described(text)
            if each is not None and spec is not None and spec.family == load.backbone.family:
                ratio = macs(spec).total / total
                found.append((abs(math.log(ratio)), each, ratio))
        distance, each, ratio = min(found, key=lambda one: one[0], default=(math.inf, None, 1.0))
        return _recorded(each, load, ratio) if each is not None and distance <= math.log(ALIKE) else None


def _recorded(speed: RecordedSpeed, load: Load, ratio: float) -> Rate:
    """Return the rate of a load from a recorded speed of a backbone with `ratio` times the multiply-adds."""
    attention = json.loads(speed.backbone)["attention"].partition("(")[0]
    note = f"recorded speed of {speed.name} {attention}"
    note += f" on {speed.machine}" if speed.machine else ""
    note += f" in {speed.precision}" if speed.precision != load.precision else ""
    note += f", {speed.mode}" if speed.mode != load.mode else ""
    if speed.backbone != model_of(load.backbone.to_json()) or speed.work != load.work:
        note += ", scaled by GMACs"
    rate = speed.images_per_s * (ratio * PASSES[speed.work] / PASSES[load.work])
    # A training step has three times the passes of an evaluation, but takes the same time to read its images.
    reads = speed.work == load.work and speed.data is not None and speed.data == load.data
    return Rate(rate, "recorded", note, reads)


def _nearest(speeds: Iterable[RecordedSpeed], load: Load) -> RecordedSpeed | None:
    """Return the speed measured under the circumstances most like those of a load, on the same kind of device."""

    def distance(each: RecordedSpeed) -> tuple[float, ...]:
        precision = 0 if each.precision == load.precision else 2 if "fp32" in (each.precision, load.precision) else 1
        # The same images are best, then images generated on the device; other images take another time to read.
        images = 0 if each.data == load.data else 1 if each.data is None else 2
        return each.work != load.work, precision, images, each.mode != load.mode, abs(math.log(each.batch / load.batch))

    return min((each for each in speeds if each.device == load.device), key=distance, default=None)


def _speeds_of(record: Record) -> Iterator[RecordedSpeed]:
    """Yield the undisturbed speeds in a record."""
    if record.status != "done":
        return
    task, metrics, machine = record.cell["task"], record.metrics, record.environment.get("device_name")
    backbone = record.cell["backbone"]

    def one(per_s: float, work: Workload, how: dict[str, Any], batch: int, data: str | None) -> RecordedSpeed:
        where = (how["device"], how["precision"], how.get("mode", "eager"))
        return RecordedSpeed(per_s, model_of(backbone), backbone["name"], work, *where, batch, data, machine)

    match task["name"]:
        case "speed":
            runtime = task["runtime"]
            # Another runtime says little of torch, and has no training step.
            if "runtime" in runtime:
                return
            if "infer" not in record.disturbed:
                yield one(metrics["images_per_s"], "infer", runtime, runtime["batch"], None)
            if "train" not in record.disturbed:
                yield one(metrics["train_images_per_s"], "train", runtime, runtime["batch"], None)
        case "train" if "loop" not in record.disturbed:
            per_s = metrics["loop_images_per_s"] / metrics["ranks"]
            yield one(per_s, "train", task, metrics["device_batch"], task["data"]["name"])
        case "evaluate":
            per_s = metrics["n_images"] / metrics["evaluate_seconds"] / metrics["ranks"]
            yield one(per_s, "infer", task, task["batch"], task["data"]["name"])


@lru_cache(maxsize=4096)
def _described(backbone: str) -> BackboneSpec | None:
    """Return the spec of a record, or None if its attention is not loaded or its fields are of another version."""
    try:
        return from_json({"name": "recorded", **json.loads(backbone)})
    except (ValueError, TypeError):
        return None


def _probed(load: Load) -> Rate:
    """Measure this machine in a few calls of a model with random weights."""
    if load.device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "a probe of device cuda was requested, but torch sees none here: probe on a machine that has one, or "
            "estimate without a probe"
        )
    spec = load.backbone
    device: Device = "cuda" if load.device == "cuda" else "cpu"
    batch = load.batch if device == "cuda" else min(load.batch, PROBE_CPU_IMAGES)
    runtime = Runtime(device, load.precision, load.mode, batch=batch)
    timed = timer(device)
    try:
        call = prepare(build(spec), (spec.in_channels, *spec.image_size), spec.num_classes, runtime, load.work)
        timed(call)
        found = sample(call, timed, watch(device), PROBE_SECONDS, PROBE_CALLS)
    # Such as too little memory or a missing compiler.
    except (RuntimeError, MemoryError) as problem:
        raise ValueError(
            f"a probe of {spec.name} {spec.attention.name} with a batch of {batch} failed: {first_line(problem)}"
        ) from problem
    note = f"a probe on this machine{'' if found.disturbed is None else f', disturbed: {found.disturbed}'}"
    return Rate(batch / median(found.times), "probe", note)
