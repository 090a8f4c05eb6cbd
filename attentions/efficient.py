"""Efficient attention: rho_q(q) (rho_k(k)^T v). Shen et al., WACV 2021, arXiv 1812.01243.

Queries and keys are normalised separately: the keys become d maps of the image, each of which sums values into a global
context vector, and each query mixes these vectors. Nothing is divided by a sum over keys.
"""

from typing import Literal

import torch
from torch import Tensor

from attentions._contract import Attention, Given, Macs, Site
from attentions._heads import merge_heads, split_heads
from attentions._naive import mix_per_head, same_region
from attentions._registry import register


@register("efficient")
class EfficientAttention(Attention):
    """Efficient attention, head by head.

    With regions, each map of the keys spans the tokens of one region.

    Options:
        normalization: "softmax", of q over the channels of a head and of k over the tokens; or "scaling", q k^T divided
            by the number of keys, where queries and keys keep their signs.
    """

    takes_regions = True

    def __init__(self, site: Site, *, normalization: Literal["softmax", "scaling"] = "softmax") -> None:
        super().__init__(site)
        self.normalization = normalization

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        dtype = v.dtype
        # Sums over thousands of keys exceed the range and resolution of half precision: they run in float32.
        with torch.autocast(q.device.type, enabled=False):
            wide = torch.promote_types(q.dtype, torch.float32)
            q, k, v = (split_heads(x.to(wide), self.site.heads) for x in (q, k, v))
            if self.normalization == "softmax":
                q = q.softmax(dim=-1)
            if regions is None:
                return merge_heads(q @ self._context(k, v)).to(dtype)
            out = torch.zeros_like(q)
            for region in range(self.site.regions):
                mine = (regions == region)[:, None, :, None]
                out = out + q @ self._context(k, v, mine) * mine
            return merge_heads(out).to(dtype)

    def _context(self, k: Tensor, v: Tensor, mine: Tensor | None = None) -> Tensor:
        """Return rho_k(k)^T v over the keys in `mine` (B, 1, M, 1), or all keys: (B, heads, d, d)."""
        if self.normalization == "softmax":
            if mine is not None:
                # Not -inf: if a batch entry lacks a region, the region has no keys, and its softmax would be NaN.
                k = k.masked_fill(~mine, torch.finfo(k.dtype).min)
            return k.softmax(dim=-2).transpose(-2, -1) @ v
        if mine is None:
            return k.transpose(-2, -1) @ (v / k.shape[-2])
        return (k * mine).transpose(-2, -1) @ (v / mine.sum(dim=-2, keepdim=True).clamp(min=1))

    def naive(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        def weights(q: Tensor, k: Tensor, head: int) -> Tensor:
            same = q.new_ones(len(q), q.shape[1], k.shape[1]) if regions is None else same_region(regions)
            if self.normalization == "scaling":
                return torch.einsum("bnc,bmc->bnm", q, k) * same / same.sum(dim=-1, keepdim=True)
            q = q.exp() / q.exp().sum(dim=-1, keepdim=True)
            # The sums of the maps of the keys, for each query over the keys that it may meet.
            sums = torch.einsum("bnm,bmc->bnc", same, k.exp())
            return torch.einsum("bnc,bmc->bnm", q / sums, k.exp()) * same

        return mix_per_head(q, k, v, self.site.heads, weights)

    def macs(self) -> Macs:
        tokens = self.site.queries.tokens + self.site.keys.tokens
        return Macs(attention=self.site.regions * tokens * self.site.head_dim * self.site.dim)
