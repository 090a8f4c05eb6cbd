"""Peak memory of a call: of torch's allocator on a GPU, of the process on a CPU."""

import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path

import torch

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
        resident = _peak_resident_mib() if forgotten else None
    return {"peak_allocated_mib": allocated, "peak_reserved_mib": reserved, "peak_rss_mib": resident}


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


def _peak_resident_mib() -> float | None:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return None
