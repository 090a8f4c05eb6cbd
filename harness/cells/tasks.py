"""What is measured of a backbone, as values: the tasks. `harness/runner/run.py` knows what carries out each of them.

A task of a user's own is a frozen dataclass with a `name`, a `label` and a method
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
"""What is found out about a cell, by names that end in their unit."""

BATCH = 128
"""Images of a batch in the evaluations of a training run: not an option, since logits depend on it in the last bits."""


@dataclass(frozen=True)
class Costs:
    """The task that counts parameters and multiply-adds of one image, the same on every machine."""

    name: ClassVar[str] = "costs"
    label: ClassVar[str] = "costs"


@dataclass(frozen=True)
class Speed:
    """The task that measures time and memory; at least `min_seconds` of work go into each median."""

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
        return f"speed {runtime.device} {runtime.precision} {runtime.mode}{layout} batch {runtime.batch}"


@dataclass(frozen=True)
class Train:
    """The task: train a model by a recipe, evaluating it on every val image after each epoch."""

    name: ClassVar[str] = "train"

    recipe: Recipe
    data: DataSource
    device: str = "cpu"  # or "cuda"
    precision: Precision = "fp32"  # bf16 and fp16 are autocast; weights, loss and updates stay float32
    seed: int = 0
    mode: Mode = "eager"  # or "compiled"
    weights: Weights | RunWeights | None = None  # to start from; None: from scratch
    # What follows is how it is run, and changes no result beyond the order of sums.
    workers: int = field(default=0, compare=False)  # processes that read images, for each rank
    device_batch: int | None = field(default=None, compare=False)  # most images at once on a device; None: no limit
    checkpoint_minutes: float = field(default=10.0, compare=False)  # between two checkpoints; 0: after every step
    cache: str | None = field(default=None, compare=False)  # folder where val crops are kept
    tensorboard: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        check_runtime(self.device, self.precision)
        if self.mode not in get_args(Mode):
            raise ValueError(f"unknown mode {self.mode!r}; allowed: {', '.join(get_args(Mode))}")
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} is not allowed; it takes a number from 0 up")
        if self.workers < 0 or self.checkpoint_minutes < 0:
            raise ValueError("workers and checkpoint_minutes take numbers from 0 up")
        if self.device_batch is not None and self.device_batch < 1:
            raise ValueError(f"device_batch is {self.device_batch}; it takes a number of images from 1 up")

    @property
    def label(self) -> str:
        """For people: the task and its circumstances."""
        epochs = self.recipe.total_epochs
        start = "" if self.weights is None else f" from {self.weights.name}"
        return f"train {self.device} {self.precision} {self.data.name} {epochs} epochs seed {self.seed}{start}"


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
