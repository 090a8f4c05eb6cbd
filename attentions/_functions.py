"""What kernels compute, as autograd functions: those of _native.py and of _triton.py share them.

B batch, N queries, M keys, H heads, F features and V values per head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from attentions._contract import Given

GIVEN, RELU, FOCUSED = range(3)
"""How kernels map queries and keys to features: see `FeatureMap` in _native.cpp."""


class Product(NamedTuple):
    """Linear attention on features of the map `kind`, to the power `power`; without `normalised` it does not divide."""

    heads: int
    n_regions: int
    kind: int
    power: int
    normalised: bool


class Kernels(Protocol):
    """A module of kernels. The channels of a token lie one after the other, all but tokens and gradient is contiguous.

    `inverse` (H F) multiplies queries and keys, `taps` are ([B,] kernel^2, C), `grid` is (height, width); the rest is
    as in the functions below.
    """

    PATH: str

    def takes(self, tensors: Sequence[Given], regions: Given, widest: int) -> bool:
        """Return whether they take these tensors, of up to `widest` channels per head; None is left out."""

    def linear_forward(
        self, of: Product, q: Tensor, k: Tensor, v: Tensor, inverse: Given, encoding: Given, onto: Given, regions: Given
    ) -> tuple[Tensor, Tensor]:
        """Return the output (B, N, H V), and the sums over keys, which only `linear_backward` reads."""

    def linear_backward(
        self,
        of: Product,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        inverse: Given,
        encoding: Given,
        regions: Given,
        sums: Tensor,
        gradient: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the gradients of q, k, v and `inverse`; the last one means nothing where that is None."""

    def convolve(self, x: Tensor, taps: Tensor, bias: Tensor, regions: Given, grid: tuple[int, int]) -> Tensor:
        """Return the convolution of x (B, height * width, C), in its shape and dtype."""

    def convolve_backward(
        self, x: Tensor, taps: Tensor, regions: Given, grid: tuple[int, int], gradient: Tensor
    ) -> Tensor:
        """Return the gradient of the taps."""


def _dense(x: Tensor) -> Tensor:
    """Return x (B, N, C), copied if the channels of a token do not lie one after the other."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _differentiable(ctx: Any, gradient: Tensor, inputs: Sequence[Given]) -> list[Given]:
    """Return the gradients of inputs in a form that can be differentiated again: those of torch's operators."""
    wanted = [x for x in inputs if x is not None and x.requires_grad]
    found = iter(torch.autograd.grad(ctx.plain(*inputs), wanted, gradient, create_graph=True, allow_unused=True))
    return [next(found) if x is not None and x.requires_grad else None for x in inputs]


class LinearProduct(torch.autograd.Function):
    """Linear attention on features of q (B, N, H F) and k (B, M, H F), with v (B, M, H V): (B, N, H V).

    `scale` (H F) divides, and `encoding` (M, H F) is added to the keys before. `onto` (B, N, H V) is added to the
    output; `regions` (B, N) as in `linear_product`. `plain` does the same to the first five by torch's operators.
    Saved for backward are the inputs, and the sums over the keys.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scale: Given,
        encoding: Given,
        onto: Given,
        regions: Given,
        of: Product,
        kernels: Kernels,
        plain: Callable[..., Tensor],
    ) -> Tensor:
        ctx.of, ctx.kernels, ctx.plain = of, kernels, plain
        regions = None if regions is None else regions.to(torch.int64).contiguous()
        onto = None if onto is None else onto.contiguous()
        out, sums = kernels.linear_forward(of, *_laid_out(q, k, v, scale, encoding), onto, regions)
        ctx.save_for_backward(q, k, v, scale, encoding, regions, sums)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Given, ...]:
        *inputs, regions, sums = ctx.saved_tensors
        rest = (gradient if ctx.needs_input_grad[5] else None, *[None] * 4)
        if torch.is_grad_enabled():
            return (*_differentiable(ctx, gradient, inputs), *rest)
        scale, encoding = inputs[3:]
        given = (*_laid_out(*inputs), regions, sums, gradient.contiguous())
        d_q, d_k, d_v, d_inverse = ctx.kernels.linear_backward(ctx.of, *given)
        d_scale = None if scale is None else -d_inverse / scale.square()
        d_encoding = None if encoding is None else d_k.sum(dim=0, dtype=encoding.dtype)
        return (d_q, d_k, d_v, d_scale, d_encoding, *rest)


def _laid_out(
    q: Tensor, k: Tensor, v: Tensor, scale: Given, encoding: Given
) -> tuple[Tensor, Tensor, Tensor, Given, Given]:
    """Return the inputs of `LinearProduct` as kernels read them: with 1 / scale, and with channels side by side."""
    inverse = None if scale is None else 1 / scale
    return _dense(q), _dense(k), _dense(v), inverse, None if encoding is None else encoding.contiguous()


class Convolution(torch.autograd.Function):
    """Depthwise convolution of tokens x (B, height * width, C) on their grid, with zeros around it: the same shape.

    `weight` is (C, 1, kernel, kernel), or has one for each entry, (B, C, 1, kernel, kernel); `bias` is (C). With
    `regions` (B, height * width) a token sees those of its own region only. `plain` does the same to the first three
    by torch's operators.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        regions: Given,
        grid: tuple[int, int],
        kernels: Kernels,
        plain: Callable[..., Tensor],
    ) -> Tensor:
        ctx.grid, ctx.kernels, ctx.plain = grid, kernels, plain
        regions = None if regions is None else regions.to(torch.int64).contiguous()
        ctx.save_for_backward(x, weight, bias, regions)
        return kernels.convolve(_dense(x), _taps(weight.flatten(-3)), bias.contiguous(), regions, grid)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Given, ...]:
        *inputs, regions = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (*_differentiable(ctx, gradient, inputs), *[None] * 4)
        x, weight, bias = inputs
        gradient, taps = gradient.contiguous(), _taps(weight.flatten(-3))
        # Taps that look the other way.
        d_x = ctx.kernels.convolve(gradient, taps.flip(-2), torch.zeros_like(bias), regions, ctx.grid)
        d_taps = ctx.kernels.convolve_backward(_dense(x), taps, regions, ctx.grid, gradient)
        d_bias = gradient.sum(dim=(0, 1), dtype=bias.dtype)
        return (d_x, d_taps.transpose(-2, -1).reshape(weight.shape), d_bias, *[None] * 4)


def _taps(weight: Tensor) -> Tensor:
    """Return a weight ([B,] C, kernel^2) as the kernels take it: ([B,] kernel^2, C)."""
    return weight.transpose(-2, -1).contiguous()
