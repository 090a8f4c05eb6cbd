"""DeiT: a plain vision transformer with a class token. Touvron et al., arXiv 2012.12877.

Parameter names are those of the official (timm) checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from attentions import Grid, Macs, Site
from backbones._layers import (
    Mlp,
    PreNormBlock,
    drop_path_rates,
    fill_normal,
    init_weights,
    input_for,
    mix,
    mlp_macs,
    norm_macs,
    projection_macs,
    to_tokens,
)
from backbones._linear import Linear
from backbones._model import WITH_PREVIOUS, Backbone, Level
from backbones._spec import BackboneSpec, Mount

EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class DeiTSpec(BackboneSpec):
    """Geometry of a DeiT. All blocks form one stage; tokens are a class token and the grid of patches."""

    family: ClassVar[str] = "deit"

    stages: str = "L"
    dim: int
    depth: int
    heads: int
    patch_size: int = 16
    mlp_ratio: int = 4

    @property
    def depths(self) -> tuple[int, ...]:
        return (self.depth,)

    @property
    def image_step(self) -> int:
        return self.patch_size

    @property
    def grid(self) -> Grid:
        height, width = self.image_size
        return Grid(height // self.patch_size, width // self.patch_size, prefix=1)

    def mounts(self) -> list[Mount]:
        site = Site(self.dim, self.heads, self.grid, self.grid)
        table = []
        for block in range(self.depth):
            attention, tested = self.attention_of(0, block)
            table.append(Mount(1, block, self.grid, attention, tested, (site,), (None,)))
        return table

    def macs_by_part(self) -> dict[str, Macs]:
        n, dim = self.grid.tokens, self.dim
        stem = Macs(convolutions=(n - 1) * self.in_channels * self.patch_size**2 * dim)
        blocks = Macs()
        for mount in self.mounts():
            blocks += mount.attention_macs() + projection_macs(n, dim, 4 * dim)
            blocks += mlp_macs(n, dim, dim * self.mlp_ratio) + norm_macs(n, 2 * dim)
        head = norm_macs(n, dim) + projection_macs(1, dim, self.num_classes)
        return {"stage 1": stem + blocks, "head": head}

    def part_of(self, key: str) -> str:
        return "head" if key.startswith(("norm.", "head.")) else "stage 1"


class PatchEmbed(nn.Module):
    def __init__(self, spec: DeiTSpec) -> None:
        super().__init__()
        self.proj = nn.Conv2d(spec.in_channels, spec.dim, spec.patch_size, spec.patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return to_tokens(self.proj(x))


class AttentionHost(nn.Module):
    """Projections around an attention whose queries and keys come from the same tokens."""

    def __init__(self, mount: Mount) -> None:
        super().__init__()
        (site,) = mount.sites
        self.qkv = Linear(site.dim, 3 * site.dim)
        self.core = mount.attention.build(site)
        self.proj = Linear(site.dim, site.dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.proj(mix(self.core, q, k, v, x=input_for(self.core, x)))


def make_block(spec: DeiTSpec, mount: Mount, drop_path: float) -> PreNormBlock:
    return PreNormBlock(spec.dim, AttentionHost(mount), Mlp(spec.dim, spec.mlp_ratio), EPS, drop_path)


class DeiT(Backbone):
    """(B, in_channels, H, W) -> logits (B, num_classes), read from the class token."""

    def __init__(self, spec: DeiTSpec, drop_path: float) -> None:
        super().__init__(
            spec, [Level(f"blocks.{block}", spec.dim, spec.patch_size, spec.grid) for block in range(spec.depth)]
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, spec.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, spec.grid.tokens, spec.dim))
        self.patch_embed = PatchEmbed(spec)
        (rates,) = drop_path_rates(drop_path, spec.depths)
        self.blocks = nn.ModuleList(
            make_block(spec, mount, rate) for mount, rate in zip(spec.mounts(), rates, strict=True)
        )
        self.norm = nn.LayerNorm(spec.dim, eps=EPS)
        self.head = Linear(spec.dim, spec.num_classes)
        self.apply(init_weights)
        fill_normal(self.pos_embed)
        fill_normal(self.cls_token)

    def no_weight_decay(self) -> set[str]:
        """Return the parameters, besides biases and norms, that the official optimiser does not decay."""
        return {"pos_embed", "cls_token"}

    def level(self, index: int, x: Tensor) -> Tensor:
        if index == 0:
            x = self.patch_embed(x)
            x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1) + self.pos_embed
        return self.run((self.blocks[index],), x)

    def keep_levels(self, count: int) -> None:
        self.blocks = self.blocks[:count]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {
            "stem": r"^cls_token|^pos_embed|^patch_embed",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", WITH_PREVIOUS)],
        }
