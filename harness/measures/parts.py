"""What torch's operators take in a forward pass: by operator, by part, and where in the model they run.

The time of an operator is its own, without that of the operators that it calls: the times add up to the pass. On a GPU
it is that of the kernels that it has started. Its part is what it does; one that is unknown belongs to what calls it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from attentions import Attention
from attentions._functions import Convolution, LinearProduct
from harness.cells.runtime import Device
from harness.measures.formulas import BY_DISPATCHER, FOURIER, FOURIER_BY_DISPATCHER, OF_ACTIVATIONS, WITH_WEIGHT
from harness.measures.free import GROUPS

PROJECTIONS, PRODUCTS, CONVOLUTIONS, TRANSFORMS = "projections", "products", "convolutions", "transforms"
OTHER = "other"

OUTSIDE = "outside operators"
"""What no operator takes: Python."""

PARTS = (PROJECTIONS, PRODUCTS, CONVOLUTIONS, TRANSFORMS, *GROUPS, OTHER, OUTSIDE)
"""What operators are spent on. Projections are products with a weight, of linear layers; products those of two
activations, fused kernels, which have the softmax in them, among these."""

ATTENTION, MLP, REST = "attention", "mlp", "rest"
WHERE = (ATTENTION, MLP, REST)
"""Where an operator runs: in the attention, without its projections, in an MLP, or elsewhere."""

_MARK = "attention-bench "
"""Before the names of the two kinds of modules, as they are marked in a trace."""

_PART = {
    **{f"aten::{name}": part for part, texts in GROUPS.items() for text in texts for name in text.split()},
    **dict.fromkeys([*OF_ACTIVATIONS, *BY_DISPATCHER], PRODUCTS),
    **dict.fromkeys([*FOURIER, *FOURIER_BY_DISPATCHER], TRANSFORMS),
    **dict.fromkeys([*WITH_WEIGHT, "aten::mkldnn_linear", "mkldnn::_linear_pointwise"], PROJECTIONS),
    # The kernels of attentions, which have the names of their functions.
    LinearProduct.__name__: PRODUCTS,
    Convolution.__name__: CONVOLUTIONS,
    "aten::resize_": "new tensors",
}


class Operator(NamedTuple):
    """An operator by its name, one of PARTS, and one of WHERE."""

    name: str
    part: str
    where: str


def part_of(name: str, callers: list[str]) -> str:
    """Return the part of an operator, given the parts of those that call it, the innermost first."""
    own = _PART.get(name) or _PART.get(name.removesuffix("_"))
    if own is None and "conv" in name:
        own = CONVOLUTIONS
    if own is None:
        return next(iter(callers), OTHER)
    # A linear layer may be computed by any of the products.
    return PROJECTIONS if own == PRODUCTS and PROJECTIONS in callers else own


class Profiler:
    """A call of a model that is profiled whenever it is made; `last` has the seconds of the pass alone.

    Nothing is changed in what runs.
    """

    def __init__(self, call: Callable[[], object], model: nn.Module, device: Device) -> None:
        self._call, self._model, self._device = call, model, device
        self.start()

    def start(self) -> None:
        """Forget all passes."""
        self._passes, self._seconds, self.last = 0, 0.0, 0.0
        self._found: dict[Operator, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def __call__(self) -> None:
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._device == "cuda" else [])]
        with _marked(self._model), profile(activities=kinds) as profiled:
            began = time.perf_counter()
            self._call()
            if self._device == "cuda":
                torch.cuda.synchronize()
            self.last = time.perf_counter() - began
        inside = 0.0
        for event in profiled.events() or ():
            seconds = _own_seconds(event, self._device)
            if seconds is None:
                continue
            inside += seconds
            spent = self._found[_operator(event)]
            spent[0] += not event.name.startswith(_MARK)
            spent[1] += seconds
        self._found[Operator(OUTSIDE, OUTSIDE, REST)][1] += self.last - inside
        self._passes, self._seconds = self._passes + 1, self._seconds + self.last

    def spent(self) -> tuple[float, dict[Operator, tuple[float, float]]]:
        """Return the seconds of a pass, and calls and seconds of each operator, which add up to them: means."""
        assert self._passes
        found = {each: (calls / self._passes, took / self._passes) for each, (calls, took) in self._found.items()}
        return self._seconds / self._passes, found


def _own_seconds(event: Any, device: Device) -> float | None:
    """Return the seconds of an event without those that it calls; None for what is no operator."""
    if event.device_type != DeviceType.CPU or event.is_async:
        return None
    if device == "cuda":
        return sum(each.duration for each in event.kernels) / 1e6
    return float(event.self_cpu_time_total) / 1e6


def _operator(event: Any) -> Operator:
    names = list(_callers(event))
    where = next((name.removeprefix(_MARK) for name in (event.name, *names) if name.startswith(_MARK)), REST)
    if event.name.startswith(_MARK):
        return Operator(OUTSIDE, OUTSIDE, where)
    parts: list[str] = []
    # From the outermost one: the part of each depends on those around it.
    for name in reversed([name for name in names if not name.startswith(_MARK)]):
        if (part := part_of(name, parts)) != OTHER:
            parts.insert(0, part)
    return Operator(event.name, part_of(event.name, parts), where)


def _callers(event: Any) -> Iterator[str]:
    while (event := event.cpu_parent) is not None:
        yield event.name


@contextmanager
def _marked(model: nn.Module) -> Iterator[None]:
    """Mark the attentions and the MLPs of a model in a trace."""
    open_: list[record_function] = []

    def enter(mark: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: object) -> None:
            open_.append(record_function(_MARK + mark))
            open_[-1].__enter__()

        return hook

    def leave(module: nn.Module, given: object, out: object) -> None:
        open_.pop().__exit__(None, None, None)

    handles = []
    for name, module in model.named_modules():
        mark = ATTENTION if isinstance(module, Attention) else MLP if name.rpartition(".")[2] == "mlp" else None
        if mark is not None:
            handles += [module.register_forward_pre_hook(enter(mark)), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
