"""Multi-scale linear attention: EfficientViT, Cai et al., ICCV 2023, arXiv 2205.14756.

Relu linear attention over the tokens q, k, v and, with as many more heads per scale, over sums of nearby tokens. It
differs from `linear(kernel_size=5)`, whose convolution is added to the output and leaves q and k alone. The row
"Enhanced Linear Attn" of FLatten (arXiv 2308.00442, table 3) is neither: it has 5.8 M parameters on DeiT-T, where
`linear(kernel_size=5)` has 5.74 M and this 6.77 M. That row cites the first version of the EfficientViT paper.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions._contract import Attention, Given, Grid, Macs, Site
from attentions._linear import EPS, RECTIFIED, linear_product, linear_product_macs
from attentions._naive import convolved, mix_per_head, normalised
from attentions._registry import register


class Aggregation(nn.Module):
    """Sums of nearby tokens: a depthwise convolution on the grid, then a pointwise one in each head.

    (B, N, C) -> (B, N, C), computed in the dtype of the tokens, whatever the dtype of the weights. Prefix tokens lie
    outside the grid: they skip the depthwise convolution.
    """

    def __init__(self, site: Site, grid: Grid, scale: int) -> None:
        super().__init__()
        # q, k and v are aggregated separately, each on one grid.
        self.site = replace(site, queries=grid, keys=grid)
        self.depthwise = nn.Conv2d(site.dim, site.dim, scale, padding=scale // 2, groups=site.dim, bias=False)
        self.pointwise = nn.Conv2d(site.dim, site.dim, 1, groups=site.heads, bias=False)

    def forward(self, x: Tensor, regions: Tensor | None) -> Tensor:
        height, width, prefix = self.site.queries
        # Tokens are channels_last already, so nothing is copied.
        tokens = x.transpose(1, 2)
        image = tokens[:, :, prefix:].unflatten(2, (height, width))
        # Widened once, so that the gradients of regions are summed in the dtype of x.
        weight = self.depthwise.weight.to(x.dtype)
        if regions is None:
            sums = self._nearby(image, weight)
        else:
            labels = regions.view(-1, 1, height, width)
            own = [(labels == region).to(x.dtype) for region in range(self.site.regions)]
            sums = sum((self._nearby(image * mine, weight) * mine for mine in own), torch.zeros_like(image))
        sums = sums.flatten(2)
        if prefix:
            sums = torch.cat((tokens[:, :, :prefix], sums), dim=2)
        weight = self.pointwise.weight.to(x.dtype)
        return F.conv2d(sums.unsqueeze(-1), weight, groups=self.site.heads).squeeze(-1).transpose(1, 2)

    def _nearby(self, image: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(image, weight, padding=self.depthwise.padding, groups=self.site.dim)

    def naive(self, x: Tensor, regions: Tensor | None) -> Tensor:
        """Return the same, as a sum over taps and a product in each head."""
        prefix = self.site.queries.prefix
        sums = convolved(x, self.depthwise.weight, x.new_zeros(x.shape[-1]), self.site, regions)
        parts = torch.cat((x[:, :prefix], sums[:, prefix:]), dim=1).chunk(self.site.heads, dim=-1)
        matrices = self.pointwise.weight[:, :, 0, 0].chunk(self.site.heads)
        return torch.cat([part @ matrix.T for part, matrix in zip(parts, matrices, strict=True)], dim=-1)

    def macs(self) -> Macs:
        height, width, _ = self.site.queries
        taps = self.depthwise.kernel_size[0] * self.depthwise.kernel_size[1]
        pointwise = self.site.queries.tokens * self.site.head_dim
        return Macs(convolutions=(self.site.regions * height * width * taps + pointwise) * self.site.dim)


class Scale(nn.Module):
    """The aggregations at one scale: q on the grid of the queries, k and v on that of the keys."""

    def __init__(self, site: Site, scale: int) -> None:
        super().__init__()
        self.q = Aggregation(site, site.queries, scale)
        self.k = Aggregation(site, site.keys, scale)
        self.v = Aggregation(site, site.keys, scale)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, regions: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        return self.q(q, regions), self.k(k, regions), self.v(v, regions)

    def naive(self, q: Tensor, k: Tensor, v: Tensor, regions: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the same, from the definitions."""
        return self.q.naive(q, regions), self.k.naive(k, regions), self.v.naive(v, regions)

    def macs(self) -> Macs:
        return self.q.macs() + self.k.macs() + self.v.macs()


@register("enhanced")
class MultiScaleLinearAttention(Attention):
    """Relu linear attention at several scales.

    In the paper one projection follows the heads of all scales. Here the host has the part for the tokens themselves,
    and `fuse` adds the other scales to it, with the same parameters and multiply-adds in total. There is no batch norm.

    Options:
        scales: kernel size of the depthwise convolution of each further scale, odd; the paper's models have one, 5.
    """

    takes_regions = True

    def __init__(self, site: Site, *, scales: tuple[int, ...] = (5,)) -> None:
        super().__init__(site)
        if not scales or not all(isinstance(scale, int) and scale > 1 and scale % 2 for scale in scales):
            raise ValueError(f"scales={scales!r} is not allowed; it takes odd numbers from 3 up, as in (3, 5)")
        self.scales = nn.ModuleList(Scale(site, scale) for scale in scales)
        self.fuse = nn.Linear(len(scales) * site.dim, site.dim, bias=False)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        dtype = v.dtype
        # A query similar to few keys magnifies its rounding errors: its sums of nearby tokens run in float32 too.
        with torch.autocast(q.device.type, enabled=False):
            wide = torch.promote_types(q.dtype, torch.float32)
            tokens = (q.to(wide), k.to(wide), v.to(wide))
            out, *further = (
                linear_product(q, k, v, self.site.heads, regions, self.site.regions, features=RECTIFIED).to(dtype)
                for q, k, v in (tokens, *(scale(*tokens, regions) for scale in self.scales))
            )
        return out + self.fuse(torch.cat(further, dim=-1)).to(dtype)

    def naive(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        def weights(q: Tensor, k: Tensor, head: int) -> Tensor:
            return normalised(torch.einsum("bnc,bmc->bnm", q.clamp(min=0), k.clamp(min=0)), EPS, regions)

        out = mix_per_head(q, k, v, self.site.heads, weights)
        for scale, matrix in zip(self.scales, self.fuse.weight.split(self.site.dim, dim=1), strict=True):
            assert isinstance(scale, Scale)
            q_sums, k_sums, v_sums = scale.naive(q, k, v, regions)
            out = out + mix_per_head(q_sums, k_sums, v_sums, self.site.heads, weights) @ matrix.T
        return out

    @property
    def uses_positions(self) -> bool:
        return True

    def macs(self) -> Macs:
        macs = linear_product_macs(self.site) * (1 + len(self.scales))
        macs += Macs(projections=self.site.queries.tokens * len(self.scales) * self.site.dim**2)
        for scale in self.scales:
            assert isinstance(scale, Scale)
            macs += scale.macs()
        return macs
