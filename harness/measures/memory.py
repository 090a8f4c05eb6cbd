"""Memory of a call: its peak, by torch's allocator on a GPU and of the process on a CPU, what backward needs, where."""

import ctypes
import gc
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.cells.runtime import Device


def peak_memory(call: Callable[[], object], device: Device) -> dict[str, float | None]:
    """Run `call` once more and return the peaks in MiB, None for those of the other kind of device."""
    gc.collect()
    allocated = reserved = resident = None
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        allocated, reserved = (
            torch.cuda.max_memory_allocated() / 2**20,
            torch.cuda.max_memory_reserved() / 2**20,
        )
    else:
        _return_freed_memory()
        forgotten = _forget_peak_resident()
        call()
        resident = _status_mib("VmHWM:") if forgotten else None
    return {"peak_allocated_mib": allocated, "peak_reserved_mib": reserved, "peak_rss_mib": resident}


def peak_above(call: Callable[[], object], device: Device) -> float | None:
    """Run `call` once more and return its peak in MiB above what was in use before it; None if not told.

    Parameters and inputs are in use before; the process's other work, and other candidates, are not counted.
    """
    gc.collect()
    if device == "cuda":
        allocated = torch.cuda.memory_allocated() / 2**20
        return _above(peak_memory(call, device)["peak_allocated_mib"], allocated)
    _return_freed_memory()
    resident = _status_mib("VmRSS:")
    return _above(peak_memory(call, device)["peak_rss_mib"], resident)


def _above(peak: float | None, before: float | None) -> float | None:
    return None if peak is None or before is None else max(0.0, peak - before)


def held(*modules: nn.Module) -> list[Tensor]:
    """Return the parameters and buffers of modules."""
    return [each for module in modules for each in (*module.parameters(), *module.buffers())]


def move(tensors: Sequence[Tensor], draws: random.Random) -> None:
    """Put tensors and their gradients elsewhere in memory, as they are; in an order that is drawn, they swap places.

    Where tensors lie decides which of them a cache holds together, and by that a time: two equal modules that stay
    where they are may differ by several percent for as long as they live. Tensors that share their memory, or have only
    a part of it, stay.
    """
    all_ = [*tensors, *(each.grad for each in tensors if each.grad is not None)]
    owners = Counter(each.untyped_storage().data_ptr() for each in all_)
    for each in draws.sample(all_, len(all_)):
        storage = each.untyped_storage()
        if owners[storage.data_ptr()] == 1 and storage.nbytes() == each.nbytes:
            each.data = each.data.clone()


def saved_for_backward(forward: Callable[[], object], without: Iterable[Tensor]) -> float:
    """Return the MiB that a forward pass keeps for its backward pass: each storage once, none of those in `without`.

    `without` are parameters, which are in memory all the same.
    """
    known = {each.untyped_storage().data_ptr() for each in without}
    kept: dict[int, Tensor] = {}  # alive to the end, so that no address comes back

    def keep(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() not in known:
            kept[x.untyped_storage().data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        forward()
    return sum(each.untyped_storage().nbytes() for each in kept.values()) / 2**20


def _return_freed_memory() -> None:
    """Return freed memory to the system, where the C library can: work that fits into it would appear to need none."""
    # glibc has it, musl does not.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _forget_peak_resident() -> bool:
    """Reset the peak resident set of this process to the current one; return False where the system cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status_mib(name: str) -> float | None:
    """Return a number of /proc/self/status in MiB: VmHWM:, the peak resident set, or VmRSS:, the current one."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(name)), None)
