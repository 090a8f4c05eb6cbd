"""External attention: norm(q M_k^T) M_v with learned memories. Guo et al., arXiv 2105.02358.

Tokens meet S learned keys and values, the same for all images, instead of each other. Only through the double
normalisation, a softmax over tokens and then division by the sum over the memory, do tokens of an image depend on each
other.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions._contract import Attention, Given, Macs, Site
from attentions._heads import merge_heads, split_heads
from attentions._naive import same_region
from attentions._registry import register


@register("external")
class ExternalAttention(Attention):
    """Multi-head external attention: learned memories, shared by the heads, in place of keys and values.

    `m_k.weight` is (S, d) and `m_v.weight` (d, S). It reads neither k nor v; the host projects them nevertheless, so
    that only the mixing differs. The authors' classification model also has four times as many heads, between
    projections that widen the tokens by 4 and narrow them again; here the host's projections keep the width.

    Options:
        memory: S, the number of keys and values in the memories.
    """

    takes_regions = True
    reads = "q"

    def __init__(self, site: Site, *, memory: int = 64) -> None:
        super().__init__(site)
        if memory < 1:
            raise ValueError(f"memory={memory} is not allowed; it takes a number from 1 up")
        self.m_k = nn.Linear(site.head_dim, memory, bias=False)
        self.m_v = nn.Linear(memory, site.head_dim, bias=False)
        for memories in (self.m_k, self.m_v):
            nn.init.trunc_normal_(memories.weight, std=0.02)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        # A softmax over thousands of tokens needs more resolution than half precision has: it runs in float32.
        with torch.autocast(q.device.type, enabled=False):
            wide = torch.promote_types(q.dtype, torch.float32)
            scores = F.linear(split_heads(q.to(wide), self.site.heads), self.m_k.weight.to(wide))
            # A softmax divided by its sum is the softmax of its logarithm, which does not vanish for a token far below
            # the largest one: no epsilon is needed.
            logs = self._log_softmax_over_tokens(scores, regions)
            return merge_heads(F.linear(logs.softmax(dim=-1), self.m_v.weight.to(wide))).to(v.dtype)

    def _log_softmax_over_tokens(self, scores: Tensor, regions: Tensor | None) -> Tensor:
        """Return log softmax of scores (B, heads, N, S) over the tokens of each region."""
        if regions is None:
            return scores.log_softmax(dim=-2)
        logs = scores
        for region in range(self.site.regions):
            mine = (regions == region)[:, None, :, None]
            # Not -inf: if a batch entry lacks a region, the region has no tokens, and its softmax would be NaN.
            others_out = scores.masked_fill(~mine, torch.finfo(scores.dtype).min)
            logs = torch.where(mine, others_out.log_softmax(dim=-2), logs)
        return logs

    def naive(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        same = q.new_ones(len(q), q.shape[1], q.shape[1]) if regions is None else same_region(regions)
        heads = []
        for part in q.chunk(self.site.heads, dim=-1):
            scores = torch.einsum("bnc,sc->bns", part, self.m_k.weight).exp()
            over_tokens = scores / torch.einsum("bnm,bms->bns", same, scores)
            weights = over_tokens / over_tokens.sum(dim=-1, keepdim=True)
            heads.append(torch.einsum("bns,cs->bnc", weights, self.m_v.weight))
        return torch.cat(heads, dim=-1)

    def macs(self) -> Macs:
        return Macs(projections=2 * self.site.queries.tokens * self.site.dim * self.m_k.out_features)
