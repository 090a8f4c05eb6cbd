"""The gate before the clock: the outputs of a runtime against those of eager PyTorch in float32.

On three kinds of inputs, since a runtime may be right on one and wrong on another: normal ones, zeros, and normal ones
scaled by 10.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

TOLERANCE = {"fp32": 1e-4}
"""Largest relative l2 difference from eager float32, by the precision that a runtime computes in.

The attentions here, exported and right, differ by up to 2e-5; wrong operators by 1e-2 and more.
"""

SMALL = 1e-3
"""An output smaller than this share of that on normal inputs is compared with that share: it may be mere rounding."""

KINDS = {"normal inputs": 1.0, "zeros": 0.0, "inputs scaled by 10": 10.0}


@dataclass(frozen=True)
class Agreement:
    """The relative l2 differences of a runtime from eager float32, by the kind of inputs, and what is allowed."""

    differences: dict[str, float]
    allowed: float

    @property
    def right(self) -> bool:
        return self.worst < self.allowed

    @property
    def worst(self) -> float:
        """The largest difference; infinity where a value is not finite that should be, or a shape differs."""
        return max(self.differences.values())

    def __str__(self) -> str:
        if self.right:
            return f"right: {self.worst:.1e}"
        where = max(self.differences, key=lambda kind: self.differences[kind])
        return f"wrong: {self.worst:.1e} on {where}, from eager float32; allowed is {self.allowed:.1e}"

    def plain(self) -> dict[str, Any]:
        """Return it as plain JSON; what is infinite is null."""
        plain = asdict(self) | {"right": self.right}
        plain["differences"] = {kind: x if x < float("inf") else None for kind, x in self.differences.items()}
        return plain


def agreement(
    eager: Callable[..., Tensor],
    ours: Callable[..., Tensor],
    args: Sequence[Tensor | None],
    kwargs: dict[str, Tensor | None] | None = None,
    precision: str = "fp32",
) -> Agreement:
    """Compare two callables on the inputs, on zeros and on the inputs scaled by 10; whole numbers stay as they are."""
    found = {}
    size = 0.0
    for kind, scale in KINDS.items():
        given = [_scaled(x, scale) for x in args]
        named = {name: _scaled(x, scale) for name, x in (kwargs or {}).items()}
        with torch.inference_mode():
            wanted, out = eager(*given, **named), ours(*given, **named)
        size = size or float(wanted.double().norm())
        found[kind] = _difference(out, wanted, SMALL * size)
    return Agreement(found, TOLERANCE[precision])


def _scaled(x: Tensor | None, scale: float) -> Tensor | None:
    if x is None:
        return None
    return x.detach() * scale if x.is_floating_point() else x.detach()


def _difference(ours: Tensor, wanted: Tensor, least: float) -> float:
    """Return the l2 norm of the difference over that of what is wanted, or over `least` if that is more.

    Infinity if the shapes differ, or the places that are not finite.
    """
    if ours.shape != wanted.shape or not ours.isfinite().equal(wanted.isfinite()):
        return float("inf")
    finite = wanted.isfinite()
    ours, wanted = ours[finite].double(), wanted[finite].double()
    gap = float((ours - wanted).norm())
    return gap / max(float(wanted.norm()), least) if gap else 0.0
