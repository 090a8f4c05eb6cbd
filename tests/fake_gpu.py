"""A rehearsal of CUDA on a machine without a GPU: tensors on "cuda" have shape, dtype and device, and no numbers.

    with fake_gpu() as gpu:
        train(task, spec, folder, report)     # device="cuda"
    assert not gpu.timed_waits

Tensors on the CPU are real. What is on "cuda" is a `FakeTensor`: each operator checks devices and dtypes and returns
the shape, so a mask that was created on the CPU is found, and so is a dtype that only CUDA's autocast brings about. Of
torch.cuda the few functions that the project calls are replaced; kernels, their numbers and their times are what a real
GPU alone can show (tests/on_a_gpu.py).

torch 2.14 has four traps here. Without a driver, `torch.autocast("cuda")` and `GradScaler("cuda")` switch themselves
off with a warning, and a rehearsal in float16 is one in float32. The autograd engine wants a driver for its device
threads; `backward` below walks the same nodes. `torch.load` under a `FakeTensorMode` returns tensors without numbers.
And several fake operators take unlike dtypes that every kernel refuses, see `ONE_DTYPE`.
"""

import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
ROOT = Path(__file__).resolve().parents[1]
OURS = tuple(f"{ROOT}/{folder}/" for folder in ("attentions", "backbones", "harness", "tests"))
DEVICE = torch.device("cuda", 0)


class FakeGpu(FakeTensorMode):
    """Runs what concerns "cuda" without numbers, and notes where the CPU would have waited for the GPU.

    waits: the lines that made the CPU wait, by reading a number, copying to the CPU, synchronising, or copying from
    memory that is not pinned; timed_waits: those between two CUDA events. uploads: the lines that copied to the GPU
    without waiting. doubles: those that computed in float64 on it, at a 64th of the speed on most cards.
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.waits: Counter[str] = Counter()
        self.timed_waits: Counter[str] = Counter()
        self.uploads: Counter[str] = Counter()
        self.doubles: Counter[str] = Counter()
        self.timing = False
        self._pinned: dict[int, Any] = {}  # storages by address; they stay, so that no address comes back

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the wrapper that skips costs as much as an operator

    @property
    def avoid_device_init(self) -> bool:
        return True  # torch.cuda.is_available says otherwise by now

    def waited(self, why: str) -> None:
        """Note that the line of the project that is running made the CPU wait for the GPU."""
        line = f"{_line()}: {why}"
        self.waits[line] += 1
        if self.timing:
            self.timed_waits[line] += 1

    def __torch_dispatch__(self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _is_composite(func):  # inference mode hands these over in one piece
            with self:
                return func.decompose(*args, **kwargs)
        operator = func.overloadpacket
        if operator is aten._pin_memory:
            pinned = args[0].clone()
            self._pinned[pinned.untyped_storage().data_ptr()] = pinned.untyped_storage()
            return pinned
        if operator is aten.is_pinned:
            return self._is_pinned(args[0])
        device = kwargs.get("device")
        if FakeTensor not in types:
            if device is None or torch.device(device).type != "cuda":
                return func(*args, **kwargs)
            if operator is aten._to_copy:
                self._upload(args[0], kwargs.get("non_blocking", False))
        elif operator is aten._local_scalar_dense:
            self.waited("reads a number")
            return {torch.bool: True}.get(args[0].dtype, 0.0 if args[0].is_floating_point() else 0)
        elif operator is aten._to_copy and device is not None and device.type == "cpu":
            self.waited("copies to the CPU")
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        elif operator is aten.copy_ and not isinstance(args[0], FakeTensor):
            self.waited("copies to the CPU")
            return args[0].zero_()
        elif operator is aten.copy_ and not isinstance(args[1], FakeTensor):
            self._upload(args[1], args[2] if len(args) > 2 else False)
        elif operator in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_):
            for index in args[1]:
                if index is not None and not isinstance(index, FakeTensor):
                    self._upload(index, non_blocking=False)
        if operator in ONE_DTYPE:
            _check_dtypes(operator, args)
        found = self.dispatch(func, types, args, kwargs)
        if isinstance(found, Tensor) and found.dtype is torch.float64 and found.ndim:  # a scaler has its scale so
            self.doubles[_line()] += 1
        return found

    def _upload(self, tensor: Tensor, non_blocking: bool) -> None:
        if non_blocking and self._is_pinned(tensor):
            self.uploads[_line()] += 1
        else:
            self.waited("copies to the GPU " + ("and waits" if self._is_pinned(tensor) else "from memory not pinned"))

    def _is_pinned(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self._pinned


ONE_DTYPE = {
    *(aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.linear, aten.convolution, aten.convolution_backward),
    *(aten.index_add, aten.index_add_, aten.index_copy, aten.index_copy_),
    *(aten.index_put, aten.index_put_, aten._index_put_impl_),
}
"""Operators whose kernels want all numbers in one dtype, on a CPU and on a GPU. Several fakes take what comes."""


def _check_dtypes(operator: Any, args: Sequence[Any]) -> None:
    dtypes = {leaf.dtype for leaf in tree_leaves(args) if isinstance(leaf, Tensor) and leaf.is_floating_point()}
    if len(dtypes) > 1:
        raise RuntimeError(f"{operator} of unlike dtypes: {', '.join(sorted(map(str, dtypes)))}")


@cache
def _is_composite(func: Any) -> bool:
    name, kind = func.name(), "CompositeImplicitAutograd"
    return name.startswith("aten::") and torch._C._dispatch_has_kernel_for_dispatch_key(name, kind)


def _line() -> str:
    """Return the innermost line of the project, or else of a test, that is running."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(OURS) and name != __file__:
            return f"{frame.f_code.co_qualname} ({name.removeprefix(f'{ROOT}/')}:{frame.f_lineno})"
        frame = frame.f_back
    return "elsewhere"


def backward(loss: Tensor, gradient: Tensor | None = None, *unused: object, **unset: object) -> None:
    """Do what `torch.autograd.backward` does, by calling the nodes of the graph one by one.

    The engine's own checks are repeated: a gradient is on the device of what it belongs to, and is summed and cast to
    its shape and dtype.
    """
    root: Any = loss.grad_fn
    owed: Counter[Any] = Counter()
    found = [root]
    for node in found:
        for later, _ in node.next_functions:
            if later is not None:
                if later not in owed:
                    found.append(later)
                owed[later] += 1
    sums: dict[Any, dict[int, Tensor]] = {root: {0: torch.ones_like(loss) if gradient is None else gradient}}
    ready = [root]
    with torch.no_grad():
        while ready:
            node = ready.pop()
            for (later, place), part in zip(node.next_functions, _passed_on(node, sums.pop(node, {})), strict=True):
                if later is None:
                    continue
                if part is not None:
                    before = sums.setdefault(later, {})
                    before[place] = before[place] + part if place in before else part
                owed[later] -= 1
                if not owed[later]:
                    ready.append(later)


def _passed_on(node: Any, given: dict[int, Tensor]) -> tuple[Tensor | None, ...]:
    """Return the gradients that a node makes of those it is given, by the places of its outputs."""
    if not given:
        return (None,) * len(node.next_functions)
    gradients = [_fitted(given.get(place), like, node) for place, like in enumerate(node._input_metadata)]
    call = node if callable(node) else node.apply  # a torch.autograd.Function
    made = call(*gradients)
    return made if isinstance(made, tuple) else (made,)


def _fitted(gradient: Tensor | None, like: Any, node: Any) -> Tensor | None:
    if gradient is None:
        return None
    if gradient.device != like.device:
        raise RuntimeError(f"{node.name()} got a gradient on {gradient.device}, not on {like.device}")
    if gradient.shape != like.shape:
        gradient = gradient.sum_to_size(like.shape)
    return gradient.to(like.dtype)


@contextmanager
def fake_gpu() -> Iterator[FakeGpu]:
    """Have a GPU until the end of the block."""
    for device in (torch.device("cuda"), DEVICE):
        # It asks once for each device, and is answered before torch is told that there is one.
        fake_tensor.init_gpu_context(device)
    gpu = FakeGpu()

    class Event:
        """Notes the time of the CPU; between the first record and the second, `gpu` is timing."""

        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            gpu.timing = not gpu.timing
            self.at = time.perf_counter()

        def synchronize(self) -> None:
            gpu.waited("synchronises")

        def elapsed_time(self, end: Any) -> float:
            return (end.at - self.at) * 1e3

    replaced: dict[Any, dict[str, Any]] = {
        torch.cuda: {
            "Event": Event,
            "clock_rate": lambda: 1000,
            "device_count": lambda: 1,
            "empty_cache": lambda: None,
            "get_device_capability": lambda device=None: (9, 0),
            "get_device_name": lambda: "a fake GPU",
            "is_available": lambda: True,
            "is_bf16_supported": lambda: True,
            "manual_seed": lambda seed: None,
            "max_memory_allocated": lambda: 2**20,
            "max_memory_reserved": lambda: 2**21,
            "reset_peak_memory_stats": lambda: None,
            "synchronize": lambda: gpu.waited("synchronises"),
        },
        torch.accelerator: {"is_available": lambda: True},
        torch.autograd: {"backward": _either(torch.autograd.backward)},
        # timm's moving average has a generator on the device, for a rounding that is not used.
        torch: {"Generator": _generator(torch.Generator), "save": _save(torch.save), "load": _outside(torch.load)},
        # A parameter without numbers cannot be swapped for another, as Module.to does with a FakeTensor.
        torch.utils: {"swap_tensors": lambda old, new: setattr(old, "data", new.data)},
    }
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")  # deepcopy does
        for module, names in replaced.items():
            for name, value in names.items():
                stack.enter_context(patch.object(module, name, value))
        yield stack.enter_context(gpu)


def _either(engine: Callable[..., None]) -> Callable[..., None]:
    def either(loss: Tensor, *args: Any, **kwargs: Any) -> None:
        (backward if isinstance(loss, FakeTensor) else engine)(loss, *args, **kwargs)

    return either


def _generator(generator: type[torch.Generator]) -> Callable[..., torch.Generator]:
    return lambda device="cpu": generator()


def _outside(function: Callable[..., Any]) -> Callable[..., Any]:
    def outside(*args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            return function(*args, **kwargs)

    return outside


def _save(save: Callable[..., None]) -> Callable[..., None]:
    """Return torch.save with zeros for what has no numbers."""

    def zeros(value: Any) -> Any:
        return torch.zeros(value.shape, dtype=value.dtype) if isinstance(value, FakeTensor) else value

    def saved(state: Any, file: Any) -> None:
        with _disable_current_modes():
            save(tree_map(zeros, state), file)

    return saved
