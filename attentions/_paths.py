"""The ways in which the same attention can be computed, which of them is taken, and which of them ran.

"plain" are torch's operators. "native" are the C++ kernels of _native.py, for a CPU; "triton" are those of _triton.py,
for a CUDA device, where they are forced. An attention takes the fastest that its tensors allow; all give the same
numbers, outputs and gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd import forward_ad

PATHS = ("plain", "native", "triton")

_forced: list[str] = []
_used: list[set[str]] = []


@contextmanager
def using_path(path: str) -> Iterator[None]:
    """Force one of `PATHS` within the block, where the tensors allow it; elsewhere torch's operators do the work.

    Raises:
        ValueError: for any other name.
    """
    if path not in PATHS:
        raise ValueError(f"path {path!r} is not known; there are: {', '.join(PATHS)}")
    _forced.append(path)
    try:
        yield
    finally:
        _forced.pop()


def is_forced(path: str) -> bool:
    """Return whether a path is forced here."""
    return bool(_forced) and _forced[-1] == path


@contextmanager
def used_paths() -> Iterator[set[str]]:
    """Yield a set to which the paths are added that attentions take within the block; those with one path add none."""
    found: set[str] = set()
    _used.append(found)
    try:
        yield found
    finally:
        _used.remove(found)


def allows(path: str, *tensors: Tensor | None) -> bool:
    """Return whether a path other than "plain" may be taken: no other is forced, and nobody looks into the operators.

    Whoever traces, counts, compiles, transforms or fakes tensors needs to see torch's operators.
    """
    return (
        not torch.compiler.is_compiling()
        and (not _forced or is_forced(path))
        and all(x is None or type(x) in (Tensor, torch.nn.Parameter) for x in tensors)
        and not torch._C._get_tracing_state()
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
        and forward_ad._current_level < 0
    )


def note(path: str) -> None:
    """Say that a path is taken; code that is compiled says nothing."""
    if not torch.compiler.is_compiling():
        for found in _used:
            found.add(path)
