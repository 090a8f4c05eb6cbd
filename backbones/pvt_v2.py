"""PVTv2: overlapping patches, a depthwise convolution in the MLP, no position embedding. Wang et al., arXiv 2106.13797.

Parameter names are those of the official checkpoints, of PVTv2 and of FLatten-PVTv2 (arXiv 2308.00442).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from attentions import Grid, Macs
from backbones._layers import (
    PreNormBlock,
    drop_path_rates,
    init_weights,
    mlp_macs,
    norm_macs,
    projection_macs,
    to_image,
    to_tokens,
)
from backbones._linear import Linear
from backbones._parts import in_parts
from backbones._spec import Mount
from backbones.pvt import EPS, Pyramid, PyramidSpec, ReducedKeyHost, never_used

POOLED = 7


@dataclass(frozen=True, kw_only=True)
class PVTv2Spec(PyramidSpec):
    """Geometry of a PVTv2. `pooled_keys`: pool the keys of every block to 7x7 ("linear" PVTv2, b2_li)."""

    family: ClassVar[str] = "pvt_v2"

    pooled_keys: bool = False

    @property
    def image_step(self) -> int:
        # Patches overlap and are padded, so any size works.
        return 1

    def keys(self, stage: int, ratios: str) -> Grid:
        return Grid(POOLED, POOLED) if self.pooled_keys else super().keys(stage, ratios)

    def host_macs(self, mount: Mount) -> Macs:
        if not self.pooled_keys:
            return super().host_macs(mount)
        (site,) = mount.sites
        macs = projection_macs(site.queries.tokens + site.keys.tokens, site.dim, 2 * site.dim)
        return macs + Macs(convolutions=site.keys.tokens * site.dim**2) + norm_macs(site.keys.tokens, site.dim)

    def macs_by_part(self) -> dict[str, Macs]:
        parts = {}
        channels = self.in_channels
        for stage, (dim, grid) in enumerate(zip(self.dims, self.grids(), strict=True)):
            n, hidden = grid.tokens, dim * self.mlp_ratios[stage]
            kernel = patch_kernel(stage)
            macs = Macs(convolutions=n * channels * kernel**2 * dim) + norm_macs(n, 2 * dim)
            for mount in self.mounts_of(stage):
                macs += mount.attention_macs() + self.host_macs(mount) + norm_macs(n, 2 * dim)
                macs += mlp_macs(n, dim, hidden) + Macs(convolutions=n * hidden * 9)
            parts[f"stage {stage + 1}"] = macs
            channels = dim
        parts["head"] = projection_macs(1, channels, self.num_classes)
        return parts


def patch_kernel(stage: int) -> int:
    """Return the kernel size of a stage's patch embedding; patches overlap."""
    return 7 if stage == 0 else 3


class OverlapPatchEmbed(nn.Module):
    def __init__(self, channels: int, dim: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(to_tokens(self.proj(x)))


class PooledKeyHost(ReducedKeyHost):
    """Projections whose keys and values come from an average pool to 7x7, a 1x1 convolution and a GELU."""

    def __init__(self, mount: Mount) -> None:
        super().__init__(mount)
        self.pool = nn.AdaptiveAvgPool2d(POOLED)
        self.sr = nn.Conv2d(mount.dim, mount.dim, 1)
        self.norm = nn.LayerNorm(mount.dim)
        self.act = nn.GELU()

    def reduce(self, x: Tensor) -> Tensor:
        return self.act(self.norm(to_tokens(self.sr(self.pool(to_image(x, self.grid))))))


class DWConv(nn.Module):
    def __init__(self, dim: int, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        return to_tokens(self.dwconv(to_image(x, self.grid)))


class ConvMlp(nn.Module):
    """MLP with a depthwise convolution on its hidden channels, after a relu if keys are pooled."""

    def __init__(self, dim: int, hidden: int, grid: Grid, relu: bool) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.relu = nn.ReLU() if relu else nn.Identity()
        self.dwconv = DWConv(hidden, grid)
        self.act = nn.GELU()
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        # With gradients parts do not pay: those of the convolution take longer for few images.
        return in_parts(self, x)

    def expand(self, x: Tensor) -> Tensor:
        return self.act(self.dwconv(self.relu(self.fc1(x))))


def make_block(spec: PVTv2Spec, mount: Mount, drop_path: float) -> PreNormBlock:
    host = PooledKeyHost(mount) if spec.pooled_keys else ReducedKeyHost(mount)
    hidden = mount.dim * spec.mlp_ratios[mount.stage - 1]
    mlp = ConvMlp(mount.dim, hidden, mount.grid, relu=spec.pooled_keys)
    return PreNormBlock(mount.dim, host, mlp, EPS, drop_path)


class PVTv2(Pyramid):
    """(B, in_channels, H, W) -> logits (B, num_classes), read from the mean of the last stage's tokens."""

    def __init__(self, spec: PVTv2Spec, drop_path: float) -> None:
        super().__init__(spec)
        rates = drop_path_rates(drop_path, spec.depths)
        channels = spec.in_channels
        for stage, dim in enumerate(spec.dims):
            number = stage + 1
            mounts = spec.mounts_of(stage)
            blocks = nn.ModuleList(
                make_block(spec, mount, rate) for mount, rate in zip(mounts, rates[stage], strict=True)
            )
            embed = OverlapPatchEmbed(channels, dim, patch_kernel(stage), spec.patch_sizes[stage])
            self.add_module(f"patch_embed{number}", embed)
            self.add_module(f"block{number}", blocks)
            self.add_module(f"norm{number}", nn.LayerNorm(dim, eps=EPS))
            channels = dim
        self.never_used = never_used(self)
        self.head = Linear(channels, spec.num_classes)
        self.apply(init_weights)
        self.apply(_init_convolution)

    def level(self, index: int, x: Tensor) -> Tensor:
        number = index + 1
        x = getattr(self, f"patch_embed{number}")(to_image(x, self.levels[index - 1].grid) if index else x)
        return getattr(self, f"norm{number}")(self.run(getattr(self, f"block{number}"), x))

    def last_norm(self, x: Tensor) -> Tensor:
        # Each stage already ends with a norm of its own.
        return x


def _init_convolution(module: nn.Module) -> None:
    # On the meta device there is nothing to fill, and doing so anyway loads torch's compiler.
    if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
