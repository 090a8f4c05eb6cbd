"""PVT: a pyramid vision transformer with spatially reduced keys. Wang et al., arXiv 2102.12122.

Parameter names are those of the official checkpoints, of PVT and of its successors with other attentions, such as
FLatten-PVT (arXiv 2308.00442). The reduced-key host serves PVTv2 too.
"""

from __future__ import annotations

import math
import operator
import re
from dataclasses import dataclass, field
from itertools import accumulate
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
    to_image,
    to_tokens,
)
from backbones._linear import Linear
from backbones._model import WITH_PREVIOUS, Backbone, Level
from backbones._spec import LATER, BackboneSpec, Mount, listed, tilings

EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class PyramidSpec(BackboneSpec):
    """Geometry that PVT and PVTv2 share. Tuples have one value per stage.

    sr_ratios: the spatial reduction of the keys in the blocks under test; "8421" is short for (8, 4, 2, 1).
    softmax_sr_ratios: the same in the softmax blocks.
    patch_sizes: the stride of each stage's patch embedding.
    """

    dims: tuple[int, ...]
    block_counts: tuple[int, ...]
    heads: tuple[int, ...]
    mlp_ratios: tuple[int, ...]
    sr_ratios: tuple[int, ...]
    softmax_sr_ratios: tuple[int, ...]
    patch_sizes: tuple[int, ...] = (4, 2, 2, 2)

    @property
    def depths(self) -> tuple[int, ...]:
        return self.block_counts

    def grids(self) -> list[Grid]:
        """Return the map of each stage."""
        height, width = self.image_size
        grids = []
        for stage, size in enumerate(self.patch_sizes):
            # Rounded up for PVTv2, whose patches are padded; the sides of a PVT are multiples.
            height, width = -(-height // size), -(-width // size)
            grids.append(Grid(height, width, prefix=self.prefix(stage)))
        return grids

    def prefix(self, stage: int) -> int:
        """Return the number of tokens in front of the grid of a stage (counted from 0)."""
        return 0

    def keys(self, stage: int, ratios: str) -> Grid:
        """Return the grid of the keys in a stage, reduced by the field `ratios`."""
        grid, reduction = self.grids()[stage], getattr(self, ratios)[stage]
        if grid.height % reduction or grid.width % reduction:
            raise self.error(
                f"stage {stage + 1} has a {grid.height}x{grid.width} map, which a spatial reduction of {reduction} "
                f"does not divide; allowed for {ratios} there: {listed(tilings(grid))}"
            )
        return Grid(grid.height // reduction, grid.width // reduction, grid.prefix)

    def mounts(self) -> list[Mount]:
        table = []
        for stage, grid in enumerate(self.grids()):
            for block in range(self.depths[stage]):
                attention, tested = self.attention_of(stage, block)
                ratios = "sr_ratios" if tested else "softmax_sr_ratios"
                site = Site(self.dims[stage], self.heads[stage], grid, self.keys(stage, ratios))
                reduction = getattr(self, ratios)[stage]
                table.append(Mount(stage + 1, block, grid, attention, tested, (site,), (None,), reduction=reduction))
        return table

    def part_of(self, key: str) -> str:
        stage = re.match(r"(?:patch_embed|pos_embed|block|norm)(\d+)", key)
        return f"stage {stage[1]}" if stage else "head"

    def host_macs(self, mount: Mount) -> Macs:
        """Return the multiply-adds of the projections and the reduction around a block's attention."""
        (site,) = mount.sites
        macs = projection_macs(site.queries.tokens, site.dim, 2 * site.dim)
        macs += projection_macs(site.keys.tokens, site.dim, 2 * site.dim)
        if mount.reduction > 1:
            reduced = site.keys.height * site.keys.width
            macs += Macs(convolutions=reduced * site.dim**2 * mount.reduction**2) + norm_macs(reduced, site.dim)
        return macs


@dataclass(frozen=True, kw_only=True)
class PVTSpec(PyramidSpec):
    """Geometry of a PVT.

    class_token: have one in the last stage, as PVT does, from which the logits are read through the final norm. Its
        successors average the tokens instead, without a norm.
    final_norm: have one. FLatten-PVT and PolaFormer-PVT have one that they never call; Agent-PVT and InLine-PVT have
        none.
    """

    family: ClassVar[str] = "pvt"

    class_token: bool = True
    final_norm: bool = field(default=True, metadata=LATER)

    def _apply_rules(self) -> None:
        if self.class_token and not self.final_norm:
            raise self.error("final_norm=False is not allowed with a class token, which is read through that norm")

    @property
    def image_step(self) -> int:
        return math.prod(self.patch_sizes)

    def prefix(self, stage: int) -> int:
        return int(self.class_token and stage == len(self.depths) - 1)

    def macs_by_part(self) -> dict[str, Macs]:
        parts = {}
        channels = self.in_channels
        for stage, (dim, size) in enumerate(zip(self.dims, self.patch_sizes, strict=True)):
            patches = self.grids()[stage].height * self.grids()[stage].width
            macs = Macs(convolutions=patches * channels * size**2 * dim) + norm_macs(patches, dim)
            for mount in self.mounts_of(stage):
                n = mount.grid.tokens
                macs += mount.attention_macs() + self.host_macs(mount) + norm_macs(n, 2 * dim)
                macs += mlp_macs(n, dim, dim * self.mlp_ratios[stage])
            parts[f"stage {stage + 1}"] = macs
            channels = dim
        head = projection_macs(1, channels, self.num_classes)
        parts["head"] = head + norm_macs(self.grids()[-1].tokens, channels) if self.class_token else head
        return parts


class ReducedKeyHost(nn.Module):
    """Projections around an attention whose keys may come from a smaller grid than its queries.

    `sr` and `norm` make the smaller grid with a strided convolution; prefix tokens remain among the keys.
    """

    def __init__(self, mount: Mount) -> None:
        super().__init__()
        (site,) = mount.sites
        self.grid = mount.grid
        self.q = Linear(site.dim, site.dim)
        self.kv = Linear(site.dim, 2 * site.dim)
        self.core = mount.attention.build(site)
        self.proj = Linear(site.dim, site.dim)
        self.reduced = mount.reduction > 1
        if self.reduced:
            self.sr = nn.Conv2d(site.dim, site.dim, mount.reduction, mount.reduction)
            self.norm = nn.LayerNorm(site.dim)

    def never_used(self) -> list[str]:
        """Return the names of the parameters whose outputs the attention does not read."""
        makers = {"q": ("q.",), "kv": ("kv.", "sr.", "norm.")}
        unread = [maker for made, maker in makers.items() if not set(made) & set(self.core.reads)]
        return [name for name, _ in self.named_parameters() if name.startswith(sum(unread, ()))]

    def reduce(self, x: Tensor) -> Tensor:
        """Reduce x (B, N, C) to the tokens (B, M, C) that keys and values are projected from."""
        if not self.reduced:
            return x
        prefix, patches = x.split((self.grid.prefix, x.shape[1] - self.grid.prefix), dim=1)
        patches = self.norm(to_tokens(self.sr(to_image(patches, self.grid))))
        return torch.cat((prefix, patches), dim=1) if self.grid.prefix else patches

    def forward(self, x: Tensor) -> Tensor:
        k, v = self.kv(self.reduce(x)).chunk(2, dim=-1)
        return self.proj(mix(self.core, self.q(x), k, v, x=input_for(self.core, x)))


def never_used(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the parameters of all hosts whose outputs their attention does not read."""
    hosts = ((path, host) for path, host in model.named_modules() if isinstance(host, ReducedKeyHost))
    return tuple(f"{path}.{name}" for path, host in hosts for name in host.never_used())


class PatchEmbed(nn.Module):
    def __init__(self, channels: int, dim: int, size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, size, size)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(to_tokens(self.proj(x)))


def make_block(mount: Mount, mlp_ratio: int, drop_path: float) -> PreNormBlock:
    return PreNormBlock(mount.dim, ReducedKeyHost(mount), Mlp(mount.dim, mlp_ratio), EPS, drop_path)


class Pyramid(Backbone):
    """The base of PVT and PVTv2: the names of modules of stage n end in n."""

    def __init__(self, spec: PyramidSpec) -> None:
        strides = accumulate(spec.patch_sizes, operator.mul)
        places = zip(spec.dims, strides, spec.grids(), strict=True)
        super().__init__(spec, [Level(f"block{number}", *place) for number, place in enumerate(places, start=1)])

    def keep_levels(self, count: int) -> None:
        for number in range(count + 1, len(self.levels) + 1):
            for part in ("patch_embed", "pos_embed", "block", "norm"):
                if hasattr(self, f"{part}{number}"):
                    delattr(self, f"{part}{number}")

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        fine = [
            (r"^(?:patch|pos)_embed(\d+)", (0,)),
            (r"^block(\d+)\.(\d+)", None),
            (r"^norm(\d+)", WITH_PREVIOUS),
            (r"^cls_token", (len(self.levels), 0)),
        ]
        whole = [
            (r"^(?:patch_embed|pos_embed|block|norm)(\d+)", None),
            (r"^cls_token", (len(self.levels),)),
        ]
        stages = whole if coarse else fine
        return {"stem": r"^(?:patch|pos)_embed1", "blocks": [*stages, (r"^norm", WITH_PREVIOUS)]}


class PVT(Pyramid):
    """(B, in_channels, H, W) -> logits (B, num_classes)."""

    def __init__(self, spec: PVTSpec, drop_path: float) -> None:
        super().__init__(spec)
        grids = spec.grids()
        rates = drop_path_rates(drop_path, spec.depths)
        channels = spec.in_channels
        for stage, (dim, grid) in enumerate(zip(spec.dims, grids, strict=True)):
            number = stage + 1
            mounts = spec.mounts_of(stage)
            blocks = nn.ModuleList(
                make_block(mount, spec.mlp_ratios[stage], rate)
                for mount, rate in zip(mounts, rates[stage], strict=True)
            )
            self.add_module(f"patch_embed{number}", PatchEmbed(channels, dim, spec.patch_sizes[stage]))
            self.register_parameter(f"pos_embed{number}", nn.Parameter(torch.zeros(1, grid.tokens, dim)))
            self.add_module(f"block{number}", blocks)
            channels = dim
        self.cls_token = nn.Parameter(torch.zeros(1, 1, channels)) if spec.class_token else None
        # FLatten-PVT has this norm but never calls it: it is kept because official checkpoints and counts include it.
        self.norm = nn.LayerNorm(channels, eps=EPS) if spec.final_norm else None
        unused_norm = ("norm.weight", "norm.bias") if spec.final_norm and not spec.class_token else ()
        self.never_used = (*unused_norm, *never_used(self))
        self.head = Linear(channels, spec.num_classes)
        self.apply(init_weights)
        for stage in range(len(grids)):
            fill_normal(getattr(self, f"pos_embed{stage + 1}"))
        if self.cls_token is not None:
            fill_normal(self.cls_token)

    def no_weight_decay(self) -> set[str]:
        """Return the parameters, besides biases and norms, that the official optimiser does not decay."""
        return {"cls_token"}

    def level(self, index: int, x: Tensor) -> Tensor:
        number = index + 1
        x = getattr(self, f"patch_embed{number}")(to_image(x, self.levels[index - 1].grid) if index else x)
        if self.levels[index].grid.prefix:
            assert self.cls_token is not None
            x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        return self.run(getattr(self, f"block{number}"), x + getattr(self, f"pos_embed{number}"))

    def last_norm(self, x: Tensor) -> Tensor:
        return x if self.cls_token is None else super().last_norm(x)

    def keep_levels(self, count: int) -> None:
        super().keep_levels(count)
        self.cls_token = None
