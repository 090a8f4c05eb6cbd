"""What is measured of a backbone, as values: the tasks. `harness/runner/run.py` knows which function runs each.

A user's own task is a frozen dataclass with a `name`, a `label` and a method
`run(spec, folder, report) -> metrics`.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar, get_args

from harness.cells.preprocessing import Preprocessing
from harness.cells.recipe import Recipe
from harness.cells.runtime import Mode, Precision, Runtime, check_runtime
from harness.cells.source import DataSource
from harness.cells.weights import RunWeights, Weights

Metrics = dict[str, float | int | str | None]
"""The results of a cell, by names that end in their unit."""

BATCH = 128
"""Images per batch in the evaluations of a training run: not an option, since it changes the last bits of logits."""


@dataclass(frozen=True)
class Costs:
    """The task that counts parameters and multiply-adds per image, the same on every machine."""

    name: ClassVar[str] = "costs"
    label: ClassVar[str] = "costs"


@dataclass(frozen=True)
class Speed:
    """The task that measures time and memory; each median is taken over at least `min_seconds` of work.

    In another runtime than torch there is no training step: inference alone is measured, where its outputs are right.
    """

    name: ClassVar[str] = "speed"

    runtime: Runtime = Runtime()  # noqa: RUF009, a frozen value
    min_seconds: float = 2.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.min_seconds) and self.min_seconds > 0):
            raise ValueError(f"min_seconds is {self.min_seconds!r}; allowed are numbers above 0")

    @property
    def label(self) -> str:
        """For people: the task and its circumstances."""
        runtime = self.runtime
        layout = " channels_last" if runtime.channels_last else ""
        how = runtime.mode if runtime.runtime == "torch" else runtime.runtime
        return f"speed {runtime.device} {runtime.precision} {how}{layout} batch {runtime.batch}"


@dataclass(frozen=True)
class Imported:
    """The task that others have done: they measured inference, on their machine or with their tool. No run does it."""

    name: ClassVar[str] = "imported"

    device: str  # in the words of its source, as is the rest
    tool: str
    version: str
    precision: str
    batch: int

    @property
    def label(self) -> str:
        """For people: the task and its circumstances."""
        return f"imported {self.device} {self.tool} {self.version} {self.precision} batch {self.batch}"


@dataclass(frozen=True)
class Train:
    """The task that trains a model by a recipe, and evaluates it on every val image after each epoch."""

    name: ClassVar[str] = "train"

    recipe: Recipe
    data: DataSource
    device: str = "cpu"  # or "cuda"
    precision: Precision = "fp32"  # bf16 and fp16 are autocast; weights, loss and updates stay float32
    seed: int = 0
    mode: Mode = "eager"  # or "compiled"
    weights: Weights | RunWeights | None = None  # to start from; None: from scratch
    # The rest is how it is run, and changes no result beyond the order of sums.
    workers: int = field(default=0, compare=False)  # processes that read images, per rank
    device_batch: int | None = field(default=None, compare=False)  # most images at once on a device; None: no limit
    checkpoint_minutes: float = field(default=10.0, compare=False)  # between two checkpoints; 0: after every step
    cache: str | None = field(default=None, compare=False)  # folder in which val crops are kept
    tensorboard: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        check_runtime(self.device, self.precision)
        if self.mode not in get_args(Mode):
            raise ValueError(f"unknown mode {self.mode!r}; allowed: {', '.join(get_args(Mode))}")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; allowed are numbers from 0 up")
        if self.workers < 0 or self.checkpoint_minutes < 0:
            raise ValueError("workers and checkpoint_minutes take numbers from 0 up")
        if self.device_batch is not None and self.device_batch < 1:
            raise ValueError(f"device_batch is {self.device_batch}; allowed are numbers of images from 1 up")

    @property
    def label(self) -> str:
        """For people: the task and its circumstances."""
        epochs = self.recipe.total_epochs
        start = "" if self.weights is None else f" from {self.weights.name}"
        return f"train {self.device} {self.precision} {self.data.name} {epochs} epochs seed {self.seed}{start}"


@dataclass(frozen=True)
class Evaluate:
    """The task that loads weights, from a file or a run, and evaluates them on every val image."""

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
