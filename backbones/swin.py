"""Swin: attention in windows, shifted by half a window in every second block. Liu et al., arXiv 2103.14030.

Parameter names are those of the official checkpoints, of Swin and of FLatten-Swin (arXiv 2308.00442).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions import Grid, Macs, Site, lookup
from backbones._layers import (
    Mlp,
    drop_path_rates,
    fill_normal,
    init_weights,
    input_for,
    make_drop_path,
    mix,
    mlp_macs,
    norm_macs,
    partition,
    projection_macs,
    to_tokens,
    unpartition,
)
from backbones._linear import Linear
from backbones._model import WITH_PREVIOUS, Backbone, Level
from backbones._spec import BackboneSpec, Mount, halving_maps, listed

MASKED = -100.0


@dataclass(frozen=True, kw_only=True)
class SwinSpec(BackboneSpec):
    """Geometry of a Swin. Stage i has dim * 2^i channels.

    window: of the blocks under test; one at least as large as the map means the full map, unshifted.
    softmax_window: of the softmax blocks; None for the official rule: 7, or 12 with a window above 56.
    honour_shift_mask: keep an attention without a bias from mixing opposite borders of the image in shifted windows.
        Default: False, as the official linear blocks shift but ignore the mask. Attentions with a bias always honour
        it.
    """

    family: ClassVar[str] = "swin"

    dim: int
    block_counts: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    softmax_window: int | None = None
    honour_shift_mask: bool = False
    patch_size: int = 4
    mlp_ratio: int = 4

    def _apply_rules(self) -> None:
        if self.softmax_window is None:
            object.__setattr__(self, "softmax_window", 12 if self.window > 56 else 7)

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
        for stage, grid in enumerate(self.grids()):
            for block in range(self.depths[stage]):
                attention, tested = self.attention_of(stage, block)
                wanted = self.window if tested else self.softmax_window
                assert wanted is not None
                tile, shift = self.tile(grid, wanted, block)
                if not self.tiles(grid, wanted):
                    raise self.error(
                        f"stage {stage + 1} has a {grid.height}x{grid.width} map, which {tile.height}x{tile.width} "
                        f"windows do not tile; allowed for {'window' if tested else 'softmax_window'} there: "
                        f"{listed(self._allowed(tested))}"
                    )
                masked = shift > 0 and self.honour_shift_mask and not lookup(attention.name).takes_bias
                site = Site(self.dim << stage, self.heads[stage], tile, tile, regions=4 if masked else 1)
                windows = (None if tile == grid else (tile.height, tile.width),)
                table.append(Mount(stage + 1, block, grid, attention, tested, (site,), windows, shift=shift))
        return table

    @staticmethod
    def tile(grid: Grid, window: int, block: int) -> tuple[Grid, int]:
        """Return the window of a block on its map, and the shift; a map no larger than the window is never shifted."""
        if window >= max(grid.height, grid.width):
            return grid, 0
        # On a long map the official code clamps the window to the short side, and then does not shift it.
        side = min(window, grid.height, grid.width)
        return Grid(side, side), side // 2 if block % 2 and side < min(grid.height, grid.width) else 0

    @classmethod
    def tiles(cls, grid: Grid, window: int) -> bool:
        """Return whether windows of this side tile a map."""
        tile, _ = cls.tile(grid, window, 0)
        return grid.height % tile.height == 0 and grid.width % tile.width == 0

    def _allowed(self, tested: bool) -> list[int]:
        """Return the windows that tile all maps on which blocks under test, or else softmax blocks, work.

        One number holds for all stages, so a window that tiles only some of their maps is not among them.
        """
        grids = [
            grid
            for stage, grid in enumerate(self.grids())
            if any(self.attention_of(stage, block)[1] == tested for block in range(self.depths[stage]))
        ]
        # Larger numbers than the short side of a long map are clamped to it: of these, the divisors are enough.
        sides = {side for grid in grids for side in (grid.height, grid.width)}
        candidates = {n for side in sides for n in range(1, side + 1) if side % n == 0}
        return sorted(n for n in candidates if all(self.tiles(grid, n) for grid in grids))

    def macs_by_part(self) -> dict[str, Macs]:
        parts = {}
        grids = self.grids()
        stem = Macs(convolutions=grids[0].tokens * self.in_channels * self.patch_size**2 * self.dim)
        stem += norm_macs(grids[0].tokens, self.dim)
        for stage, grid in enumerate(grids):
            n, dim = grid.tokens, self.dim << stage
            macs = stem if stage == 0 else Macs()
            for mount in self.mounts_of(stage):
                macs += mount.attention_macs() + projection_macs(n, dim, 4 * dim)
                macs += mlp_macs(n, dim, dim * self.mlp_ratio) + norm_macs(n, 2 * dim)
            if stage < len(grids) - 1:
                merged = grids[stage + 1].tokens
                macs += projection_macs(merged, 4 * dim, 2 * dim) + norm_macs(merged, 4 * dim)
            parts[f"stage {stage + 1}"] = macs
        last = self.dim << (len(grids) - 1)
        parts["head"] = norm_macs(grids[-1].tokens, last) + projection_macs(1, last, self.num_classes)
        return parts

    def part_of(self, key: str) -> str:
        stage = re.match(r"layers\.(\d+)", key)
        if stage:
            return f"stage {int(stage[1]) + 1}"
        return "stage 1" if key.startswith("patch_embed.") else "head"


class PatchEmbed(nn.Module):
    def __init__(self, spec: SwinSpec) -> None:
        super().__init__()
        self.proj = nn.Conv2d(spec.in_channels, spec.dim, spec.patch_size, spec.patch_size)
        self.norm = nn.LayerNorm(spec.dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(to_tokens(self.proj(x)))


class PatchMerging(nn.Module):
    """Four neighbours become one token of twice the channels; an odd map is padded with zeros."""

    def __init__(self, dim: int, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.reduction = Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        image = x.unflatten(1, (self.grid.height, self.grid.width))
        if self.grid.height % 2 or self.grid.width % 2:
            image = F.pad(image, (0, 0, 0, self.grid.width % 2, 0, self.grid.height % 2))
        corners = [image[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=-1).flatten(1, 2)))


class WindowHost(nn.Module):
    """Projections around an attention in windows; relative position bias for an attention that takes a bias."""

    relative_position_index: Tensor

    def __init__(self, mount: Mount) -> None:
        super().__init__()
        (site,) = mount.sites
        self.qkv = Linear(site.dim, 3 * site.dim)
        self.core = mount.attention.build(site)
        self.proj = Linear(site.dim, site.dim)
        self.tokens = site.queries.tokens
        if self.core.takes_bias:
            height, width = site.queries.height, site.queries.width
            table = torch.zeros((2 * height - 1) * (2 * width - 1), site.heads)
            self.relative_position_bias_table = nn.Parameter(fill_normal(table))
            index = relative_position_index(height, width).to(table.device)
            self.register_buffer("relative_position_index", index, persistent=False)

    def bias(self, mask: Tensor | None, batch: int) -> Tensor:
        """Return the relative position bias (1, heads, N, N), or per batch entry plus a shift mask (windows, N, N)."""
        table = self.relative_position_bias_table[self.relative_position_index]
        bias = table.view(1, self.tokens, self.tokens, -1).permute(0, 3, 1, 2)
        if mask is None:
            return bias
        return (bias + mask.unsqueeze(1)).repeat(batch // mask.shape[0], 1, 1, 1)

    def forward(self, x: Tensor, mask: Tensor | None, regions: Tensor | None) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        bias = self.bias(mask, x.shape[0]) if self.core.takes_bias else None
        if regions is not None:
            regions = regions.repeat(x.shape[0] // regions.shape[0], 1)
        return self.proj(mix(self.core, q, k, v, bias=bias, x=input_for(self.core, x), regions=regions))


# These are computed on the CPU: on the meta device, the first such operator loads torch's compiler, which takes as long
# as importing torch.


def relative_position_index(height: int, width: int) -> Tensor:
    """Return the row of the bias table for each pair of tokens in a window, (N * N,)."""
    rows, columns = torch.meshgrid(*(torch.arange(side, device="cpu") for side in (height, width)), indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    down = rows[:, None] - rows[None, :] + height - 1
    right = columns[:, None] - columns[None, :] + width - 1
    return (down * (2 * width - 1) + right).flatten()


def shift_regions(grid: Grid, window: tuple[int, int], shift: int) -> Tensor:
    """Label tokens 0 to 3 per window of the shifted map, (windows, N): different labels were not neighbours."""
    rows = (torch.arange(grid.height, device="cpu") >= grid.height - shift).long()
    columns = (torch.arange(grid.width, device="cpu") >= grid.width - shift).long()
    labels = (2 * rows[:, None] + columns[None, :]).view(1, -1, 1)
    return partition(labels, grid, window).squeeze(-1)


def shift_mask(labels: Tensor) -> Tensor:
    """Return what is added to the scores in each window, (windows, N, N): `MASKED` between different labels, else 0."""
    return MASKED * (labels[:, :, None] != labels[:, None, :]).float()


class Block(nn.Module):
    def __init__(self, spec: SwinSpec, mount: Mount, drop_path: float) -> None:
        super().__init__()
        self.grid, self.shift = mount.grid, mount.shift
        (self.window,) = mount.windows
        self.norm1 = nn.LayerNorm(mount.dim)
        self.attn = WindowHost(mount)
        self.norm2 = nn.LayerNorm(mount.dim)
        self.mlp = Mlp(mount.dim, spec.mlp_ratio)
        self.drop_path = make_drop_path(drop_path)
        mask = regions = None
        if self.window is not None and self.shift:
            labels = shift_regions(self.grid, self.window, self.shift)
            device = self.norm1.weight.device
            if self.attn.core.takes_bias:
                mask = shift_mask(labels).to(device)
            if mount.sites[0].regions > 1:
                regions = labels.to(device)
        self.register_buffer("attn_mask", mask, persistent=False)
        self.register_buffer("regions", regions, persistent=False)

    def mix(self, x: Tensor) -> Tensor:
        """Apply the attention in the windows of the map, (B, H * W, C) -> (B, H * W, C)."""
        size = (self.grid.height, self.grid.width)
        if self.shift:
            x = x.unflatten(1, size).roll((-self.shift, -self.shift), dims=(1, 2)).flatten(1, 2)
        x = self.attn(partition(x, self.grid, self.window), self.attn_mask, self.regions)
        x = unpartition(x, self.grid, self.window)
        if self.shift:
            x = x.unflatten(1, size).roll((self.shift, self.shift), dims=(1, 2)).flatten(1, 2)
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.mix(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Stage(nn.Module):
    """A stage's modules, by their official names; the merging at its end leads to the next stage."""

    def __init__(self, blocks: list[Block], downsample: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample


class Swin(Backbone):
    """(B, in_channels, H, W) -> logits (B, num_classes), read from the mean of the last stage's tokens."""

    # A list of Stage.
    layers: Any

    def __init__(self, spec: SwinSpec, drop_path: float) -> None:
        grids = spec.grids()
        super().__init__(
            spec,
            [
                Level(f"layers.{stage}", spec.dim << stage, spec.patch_size << stage, grid)
                for stage, grid in enumerate(grids)
            ],
        )
        self.patch_embed = PatchEmbed(spec)
        rates = drop_path_rates(drop_path, spec.depths)
        self.layers = nn.ModuleList()
        for stage, grid in enumerate(grids):
            mounts = spec.mounts_of(stage)
            blocks = [Block(spec, mount, rate) for mount, rate in zip(mounts, rates[stage], strict=True)]
            last = stage == len(grids) - 1
            self.layers.append(Stage(blocks, None if last else PatchMerging(spec.dim << stage, grid)))
        channels = spec.dim << (len(grids) - 1)
        self.norm = nn.LayerNorm(channels)
        self.head = Linear(channels, spec.num_classes)
        self.apply(init_weights)

    def no_weight_decay(self) -> set[str]:
        """Return the parameters, besides biases and norms, that the official optimiser does not decay."""
        return {name for name, _ in self.named_parameters() if name.endswith("relative_position_bias_table")}

    def level(self, index: int, x: Tensor) -> Tensor:
        x = self.layers[index - 1].downsample(x) if index else self.patch_embed(x)
        return self.run(self.layers[index].blocks, x)

    def keep_levels(self, count: int) -> None:
        self.layers = self.layers[:count]
        self.layers[-1].downsample = None

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        fine = [(r"^layers\.(\d+)\.blocks\.(\d+)", None), (r"^layers\.(\d+)\.downsample", WITH_PREVIOUS)]
        stages = [(r"^layers\.(\d+)", None)] if coarse else fine
        return {"stem": r"^patch_embed", "blocks": [*stages, (r"^norm", WITH_PREVIOUS)]}
