"""Rank-augmented linear attention: Breaking the Low-Rank Dilemma of Linear Attention, Fan et al., arXiv 2411.07635.

Linear attention with phi(x) = elu(x) + 1, whose rank is raised twice: the sum of k^T v over keys is weighted by how
much a global query, the mean of all queries, attends to each key; the output is multiplied by a linear map of the
input.

B batch, N queries, M keys, C channels, h heads, d = C / h.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions._contract import Attention, Given, Macs, Site
from attentions._linear import EPS, linear_product, linear_product_macs
from attentions._naive import mix_per_head, normalised, same_region
from attentions._registry import register


@register("rala")
class RalaAttention(Attention):
    """Linear attention with weighted keys and gated outputs.

    Key j counts alpha_j = M softmax_j(mean(phi(q)).phi(k_j) / sqrt(d)) times, in the numerator and in the normaliser;
    the weights of all keys sum to M. With regions, mean and softmax are per region. The rotary and the convolutional
    positional encodings of the paper's RAVLT belong to that backbone.

    Options:
        reweight: weight keys by the global query.
        gate: multiply the output by a linear map of the block's input.
    """

    takes_input = True
    takes_regions = True

    def __init__(self, site: Site, *, reweight: bool = True, gate: bool = True) -> None:
        super().__init__(site)
        self.reweight = reweight
        self.gate = nn.Linear(site.dim, site.dim) if gate else None

    def weights(self, q: Tensor, k: Tensor, regions: Tensor | None) -> Tensor:
        """Return alpha of each key, (B, M, h, 1), for features q (B, N, h, d) and k (B, M, h, d)."""
        scale = self.site.head_dim**-0.5
        keys = k.permute(0, 2, 3, 1)
        if regions is None:
            weights = (q.mean(dim=1).unsqueeze(-2) * scale @ keys).softmax(dim=-1) * k.shape[1]
            return weights.permute(0, 3, 1, 2)
        weights = torch.zeros_like(keys[:, :, :1])
        for region in range(self.site.regions):
            others = regions != region
            # At least 1, as a window may lack a region.
            count = (~others).sum(dim=-1).clamp(min=1)[:, None, None, None]
            mean = q.masked_fill(others[:, :, None, None], 0).sum(dim=1).unsqueeze(-2) / count
            others = others[:, None, None, :]
            scores = (mean * scale @ keys).masked_fill(others, torch.finfo(k.dtype).min)
            weights = weights + (scores.softmax(dim=-1) * count).masked_fill(others, 0)
        return weights.permute(0, 3, 1, 2)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        # Sums over thousands of keys exceed the range and resolution of half precision: they run in float32.
        with torch.autocast(q.device.type, enabled=False):
            wide = torch.promote_types(q.dtype, torch.float32)
            q, k = F.elu(q.to(wide)) + 1, F.elu(k.to(wide)) + 1
            if self.reweight:
                # Heads stay behind the tokens: with the usual transposed views, the code that torch 2.14 compiles for
                # the CPU writes out of bounds in the backward pass.
                heads_q, heads_k = (tokens.unflatten(-1, (self.site.heads, -1)) for tokens in (q, k))
                k = (heads_k * self.weights(heads_q, heads_k, regions)).flatten(-2)
            out = linear_product(q, k, v.to(wide), self.site.heads, regions, self.site.regions).to(v.dtype)
        # The gate is a projection like those of the host, and runs in the same precision.
        return out if self.gate is None else (out * self.gate(x)).to(v.dtype)

    def naive(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        def phi(x: Tensor) -> Tensor:
            return torch.where(x > 0, x + 1, x.exp())

        def alpha(q: Tensor, k: Tensor) -> Tensor:
            if not self.reweight:
                return torch.ones_like(k[..., 0])
            # (B, M, N) and (B, M, M): the queries and the keys that a key's mean and softmax are taken over.
            queries, keys = q.new_ones(len(k), k.shape[1], q.shape[1]), k.new_ones(len(k), k.shape[1], k.shape[1])
            if regions is not None:
                queries = keys = same_region(regions)
            mean = queries @ q / queries.sum(dim=-1, keepdim=True)
            score = (mean * k).sum(dim=-1) / k.shape[-1] ** 0.5
            return score.exp() * keys.sum(dim=-1) / (keys @ score.exp().unsqueeze(-1)).squeeze(-1)

        def weights(q: Tensor, k: Tensor, head: int) -> Tensor:
            q, k = phi(q), phi(k)
            scores = torch.einsum("bnc,bmc,bm->bnm", q, k, alpha(q, k))
            return normalised(scores, EPS, regions)

        out = mix_per_head(q, k, v, self.site.heads, weights)
        if self.gate is None:
            return out
        assert x is not None
        return out * (torch.einsum("bnc,ec->bne", x, self.gate.weight) + self.gate.bias)

    def macs(self) -> Macs:
        site = self.site
        macs = linear_product_macs(site)
        if self.reweight:
            macs += Macs(attention=site.regions * site.keys.tokens * site.dim)
        if self.gate is not None:
            macs += Macs(projections=site.queries.tokens * site.dim**2)
        return macs
