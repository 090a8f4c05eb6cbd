"""Linear attention of MLLA: Demystify Mamba in Vision, Han et al., NeurIPS 2024, arXiv 2405.16605.

phi(x) = elu(x) + 1, and in the place of Mamba's forget gate two positional encodings: a rotary one, which turns queries
and keys in the numerator alone, and a locally enhanced one, a depthwise convolution of the values which is added.

B batch, N queries, M keys, C channels, h heads, d = C / h.
"""

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions._contract import Attention, Grid, Macs, Site
from attentions._heads import merge_heads, split_heads
from attentions._linear import EPS, ValueConvolution, check_kernel_size, linear_product_macs
from attentions._naive import mix_per_head, same_region
from attentions._positions import positions
from attentions._registry import register

BASE = 10000


class Rotation(nn.Module):
    """Turns pairs of channels of a head by angles that grow with a token's place (RoFormer, arXiv 2104.09864).

    The first half of a head's pairs turns with the row, the second with the column, each by BASE^(-4i / d) per step in
    its pair i. Prefix tokens lie outside the grid, and are not turned.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, grid: Grid, on: Grid, head_dim: int) -> None:
        super().__init__()
        frequencies = BASE ** -(torch.arange(head_dim // 4, dtype=torch.float64) * 4 / head_dim)
        angles = (positions(grid, on).unsqueeze(-1) * frequencies).flatten(1)
        angles = F.pad(angles, (0, 0, grid.prefix, 0)).repeat_interleave(2, dim=-1)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, h, N, d) turned."""
        even, odd = x.unflatten(-1, (-1, 2)).unbind(dim=-1)
        across = torch.stack((-odd, even), dim=-1).flatten(-2)
        return x * self.cos.to(x.dtype) + across * self.sin.to(x.dtype)


@register("mlla")
class MllaAttention(Attention):
    """Linear attention with rotary and locally enhanced positional encoding.

    Keys on a grid of their own are turned by where they lie on the grid of the queries. The gates, the shortcut and the
    first convolution of an MLLA block are the block's, not the attention's.

    Options:
        rotary: queries and keys are turned in the numerator.
        kernel_size: of the depthwise convolution of the values which is added to the output; None for no convolution.

    Raises:
        ValueError: if a head's channels are not pairs for both directions of the grid.
    """

    takes_regions = True

    def __init__(self, site: Site, *, rotary: bool = True, kernel_size: int | None = 3) -> None:
        super().__init__(site)
        check_kernel_size(kernel_size)
        if rotary and site.head_dim % 4:
            raise ValueError(
                "mlla turns pairs of channels with the row and as many with the column, so it needs heads whose width"
                f" is a multiple of 4, and here it is {site.head_dim}"
            )
        self.rotary = rotary
        self.turn_queries = Rotation(site.queries, site.queries, site.head_dim) if rotary else nn.Identity()
        self.turn_keys = Rotation(site.keys, site.queries, site.head_dim) if rotary else nn.Identity()
        # At a site of one head, each channel has a kernel of its own.
        self.lepe = None if kernel_size is None else ValueConvolution(dataclasses.replace(site, heads=1), kernel_size)

    def product(self, q: Tensor, k: Tensor, v: Tensor, regions: Tensor | None = None) -> Tensor:
        """The product in linear order of features q (B, N, C) and k (B, M, C), turned but for the normaliser."""
        if regions is not None:
            own = [(regions == region).unsqueeze(-1).to(q.dtype) for region in range(self.site.regions)]
            return sum((self.product(q, k * mine, v) * mine for mine in own), torch.zeros_like(v))
        q, k, v = (split_heads(x, self.site.heads) for x in (q, k, v))
        normaliser = q @ k.mean(dim=-2, keepdim=True).transpose(-2, -1) + EPS
        keys_values = self.turn_keys(k).transpose(-2, -1) @ (v / k.shape[-2])
        return merge_heads(self.turn_queries(q) @ keys_values / normaliser)

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        bias: Tensor | None = None,
        x: Tensor | None = None,
        regions: Tensor | None = None,
    ) -> Tensor:
        # Sums over thousands of keys leave the range and the resolution of half precision: they run in float32.
        with torch.autocast(q.device.type, enabled=False):
            wide = torch.promote_types(q.dtype, torch.float32)
            q, k = F.elu(q.to(wide)) + 1, F.elu(k.to(wide)) + 1
            out = self.product(q, k, v.to(wide), regions).to(v.dtype)
        return out if self.lepe is None else out + self.lepe(v, regions)

    def naive(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        bias: Tensor | None = None,
        x: Tensor | None = None,
        regions: Tensor | None = None,
    ) -> Tensor:
        site = self.site

        def phi(x: Tensor) -> Tensor:
            return torch.where(x > 0, x + 1, x.exp())

        def turned(x: Tensor, grid: Grid) -> Tensor:
            if not self.rotary:
                return x
            quarter = x.shape[-1] // 4
            angles = torch.zeros(grid.tokens, 2 * quarter, dtype=torch.float64)
            for cell in range(grid.height * grid.width):
                row = (cell // grid.width + 0.5) * site.queries.height / grid.height - 0.5
                column = (cell % grid.width + 0.5) * site.queries.width / grid.width - 0.5
                for i in range(quarter):
                    angles[grid.prefix + cell, i] = row / BASE ** (i / quarter)
                    angles[grid.prefix + cell, quarter + i] = column / BASE ** (i / quarter)
            # The tables of `Rotation` are in float32.
            cos, sin = angles.cos().float().to(x), angles.sin().float().to(x)
            even, odd = x[..., 0::2], x[..., 1::2]
            return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)

        def weights(q: Tensor, k: Tensor, head: int) -> Tensor:
            scores = torch.einsum("bnc,bmc->bnm", phi(q), phi(k))
            rotated = torch.einsum("bnc,bmc->bnm", turned(phi(q), site.queries), turned(phi(k), site.keys))
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
