"""How much memory a model takes, for inference and for a training step, before there is a device to try it on.

    need = memory_of(preset("swin_t"), "train", batch=128, precision="bf16")      # Memory(peak=..., weights=..., ...)
    fitting_batch(preset("swin_t"), "train", 40, precision="bf16")                # 402

The model runs on fake tensors, which have shapes and types but no memory: the same call that a speed is measured with.
Counted is what tensors hold, as torch sees them on a CPU; buffers inside of kernels are not. Unchecked on CUDA.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from backbones import BackboneSpec, build
from harness.cells import Cell, Evaluate, Runtime, Speed, Train
from harness.cells.recipe import split_batch
from harness.cells.runtime import Precision, Workload
from harness.measures.speed import prepared
from harness.process.errors import first_line
from results.sheets import Sheet

GIB = 2**30

FOR_CUDA = 1.0
"""GiB of a GPU that CUDA, its libraries and their workspaces take."""

FOR_GAPS = 0.08
"""Share of the rest that torch's allocator cannot use, as its blocks do not fit exactly."""

GPUS = (16, 24, 40, 80)
"""GiB of the GPUs that are asked about."""

LINEAR_FROM = 64
"""Images from which the peak grows by the same number of bytes with each image."""


@dataclass(frozen=True)
class Memory:
    """Bytes: the peak, and what is in memory all the time or, `saved`, between forward and backward pass.

    `weights` has the buffers, too. The gradients come as what is saved goes, so the peak may be below the sum. `saved`
    has a number for each part of the model ("stage 1", ..., "head"), and is empty for inference.
    """

    peak: int
    weights: int
    gradients: int
    optimizer: int
    saved: dict[str, int]


@lru_cache(maxsize=256)
def memory_of(spec: BackboneSpec, work: Workload, batch: int, precision: Precision = "fp32") -> Memory:
    """Estimate what a batch takes in inference, or in a training step with AdamW, in eager mode.

    Raises ValueError for what torch cannot run on fake tensors.
    """
    with torch.device("meta"):
        model = build(spec)
    alive = _Alive()
    with _without_values(spec), FakeTensorMode(allow_non_fake_inputs=True), alive:
        model._apply(lambda x: torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cpu"))
        images = torch.empty(batch, spec.in_channels, *spec.image_size)
        labels = torch.empty(batch, dtype=torch.int64)
        call = prepared(model, images, labels, Runtime("cpu", precision, batch=batch), work, fused=True)
        # The first step makes the state of the optimizer, which is there in all others.
        call()
        alive.peak = alive.now
        call()
        peak = alive.peak
        with _saved_by_part(spec, model) as saved:
            call()
        weights = _bytes(model.parameters()) + _bytes(model.buffers())
        gradients = _bytes(p.grad for p in model.parameters() if p.grad is not None)
    training = work == "train"
    return Memory(peak, weights, gradients, 2 * gradients if training else 0, dict(saved) if training else {})


@contextmanager
def _without_values(spec: BackboneSpec) -> Iterator[None]:
    """Say in an error about a fake tensor what is different there."""
    try:
        yield
    except RuntimeError as problem:
        raise ValueError(
            f"the memory of {spec.name} {spec.attention.name} cannot be estimated, as tensors have no values there: "
            f"{first_line(problem)}"
        ) from problem


def fitting_batch(spec: BackboneSpec, work: Workload, gigabytes: float, precision: Precision = "fp32") -> int:
    """Return the largest batch that fits on a GPU with this many GiB, 0 if none does."""

    def peak(batch: int) -> int:
        return memory_of(spec, work, batch, precision).peak

    room = room_of(gigabytes)
    per_image = (peak(2 * LINEAR_FROM) - peak(LINEAR_FROM)) / LINEAR_FROM
    if peak(LINEAR_FROM) <= room:
        return LINEAR_FROM + int((room - peak(LINEAR_FROM)) / per_image)
    fits, too_many = 0, LINEAR_FROM
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        fits, too_many = (middle, too_many) if peak(middle) <= room else (fits, middle)
    return fits


def need_of(cell: Cell, processes: int) -> int:
    """Estimate the bytes of a cell on each of this many devices; 0 for a task that is not known to need any.

    Raises ValueError for a batch that does not divide among the processes, and as `memory_of`.
    """
    spec, task = cell.backbone, cell.task
    match task:
        case Speed():
            return memory_of(spec, "train", task.runtime.batch, task.runtime.precision).peak
        case Evaluate():
            return memory_of(spec, "infer", task.batch, task.precision).peak
        case Train():
            batch = task.recipe.batch // (processes * split_batch(task.recipe, processes, task.device_batch))
            found = memory_of(spec, "train", batch, task.precision)
            return found.peak + (0 if task.recipe.ema_decay is None else found.weights)
    return 0


def room_of(gigabytes: float) -> int:
    """Return the bytes that tensors may take on a GPU with this many GiB."""
    return int((gigabytes - FOR_CUDA) * GIB * (1 - FOR_GAPS))


def memory_sheet(spec: BackboneSpec, batch: int, precision: Precision = "fp32") -> Sheet:
    """Return what a batch takes in inference and in a training step, in MiB, and the largest batches of some GPUs."""
    works: tuple[tuple[str, Workload], ...] = (("inference", "infer"), ("training step", "train"))
    found = {name: memory_of(spec, work, batch, precision) for name, work in works}
    parts = list(found["training step"].saved)
    headers = ["MiB", "peak", "weights", "gradients", "optimizer", *(f"saved by {part}" for part in parts)]
    headers += [f"largest batch, {size} GB" for size in GPUS]
    rows = [
        [
            name,
            *map(_mebibytes, (need.peak, need.weights, need.gradients, need.optimizer)),
            *(_mebibytes(need.saved.get(part, 0)) for part in parts),
            *(str(fitting_batch(spec, work, size, precision)) for size in GPUS),
        ]
        for (name, work), need in zip(works, found.values(), strict=True)
    ]
    notes = [
        f"{spec.name}: a batch of {batch} in {precision}, eager, with AdamW. Estimated on tensors without memory; "
        "unchecked on CUDA.",
        "Saved: what the forward pass keeps for the backward pass. As gradients come, it goes: the peak may be below "
        "the sum.",
        f"Of a GPU's memory, {FOR_CUDA:g} GiB are taken to be for CUDA, and {FOR_GAPS:.0%} of the rest lost in gaps.",
    ]
    return Sheet(headers, rows, frozenset(range(1, len(headers))), notes)


def _mebibytes(number: int) -> str:
    return f"{number / 2**20:,.1f}"


class _Alive(TorchDispatchMode):
    """Adds up the bytes of all storages that operators have made and that are still held."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in pytree.tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        number, size = id(storage), storage.nbytes()
        if number in self.known:
            return

        def forget(_: object) -> None:
            self.now -= size
            del self.known[number]

        self.known[number] = weakref.ref(storage, forget)
        self.now += size
        self.peak = max(self.peak, self.now)


@contextmanager
def _saved_by_part(spec: BackboneSpec, model: nn.Module) -> Iterator[Counter[str]]:
    """Yield the bytes that the forward pass saves for the backward pass, weights apart, by part of the model."""
    found: Counter[str] = Counter()
    seen = {id(each.untyped_storage()) for each in (*model.parameters(), *model.buffers())}
    kept = []  # while these are held, no other storage has their id; the peak of this call is none
    parts = ["head"]

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if id(storage) not in seen:
            seen.add(id(storage))
            kept.append(storage)
            found[parts[-1]] += storage.nbytes()
        return tensor

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: parts.append(spec.part_of(f"{name}."))

    def leave(*_: object) -> None:
        parts.pop()

    handles = []
    for name, module in model.named_modules():
        if name:
            handles += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(leave)]
    try:
        with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
            yield found
    finally:
        for handle in handles:
            handle.remove()


def _bytes(tensors: Iterator[Tensor] | Any) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)
