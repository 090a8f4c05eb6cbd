"""Linear attention of MLLA: Demystify Mamba in Vision, Han et al., NeurIPS 2024, arXiv 2405.16605.

phi(x) = elu(x) + 1, and in place of Mamba's forget gate two positional encodings: a rotary one, which rotates queries
and keys in the numerator only, and a locally enhanced one, a depthwise convolution of the values, which is added.

B batch, N queries, M keys, C channels, h heads, d = C / h.
"""

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions._contract import Attention, Given, Grid, Macs, Site
from attentions._heads import merge_heads, region_masks, split_heads
from attentions._linear import (
    EPS,
    ValueConvolution,
    check_kernel_size,
    linear_product,
    linear_product_macs,
    score_sums,
)
from attentions._naive import mix_per_head, same_region
from attentions._positions import positions
from attentions._registry import register

BASE = 10000


class Rotation(nn.Module):
    """Rotation of pairs of channels by angles that grow with a token's position (RoFormer, arXiv 2104.09864).

    Of all channels, before they are split into heads, the first half rotates with the row and the second half with the
    column, pair i of each by BASE^(-4i / C) per step: the first heads see rows and the last ones columns, as in the
    official implementation. Prefix tokens lie outside the grid, and are not rotated.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, grid: Grid, on: Grid, dim: int) -> None:
        super().__init__()
        frequencies = BASE ** -(torch.arange(dim // 4, dtype=torch.float64) * 4 / dim)
        angles = (positions(grid, on).unsqueeze(-1) * frequencies).flatten(1)
        angles = F.pad(angles, (0, 0, grid.prefix, 0)).repeat_interleave(2, dim=-1)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, N, C), rotated."""
        even, odd = x.unflatten(-1, (-1, 2)).unbind(dim=-1)
        across = torch.stack((-odd, even), dim=-1).flatten(-2)
        return x * self.cos.to(x.dtype) + across * self.sin.to(x.dtype)


@register("mlla")
class MllaAttention(Attention):
    """Linear attention with rotary and locally enhanced positional encoding.

    Keys on a grid of their own are rotated by their positions on the grid of the queries. The gates, the shortcut and
    the first convolution of an MLLA block belong to the block, not to the attention.

    Options:
        rotary: rotate queries and keys in the numerator.
        kernel_size: of the depthwise convolution of the values, which is added to the output; None for no convolution.

    Raises:
        ValueError: if the channels do not form pairs for both directions of the grid, or heads would split a pair.
    """

    takes_regions = True

    def __init__(self, site: Site, *, rotary: bool = True, kernel_size: int | None = 3) -> None:
        super().__init__(site)
        check_kernel_size(kernel_size)
        if rotary and (site.dim % 4 or site.head_dim % 2):
            raise ValueError(
                "it rotates half of the pairs of channels by row and half by column, so it needs a multiple of 4 "
                f"channels and an even number per head; here there are {site.dim} channels, {site.head_dim} per head"
            )
        self.rotary = rotary
        self.rotate_queries = Rotation(site.queries, site.queries, site.dim) if rotary else nn.Identity()
        self.rotate_keys = Rotation(site.keys, site.queries, site.dim) if rotary else nn.Identity()
        # A site with one head gives each channel a kernel of its own.
        self.lepe = None if kernel_size is None else ValueConvolution(dataclasses.replace(site, heads=1), kernel_size)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        # Sums over thousands of keys exceed the range and resolution of half precision: they run in float32.
        with torch.autocast(q.device.type, enabled=False):
            wide = torch.promote_types(q.dtype, torch.float32)
            q, k = F.elu(q.to(wide)) + 1, F.elu(k.to(wide)) + 1
            out = self.mix(q, k, v.to(wide), regions).to(v.dtype)
        return out if self.lepe is None else out + self.lepe(v, regions)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, regions: Given) -> Tensor:
        """Return the values mixed by features q (B, N, C), k (B, M, C): rotated, but not in the sums of the scores."""
        heads = self.site.heads
        if regions is None:
            sums = score_sums(q, k, heads)
        else:
            own = region_masks(regions, self.site.regions, q.dtype)
            sums = torch.stack([score_sums(q, k * mine, heads) * mine.unsqueeze(1) for mine in own]).sum(dim=0)
        rotated = (self.rotate_queries(q), self.rotate_keys(k))
        mixed = linear_product(*rotated, v, heads, regions, self.site.regions, normalised=False)
        return merge_heads(split_heads(mixed, heads) / sums)

    def naive(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        site = self.site

        def phi(x: Tensor) -> Tensor:
            return torch.where(x > 0, x + 1, x.exp())

        def rotate(x: Tensor, grid: Grid, head: int) -> Tensor:
            """Rotate x (B, N, d), the channels of one head."""
            if not self.rotary:
                return x
            quarter = site.dim // 4
            angles = torch.zeros(grid.tokens, 2 * quarter, dtype=torch.float64)
            for cell in range(grid.height * grid.width):
                row = (cell // grid.width + 0.5) * site.queries.height / grid.height - 0.5
                column = (cell % grid.width + 0.5) * site.queries.width / grid.width - 0.5
                for i in range(quarter):
                    angles[grid.prefix + cell, i] = row / BASE ** (i / quarter)
                    angles[grid.prefix + cell, quarter + i] = column / BASE ** (i / quarter)
            # Rounded, as the tables of `Rotation` are in float32.
            angles = angles[:, head * site.head_dim // 2 : (head + 1) * site.head_dim // 2]
            cos, sin = angles.cos().float().to(x), angles.sin().float().to(x)
            even, odd = x[..., 0::2], x[..., 1::2]
            return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)

        def weights(q: Tensor, k: Tensor, head: int) -> Tensor:
            scores = torch.einsum("bnc,bmc->bnm", phi(q), phi(k))
            rotated = torch.einsum("bnc,bmc->bnm", rotate(phi(q), site.queries, head), rotate(phi(k), site.keys, head))
            if regions is not None:
                scores, rotated = scores * same_region(regions), rotated * same_region(regions)
            return rotated / (scores.sum(dim=-1, keepdim=True) + EPS * k.shape[1])

        out = mix_per_head(q, k, v, site.heads, weights)
        return out if self.lepe is None else out + self.lepe.naive(v, regions)

    @property
    def uses_positions(self) -> bool:
        return self.rotary or self.lepe is not None

    def macs(self) -> Macs:
        macs = linear_product_macs(self.site)
        return macs if self.lepe is None else macs + self.lepe.macs()
