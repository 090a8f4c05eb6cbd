"""Cross-covariance attention: v softmax(k^T q / temperature). XCiT, El-Nouby et al., NeurIPS 2021, arXiv 2106.09681.

Channels attend to channels: the d x d map of a head consists of products of channels of q and k, each scaled to length
1 over the tokens. The local patch interaction of XCiT is part of its block, not of the attention.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions._contract import Attention, Given, Macs, Site
from attentions._heads import merge_heads, region_masks, split_heads
from attentions._naive import same_region
from attentions._registry import register


@register("xca")
class CrossCovarianceAttention(Attention):
    """Cross-covariance attention, which needs as many keys as queries.

    A class token is a token like any other. `temperature` (heads, 1, 1) is learned and multiplies the products, as in
    the official implementation: it is the paper's 1 / tau, and starts at 1. With regions, each has a map of its own.
    """

    takes_regions = True

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        queries, keys = site.queries.tokens, site.keys.tokens
        if queries != keys:
            raise ValueError(f"it needs as many keys as queries; here there are {queries} queries and {keys} keys")
        self.temperature = nn.Parameter(torch.ones(site.heads, 1, 1))

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        dtype = v.dtype
        # Norms, and sums over thousands of tokens, exceed the range of half precision: they run in float32.
        with torch.autocast(q.device.type, enabled=False):
            wide = torch.promote_types(q.dtype, torch.float32)
            q, k, v = (split_heads(x.to(wide), self.site.heads) for x in (q, k, v))
            temperature = self.temperature.to(wide)
            if regions is None:
                return merge_heads(self._mix(q, k, v, temperature)).to(dtype)
            own = (mine.unsqueeze(1) for mine in region_masks(regions, self.site.regions, wide))
            mixed = [self._mix(q * mine, k * mine, v, temperature) * mine for mine in own]
            return merge_heads(sum(mixed, torch.zeros_like(v))).to(dtype)

    @staticmethod
    def _mix(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
        """Mix the channels of v (B, heads, N, d) by the map of q and k."""
        products = F.normalize(k, dim=-2).transpose(-2, -1) @ F.normalize(q, dim=-2)
        return v @ (products * temperature).softmax(dim=-2)

    def naive(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        d, tokens = self.site.head_dim, q.shape[1]
        same = q.new_ones(len(q), tokens, tokens) if regions is None else same_region(regions)
        out = []
        for channel in range(self.site.dim):
            head = channel // d
            part = slice(head * d, (head + 1) * d)

            def lengths(x: Tensor) -> Tensor:
                return torch.einsum("bnm,bmc->bnc", same, x.square()).sqrt()

            # One channel of q times each of k, over the tokens m that a token n may meet: (B, N, d).
            products = torch.einsum("bnm,bmc,bm->bnc", same, k[..., part], q[..., channel])
            cosines = products / lengths(k[..., part]) / lengths(q[..., channel, None])
            scores = (cosines * self.temperature[head]).exp()
            out.append((scores / scores.sum(dim=-1, keepdim=True) * v[..., part]).sum(dim=-1))
        return torch.stack(out, dim=-1)

    def macs(self) -> Macs:
        return Macs(attention=2 * self.site.regions * self.site.queries.tokens * self.site.head_dim * self.site.dim)
