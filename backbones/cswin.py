"""CSWin: half of the heads in vertical stripes, half in horizontal ones. Dong et al., arXiv 2107.00652.

Parameter names are those of the official checkpoints, of CSWin and of FLatten-CSWin (arXiv 2308.00442).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from attentions import AttentionSpec, Grid, Macs, Site
from backbones._layers import (
    Mlp,
    drop_path_rates,
    init_weights,
    make_drop_path,
    mix,
    mlp_macs,
    norm_macs,
    partition,
    projection_macs,
    to_image,
    to_tokens,
    unpartition,
)
from backbones._linear import Linear
from backbones._model import WITH_PREVIOUS, Backbone, Level
from backbones._spec import LATER, BackboneSpec, Mount, halving_maps, listed, tilings

STEM_KERNEL = 7


@dataclass(frozen=True, kw_only=True)
class CSWinSpec(BackboneSpec):
    """Geometry of a CSWin. Stage i has dim * 2^i channels.

    split_size: the stripe width of the blocks under test, one per stage ("1-2-7-7"). A stripe as wide as the map means
        the full map in one branch over all channels; the last stage is always like this.
    softmax_split_size: of the softmax blocks; None for the published 1-2-7-7, or 1-2-12-12 where 7 does not tile the
        map.
    input_before_norm: give an attention that takes the block's input that input before the norm, as in InLine-CSWin.
        Default: after the norm, where the projections take theirs, as in all other backbones.
    """

    family: ClassVar[str] = "cswin"

    dim: int
    block_counts: tuple[int, ...]
    heads: tuple[int, ...]
    split_size: tuple[int, ...] | None = None
    softmax_split_size: tuple[int, ...] | None = None
    patch_size: int = 4
    mlp_ratio: int = 4
    input_before_norm: bool = field(default=False, metadata=LATER)

    def _apply_rules(self) -> None:
        sevens = all(side // self.patch_size // 4 % 7 == 0 for side in self.image_size)
        for name in ("split_size", "softmax_split_size"):
            if getattr(self, name) is None:
                rule = (1, 2, 7, 7) if sevens else (1, 2, 12, 12)
                object.__setattr__(self, name, self._numbers(name, rule, len(self.depths)))

    @property
    def depths(self) -> tuple[int, ...]:
        return self.block_counts

    @property
    def image_step(self) -> int:
        return self.patch_size

    def grids(self) -> list[Grid]:
        """Return the map of each stage."""
        return halving_maps(self.image_size, self.patch_size, len(self.depths))

    def mounts(self) -> list[Mount]:
        table = []
        for stage in range(len(self.depths)):
            for block in range(self.depths[stage]):
                attention, tested = self.attention_of(stage, block)
                table.append(self._mount(stage, block, attention, tested))
        return table

    def _mount(self, stage: int, block: int, attention: AttentionSpec, tested: bool) -> Mount:
        grid, dim, heads = self.grids()[stage], self.dim << stage, self.heads[stage]
        name = "split_size" if tested else "softmax_split_size"
        split = getattr(self, name)[stage]
        if stage == len(self.depths) - 1 or split >= max(grid.height, grid.width):
            return Mount(stage + 1, block, grid, attention, tested, (Site(dim, heads, grid, grid),), (None,))
        if heads % 2:
            raise self.error(f"stage {stage + 1} has {heads} heads, which two branches of stripes cannot share equally")
        if grid.height % split or grid.width % split:
            # A stripe as wide as the long side is the full map.
            allowed = sorted({*tilings(grid), max(grid.height, grid.width)})
            raise self.error(
                f"stage {stage + 1} has a {grid.height}x{grid.width} map, which stripes of {split} do not tile; "
                f"allowed for {name} there: {listed(allowed)}"
            )
        stripes = (Grid(grid.height, split), Grid(split, grid.width))
        sites = tuple(Site(dim // 2, heads // 2, stripe, stripe) for stripe in stripes)
        windows = tuple((stripe.height, stripe.width) for stripe in stripes)
        return Mount(stage + 1, block, grid, attention, tested, sites, windows)

    def macs_by_part(self) -> dict[str, Macs]:
        parts = {}
        grids = self.grids()
        for stage, grid in enumerate(grids):
            n, dim = grid.tokens, self.dim << stage
            channels, kernel = (self.in_channels, STEM_KERNEL) if stage == 0 else (dim // 2, 3)
            macs = Macs(convolutions=n * channels * kernel**2 * dim) + norm_macs(n, dim)
            for mount in self.mounts_of(stage):
                macs += mount.attention_macs() + Macs(convolutions=n * dim * 9)
                macs += projection_macs(n, dim, 4 * dim)
                macs += mlp_macs(n, dim, dim * self.mlp_ratio) + norm_macs(n, 2 * dim)
            parts[f"stage {stage + 1}"] = macs
        last = self.dim << (len(grids) - 1)
        parts["head"] = norm_macs(grids[-1].tokens, last) + projection_macs(1, last, self.num_classes)
        return parts

    def part_of(self, key: str) -> str:
        stage = re.match(r"stage(\d+)", key)
        merge = re.match(r"merge(\d+)", key)
        if merge:
            return f"stage {int(merge[1]) + 1}"
        return f"stage {stage[1]}" if stage else "head"


class Branch(nn.Module):
    """Attention in stripes of one direction (or on the full map), plus the locally enhanced position encoding.

    `get_v` is a depthwise 3x3 convolution of the values within a stripe, added to the attention's output (LePE).
    """

    def __init__(self, grid: Grid, window: tuple[int, int] | None, site: Site, attention: AttentionSpec) -> None:
        super().__init__()
        self.grid, self.window, self.tile = grid, window, site.queries
        self.get_v = nn.Conv2d(site.dim, site.dim, 3, padding=1, groups=site.dim)
        self.core = attention.build(site)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, x: Tensor) -> Tensor:
        q, k, v = (partition(part, self.grid, self.window) for part in (q, k, v))
        x_in = partition(x, self.grid, self.window) if self.core.takes_input else None
        out = mix(self.core, q, k, v, x=x_in) + to_tokens(self.get_v(to_image(v, self.tile)))
        return unpartition(out, self.grid, self.window)


class Block(nn.Module):
    def __init__(self, spec: CSWinSpec, mount: Mount, drop_path: float) -> None:
        super().__init__()
        self.input_before_norm = spec.input_before_norm
        self.norm1 = nn.LayerNorm(mount.dim)
        self.qkv = Linear(mount.dim, 3 * mount.dim)
        self.proj = Linear(mount.dim, mount.dim)
        self.attns = nn.ModuleList(
            Branch(mount.grid, window, site, mount.attention)
            for window, site in zip(mount.windows, mount.sites, strict=True)
        )
        self.norm2 = nn.LayerNorm(mount.dim)
        self.mlp = Mlp(mount.dim, spec.mlp_ratio)
        self.drop_path = make_drop_path(drop_path)

    def mix(self, normed: Tensor, x: Tensor) -> Tensor:
        """Apply the attention of both branches, each to its share of the channels, (B, H * W, C) -> (B, H * W, C).

        q, k and v are projected from `normed`; `x` is for an attention that takes the input.
        """
        q, k, v = self.qkv(normed).chunk(3, dim=-1)
        parts = [part.chunk(len(self.attns), dim=-1) for part in (q, k, v, x)]
        mixed = [branch(*(part[share] for part in parts)) for share, branch in enumerate(self.attns)]
        return self.proj(torch.cat(mixed, dim=-1))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.drop_path(self.mix(normed, x if self.input_before_norm else normed))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Merge(nn.Module):
    """A strided 3x3 convolution that halves the map and doubles the channels."""

    def __init__(self, dim: int, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.conv = nn.Conv2d(dim, 2 * dim, 3, 2, padding=1)
        self.norm = nn.LayerNorm(2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(to_tokens(self.conv(to_image(x, self.grid))))


class ToTokens(nn.Module):
    """(B, C, H, W) -> (B, H * W, C), as the second step, without parameters, of the stem's sequence."""

    def forward(self, x: Tensor) -> Tensor:
        return to_tokens(x)


class CSWin(Backbone):
    """(B, in_channels, H, W) -> logits (B, num_classes), read from the mean of the last stage's tokens."""

    def __init__(self, spec: CSWinSpec, drop_path: float) -> None:
        grids = spec.grids()
        super().__init__(
            spec,
            [
                Level(f"stage{stage + 1}", spec.dim << stage, spec.patch_size << stage, grid)
                for stage, grid in enumerate(grids)
            ],
        )
        rates = drop_path_rates(drop_path, spec.depths)
        padding = (STEM_KERNEL - spec.patch_size + 1) // 2
        self.stage1_conv_embed = nn.Sequential(
            nn.Conv2d(spec.in_channels, spec.dim, STEM_KERNEL, spec.patch_size, padding),
            ToTokens(),
            nn.LayerNorm(spec.dim),
        )
        for stage in range(len(grids)):
            if stage:
                self.add_module(f"merge{stage}", Merge(spec.dim << (stage - 1), grids[stage - 1]))
            mounts = spec.mounts_of(stage)
            blocks = (Block(spec, mount, rate) for mount, rate in zip(mounts, rates[stage], strict=True))
            self.add_module(f"stage{stage + 1}", nn.ModuleList(blocks))
        channels = spec.dim << (len(grids) - 1)
        self.norm = nn.LayerNorm(channels)
        self.head = Linear(channels, spec.num_classes)
        self.apply(init_weights)

    def level(self, index: int, x: Tensor) -> Tensor:
        x = getattr(self, f"merge{index}")(x) if index else self.stage1_conv_embed(x)
        return self.run(getattr(self, f"stage{index + 1}"), x)

    def keep_levels(self, count: int) -> None:
        for index in range(count, len(self.levels)):
            delattr(self, f"merge{index}")
            delattr(self, f"stage{index + 1}")

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        fine = [(r"^stage(\d+)\.(\d+)", None), (r"^merge(\d+)", WITH_PREVIOUS)]
        stages = [(r"^(?:stage|merge)(\d+)", None)] if coarse else fine
        return {"stem": r"^stage1_conv_embed", "blocks": [*stages, (r"^norm", WITH_PREVIOUS)]}
