"""Which kernel ran where a model called `torch.nn.functional.scaled_dot_product_attention`.

torch chooses it by device, dtype, shapes and what needs a gradient: on a CPU, a bias that does, such as Swin's, is
enough for the separate products of the unfused path.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from torch._C._autograd import _disable_profiler_legacy, _enable_profiler_legacy, _profiler_enabled
from torch._C._profiler import ProfilerConfig, ProfilerState, _ExperimentalConfig

_KERNELS = {
    "aten::_scaled_dot_product_attention_math": "math",
    "aten::_scaled_dot_product_attention_math_for_mps": "math",
    "aten::_scaled_dot_product_flash_attention": "flash",
    "aten::_scaled_dot_product_flash_attention_for_cpu": "flash",
    "aten::_scaled_dot_product_efficient_attention": "efficient",
    "aten::_scaled_dot_product_cudnn_attention": "cudnn",
    "aten::_scaled_dot_product_fused_attention_overrideable": "overrideable",
}
"""By the operator that runs it. "math" is not fused: two products and a softmax in between."""


@contextmanager
def sdpa_kernels() -> Iterator[set[str]]:
    """Add to the yielded set, at the end of the block, the kernels that ran in it; nothing is changed in what runs.

    It takes a little time, at the end most of all. Compiled code shows the fused kernels only.
    """
    kernels: set[str] = set()
    if _profiler_enabled():
        # Someone is profiling already, and there can be one at a time.
        yield kernels
        return
    # Kineto, the profiler behind torch.profiler, writes to stderr, and takes seconds to put its events into a tree.
    config = ProfilerConfig(ProfilerState.CPU, False, False, False, False, False, _ExperimentalConfig())
    _enable_profiler_legacy(config)
    try:
        yield kernels
    finally:
        names = {event.name() for thread in _disable_profiler_legacy() for event in thread}
        kernels |= {kernel for name, kernel in _KERNELS.items() if name in names}


def kernels_of(call: Callable[[], object]) -> str | None:
    """Return the kernels that run in a call, see `shown`."""
    with sdpa_kernels() as kernels:
        call()
    return shown(kernels)


def shown(kernels: Iterable[str]) -> str | None:
    """Return kernels as a metric: "flash", "flash, math"; None where none ran."""
    return ", ".join(sorted(kernels)) or None
