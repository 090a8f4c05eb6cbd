"""Shared by linear attentions: the product in linear order, and the depthwise convolution of the values."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions import _native, _triton
from attentions._contract import Given, Grid, Macs, Site
from attentions._functions import GIVEN, RELU, Convolution, Kernels, LinearProduct, Product
from attentions._heads import casts, merge_heads, region_masks, split_heads
from attentions._naive import convolved
from attentions._paths import note

EPS = 1e-6


def check_kernel_size(kernel_size: int | None) -> None:
    """Raise ValueError unless `kernel_size` is None (no convolution) or a positive odd number."""
    if kernel_size is not None and (kernel_size < 1 or kernel_size % 2 == 0):
        raise ValueError(f"kernel_size={kernel_size} is not allowed; it takes None or an odd number")


class FeatureMap(NamedTuple):
    """How q and k become non-negative features, for kernels that do this on the way: see `FeatureMap` in _native.cpp.

    `of` is the same by torch's operators: it takes q (B, N, F), k (B, M, F), `scale` (F) and `encoding` (M, F), and
    returns both as features.
    """

    of: Callable[[Tensor, Tensor, Given, Given], tuple[Tensor, Tensor]]
    kind: int
    power: int = 1
    scale: Given = None
    encoding: Given = None


AS_GIVEN = FeatureMap(lambda q, k, scale, encoding: (q, k), GIVEN)

RECTIFIED = FeatureMap(lambda q, k, scale, encoding: (F.relu(q), F.relu(k)), RELU)


KERNELS: tuple[Kernels, ...] = (_native, _triton)


def kernels_for(*tensors: Given, regions: Given = None, widest: int = 1) -> Kernels | None:
    """Return the kernels that take these tensors, of up to `widest` channels per head; None for torch's operators."""
    if torch.compiler.is_compiling():
        return None
    return next((kernels for kernels in KERNELS if kernels.takes(tensors, regions, widest)), None)


def linear_product(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    regions: Given = None,
    n_regions: int = 1,
    features: FeatureMap = AS_GIVEN,
    onto: Given = None,
    normalised: bool = True,
) -> Tensor:
    """Mix v with weights q.k / (sum over keys of q.k), in linear order: q (k^T v) instead of (q k^T) v.

    q (B, N, F) and k (B, M, F) are non-negative, or become so by `features`; v is (B, M, C); returns (B, N, C). Sums
    over keys are taken as means, so that they do not grow with M. With `regions` (B, N) each token meets only the keys
    of its own region. `onto` (B, N, C) is added, and the result is in its dtype. Without `normalised` it is not divided
    by the sum, which is one of `score_sums`. Half precision is widened, outside autocast, by kernels while they read
    it, else before; without `onto` the result is then in float32, or in half precision again.
    """
    wide = torch.promote_types(q.dtype, torch.float32)

    def plain(q: Tensor, k: Tensor, v: Tensor, scale: Given, encoding: Given) -> Tensor:
        q, k = features.of(q.to(wide), k.to(wide), scale, encoding)
        v = v.to(wide)
        if regions is None:
            return _product(q, k, v, heads, normalised)
        own = region_masks(regions, n_regions, q.dtype)
        return sum((_product(q, k * mine, v, heads, normalised) * mine for mine in own), torch.zeros_like(v))

    def chosen(*given: Given) -> Kernels | None:
        return kernels_for(*given, regions=regions, widest=max(q.shape[-1], v.shape[-1]) // heads)

    given = (q, k, v, features.scale, features.encoding)
    kernels = chosen(*given)
    if kernels is None:
        given = (q.to(wide), k.to(wide), v.to(wide), *given[3:])
        kernels = chosen(*given)
    note("plain" if kernels is None else kernels.PATH)
    if kernels is None:
        out = plain(*given)
    else:
        added = onto if onto is None or onto.dtype == given[2].dtype else None
        of = Product(heads, n_regions, features.kind, features.power, normalised)
        out = LinearProduct.apply(*given, added, regions, of, kernels, plain)
        if added is not None:
            return out
    return out if onto is None else out.to(onto.dtype) + onto


def _product(q: Tensor, k: Tensor, v: Tensor, heads: int, normalised: bool) -> Tensor:
    sums = score_sums(q, k, heads) if normalised else 1
    q, k, v = (split_heads(x, heads) for x in (q, k, v))
    return merge_heads(q @ (k.transpose(-2, -1) @ (v / k.shape[-2])) / sums)


def score_sums(q: Tensor, k: Tensor, heads: int) -> Tensor:
    """Return the sums of scores that `linear_product` divides by, as means over keys: (B, heads, N, 1)."""
    q, k = split_heads(q, heads), split_heads(k, heads)
    return q @ k.mean(dim=-2, keepdim=True).transpose(-2, -1) + EPS


def linear_product_macs(site: Site, features: int | None = None) -> Macs:
    """Return the multiply-adds of `linear_product`: k^T v over keys, q (k^T v) and the normaliser over queries.

    `features` is F per head; default: as many as channels.
    """
    n, m = site.queries.tokens, site.keys.tokens
    features = site.head_dim if features is None else features
    return Macs(attention=site.regions * features * ((m + n) * site.dim + n * site.heads))


def on_query_grid(v: Tensor, site: Site) -> Tensor:
    """Return the values (B, M, C), without prefix tokens, on the query grid: (B, H * W, C).

    Where queries and keys lie on different grids, v is interpolated to the query grid, linearly along the flattened
    token axis, as in the official FLatten-PVT.
    """
    v, grid = v[:, site.keys.prefix :], site.queries
    tokens = grid.height * grid.width
    return v if v.shape[1] == tokens else F.interpolate(v.transpose(1, 2), size=tokens, mode="linear").transpose(1, 2)


def pooled(x: Tensor, grid: Grid, cells: tuple[int, int]) -> Tensor:
    """Return the means of tokens (B, N, C) over `cells` of their grid, counted down and across: (B, cells, C).

    Where the grid does not divide evenly, cells overlap. Prefix tokens are not included.
    """
    image = x[:, grid.prefix :].transpose(1, 2).unflatten(2, (grid.height, grid.width))
    return F.adaptive_avg_pool2d(image, cells).flatten(2).transpose(1, 2)


class ValueConvolution(nn.Conv2d):
    """Depthwise convolution of the values on their grid, its kernels shared by all heads ("DWC", FLatten sec. 4.2).

    Takes v (B, M, C) and returns (B, N, C). Values on another grid are interpolated (`on_query_grid`). Prefix tokens
    lie outside the grid: they are skipped, and get zeros.
    """

    def __init__(self, site: Site, kernel_size: int) -> None:
        super().__init__(site.head_dim, site.head_dim, kernel_size, padding=kernel_size // 2, groups=site.head_dim)
        self.site = site

    def forward(self, v: Tensor, regions: Given = None) -> Tensor:
        # Widened before they are repeated, so that the gradients of heads and regions are summed in the dtype of v.
        wide = torch.promote_types(v.dtype, self.weight.dtype)
        weight = self.weight.to(wide).repeat(self.site.heads, 1, 1, 1)
        assert self.bias is not None
        bias = self.bias.to(wide).repeat(self.site.heads)
        grid = self.site.queries
        x = on_query_grid(v, self.site)
        if regions is not None:
            regions = regions[:, grid.prefix :]

        def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            if regions is None:
                return self.convolve(x, weight, bias)
            own = region_masks(regions, self.site.regions, x.dtype)
            return sum((self.convolve(x * mine, weight, bias) * mine for mine in own), torch.zeros_like(x))

        # Autocast means a convolution of float32 values to be in half precision.
        narrowed = casts(x) and x.dtype == torch.float32
        kernels = None if narrowed else kernels_for(x, weight, bias, regions=regions)
        note("plain" if kernels is None else kernels.PATH)
        if kernels is None:
            out = plain(x, weight, bias)
        else:
            out = Convolution.apply(x, weight, bias, regions, grid[:2], kernels, plain)
        return F.pad(out, (0, 0, grid.prefix, 0)) if grid.prefix else out

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return x (B, height * width, C), convolved on the query grid by torch's operator."""
        # Heads are put into channels, not into the batch: tokens are channels_last already, so nothing is copied.
        # Transposed first, as hosts do it: OpenVINO 2026.4 is wrong where values are read in both ways.
        image = x.transpose(1, 2).unflatten(2, self.site.queries[:2])
        out = F.conv2d(image, weight, bias, padding=self.padding, groups=self.site.dim)
        # Autocast runs the convolution of float32 values in half precision.
        return out.flatten(2).transpose(1, 2).to(x.dtype)

    def naive(self, v: Tensor, regions: Tensor | None = None) -> Tensor:
        """Return the same, as a sum over taps."""
        heads = self.site.heads
        assert self.bias is not None
        return convolved(v, self.weight.repeat(heads, 1, 1, 1), self.bias.repeat(heads), self.site, regions)

    def macs(self) -> Macs:
        grid = self.site.queries
        taps = self.kernel_size[0] * self.kernel_size[1]
        return Macs(convolutions=self.site.regions * grid.height * grid.width * self.site.dim * taps)
