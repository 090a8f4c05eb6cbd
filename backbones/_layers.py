"""Layers that the hosts of several families share.

Those that timm has too are written out, with its names and its random numbers: importing them from timm takes longer
than importing torch, as torchvision and much else come along.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, fx, nn

from attentions import Attention, Given, Grid, Macs
from backbones._linear import Linear, linear
from backbones._parts import in_parts, is_watched


def partition(x: Tensor, grid: Grid, window: tuple[int, int] | None) -> Tensor:
    """Split (B, H * W, C) into windows of (h, w) tokens, (B * windows, h * w, C), row-major; None returns x."""
    if window is None:
        return x
    h, w = window
    tiles = x.view(x.shape[0], grid.height // h, h, grid.width // w, w, x.shape[-1])
    return tiles.transpose(2, 3).reshape(-1, h * w, x.shape[-1])


def unpartition(x: Tensor, grid: Grid, window: tuple[int, int] | None) -> Tensor:
    """Invert `partition`: (B * windows, h * w, C) -> (B, H * W, C)."""
    if window is None:
        return x
    h, w = window
    tiles = x.view(-1, grid.height // h, grid.width // w, h, w, x.shape[-1])
    return tiles.transpose(2, 3).reshape(-1, grid.height * grid.width, x.shape[-1])


def to_image(x: Tensor, grid: Grid) -> Tensor:
    """Return tokens (B, H * W, C) as an image (B, C, H, W)."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[-1], grid.height, grid.width)


def to_tokens(x: Tensor) -> Tensor:
    """Return an image (B, C, H, W) as tokens (B, H * W, C)."""
    return x.flatten(2).transpose(1, 2)


def drop_path_rates(rate: float, depths: tuple[int, ...]) -> list[list[float]]:
    """Return the rates of stochastic depth per stage, growing linearly from 0 to `rate` over all blocks."""
    rates = iter(torch.linspace(0, rate, sum(depths), device="cpu").tolist())
    return [[next(rates) for _ in range(depth)] for depth in depths]


class DropPath(nn.Module):
    """Stochastic depth: in training, (B, ...) with each image's branch dropped at a rate, and the others scaled up."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        keep = 1 - self.drop_prob
        return x * x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(keep).div_(keep)


def make_drop_path(rate: float) -> nn.Module:
    return DropPath(rate) if rate > 0 else nn.Identity()


class Mlp(nn.Module):
    """An MLP with a GELU: dim -> ratio * dim -> dim."""

    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, dim * ratio)
        self.act = nn.GELU()
        self.fc2 = Linear(dim * ratio, dim)

    def forward(self, x: Tensor) -> Tensor:
        return in_parts(self, x, by_token=True, parameters=tuple(self.fc1.parameters()))

    def expand(self, x: Tensor) -> Tensor:
        if type(self.fc1) is not Linear or type(self.act) is not nn.GELU or is_watched(self):
            hidden: Tensor = self.act(self.fc1(x))
            return hidden
        return linear(x, self.fc1.weight, self.fc1.bias, gelu=True)


class PreNormBlock(nn.Module):
    """Attention and MLP, each after a LayerNorm and added to the tokens: the block of DeiT, PVT and PVTv2."""

    def __init__(self, dim: int, attn: nn.Module, mlp: nn.Module, eps: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = mlp
        self.drop_path = make_drop_path(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


@torch.no_grad()
def fill_normal(x: Tensor) -> Tensor:
    """Fill x in place from a normal with standard deviation 0.02, cut at -2 and 2, as for positions and linear layers.

    By the inverse of its distribution, as in timm, whose random numbers these are; torch's `trunc_normal_` has others.
    """
    # On the meta device there is nothing to fill, and doing so anyway takes half of the time of a count.
    return x if x.is_meta else x.uniform_(-1, 1).erfinv_().mul_(0.02 * math.sqrt(2)).clamp_(-2, 2)


def init_weights(module: nn.Module) -> None:
    """Initialise linear layers, truncated normal (0.02) with zero biases, as in all five official implementations."""
    if isinstance(module, nn.Linear):
        fill_normal(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def input_for(core: Attention, x: Tensor) -> Tensor | None:
    """Return x, the input of the projections, if the attention takes it, else None."""
    return x if core.takes_input else None


def mix(
    core: Attention, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
) -> Tensor:
    """Return what an attention makes of its tokens, (B, N, C). Raises TypeError, in one line, if that is no tensor."""
    out: Tensor = core(q, k, v, bias=bias, x=x, regions=regions)
    # Where a model is traced, a proxy stands for each tensor.
    if not isinstance(out, Tensor) and not isinstance(out, fx.Proxy):
        raise TypeError(f"forward of {type(core).__name__} returned a {type(out).__name__}, not one tensor (B, N, C)")
    return out


def projection_macs(tokens: int, dim_in: int, dim_out: int) -> Macs:
    return Macs(projections=tokens * dim_in * dim_out)


def mlp_macs(tokens: int, dim: int, hidden: int) -> Macs:
    return Macs(mlp=2 * tokens * dim * hidden)


def norm_macs(tokens: int, dim: int) -> Macs:
    return Macs(norms=5 * tokens * dim)
