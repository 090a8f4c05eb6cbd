"""Linear layers by oneDNN on a CPU, which is faster at the sizes of these models than what torch calls (MKL)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions import Given, allows

LARGE = 2**25
"""Multiply-adds from which a layer is computed by oneDNN: below, to call it takes longer than it saves."""


class Linear(nn.Linear):
    """torch's linear layer, (..., C) -> (..., D): the same parameters and numbers, computed where it is faster."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Given = None, gelu: bool = False) -> Tensor:
    """Return x (..., C) times the transpose of weight (D, C), plus bias (D), as `F.linear` does, and a GELU of it."""
    out: Tensor
    if not _takes(x, weight, bias):
        out = F.linear(x, weight, bias)
    elif not torch.is_grad_enabled():
        return _product(x, weight, bias, gelu)
    else:
        out = _Linear.apply(x, weight, bias)
    return F.gelu(out) if gelu else out


def _takes(x: Tensor, weight: Tensor, bias: Given) -> bool:
    return (
        allows("native", x, weight, bias)
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * len(weight) >= LARGE
        and torch.backends.mkldnn.is_available()
        and torch._C._get_mkldnn_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


def _product(x: Tensor, weight: Tensor, bias: Given, gelu: bool = False) -> Tensor:
    # The operator that torch's compiler puts in place of `F.linear`; it has no gradient.
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu" if gelu else "none", [], "none")
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Given) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Given, Given, Given]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        rows = gradient.flatten(0, -2)
        return (
            # The rows of the transposed weight lie apart, which oneDNN takes; for the weight's gradient MKL is faster.
            linear(gradient, weight.t()) if for_x else None,
            rows.t() @ x.flatten(0, -2) if for_weight else None,
            rows.sum(dim=0) if for_bias else None,
        )
