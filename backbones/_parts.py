"""An MLP on a part of its tokens at a time, where its hidden channels do not fit into the cache of a CPU.

They are then never in memory as a whole: writing them, and having pages mapped for them, takes as long as the products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from attentions import allows
from backbones._linear import linear

LARGE = 2**24
"""Bytes of hidden channels above which parts are faster; with gradients, above twice as many."""

PART = 2**22
"""Bytes of hidden channels that are computed together."""


class Expanding(Protocol):
    """An MLP: `expand` makes the hidden channels (B, N, hidden) of x (B, N, C), each image by itself; fc2 follows."""

    @property
    def fc2(self) -> nn.Linear: ...

    def expand(self, x: Tensor) -> Tensor: ...

    def children(self) -> Iterator[nn.Module]: ...


def is_watched(module: Expanding) -> bool:
    """Return whether somebody has put a hook on a layer of it: he is to see what the layer is given as a whole."""
    return any(
        each._forward_hooks or each._forward_pre_hooks or each._backward_hooks or each._backward_pre_hooks
        for child in module.children()
        for each in child.modules()
    )


def in_parts(mlp: Expanding, x: Tensor, by_token: bool = False, parameters: Sequence[Tensor] | None = None) -> Tensor:
    """Return fc2(expand(x)) for x (B, N, C), for some images at a time, or some tokens, where that is faster.

    With `by_token`, `expand` takes each token by itself, so that it takes (N, C) too. `parameters` are those that it
    has; where None, all is computed at once whenever gradients are recorded. So it is on other devices, under autocast,
    and where somebody looks into the layers or the operators.
    """
    expand, last = mlp.expand, mlp.fc2
    if not allows("native", x) or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return last(expand(x))
    recorded = torch.is_grad_enabled()
    size = x[..., 0].numel() * last.in_features * x.element_size()
    if size <= LARGE * (2 if recorded else 1) or (recorded and parameters is None) or is_watched(mlp):
        return last(expand(x))
    rows = x.flatten(0, 1) if by_token else x
    # Torch takes a single image for one with its channels first, and its convolution takes twice as long.
    number = max(1 if by_token else 2, len(rows) * PART // size)
    if recorded:
        assert parameters is not None
        out = _InParts.apply(rows, last.weight, last.bias, expand, last, number, *parameters)
    else:
        out = torch.cat([last(expand(part)) for part in rows.split(number)])
    return out.view(x.shape)


class _InParts(torch.autograd.Function):
    """last(expand(x)); `weight` and `bias` are those of `last`. Saved for backward is x, the rest is computed again."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        expand: Callable[[Tensor], Tensor],
        last: nn.Linear,
        number: int,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.expand, ctx.number = expand, number
        ctx.save_for_backward(x, weight, bias, *parameters)
        return torch.cat([last(expand(part)) for part in x.split(number)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, *parameters = ctx.saved_tensors
        if torch.is_grad_enabled():  # the result is to be differentiated again
            inputs = (x, weight, bias, *parameters)
            found = _gradients(linear(ctx.expand(x), weight, bias), inputs, gradient)
            return (*found[:3], None, None, None, *found[3:])
        d_x, d_weight = torch.empty_like(x), torch.zeros_like(weight)
        sums = [torch.zeros_like(each) if each.requires_grad else None for each in parameters]
        for part, d_part, d_out in zip(*(each.split(ctx.number) for each in (x, d_x, gradient)), strict=True):
            with torch.enable_grad():
                own = part.detach().requires_grad_()
                hidden = ctx.expand(own)
            d_weight.addmm_(d_out.flatten(0, -2).t(), hidden.detach().flatten(0, -2))
            found, *rest = _gradients(hidden, (own, *parameters), linear(d_out, weight.t()))
            d_part.copy_(found)
            for total, each in zip(sums, rest, strict=True):
                if total is not None:
                    total += each
        return (d_x, d_weight, gradient.flatten(0, -2).sum(dim=0), None, None, None, *sums)


def _gradients(out: Tensor, inputs: Sequence[Tensor], gradient: Tensor) -> list[Any]:
    """Return the gradient of each input, None where it wants none."""
    wanted = [each for each in inputs if each.requires_grad]
    found = iter(torch.autograd.grad(out, wanted, gradient, create_graph=torch.is_grad_enabled()))
    return [next(found) if each.requires_grad else None for each in inputs]
