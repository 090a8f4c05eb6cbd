"""Sigmoid attention: sigmoid(q k^T / sqrt(d) - log M) v. Ramapuram et al., ICLR 2025, arXiv 2409.04431.

Each weight depends only on its own pair of tokens: nothing is divided by a sum over keys. With the offset -log M, the
weights of a query start with a sum near 1, as those of softmax have.
"""

import math

import torch
from torch import Tensor

from attentions._contract import Attention, Given, Macs, Site
from attentions._heads import merge_heads, scores, split_heads
from attentions._naive import mix_per_head
from attentions._registry import register


@register("sigmoid")
class SigmoidAttention(Attention):
    """Sigmoid attention, quadratic in the tokens.

    The offset is the paper's, for M keys, and not learned. The (B, heads, N, M) map of weights is kept in memory; in
    float16, its scores are in float32.
    """

    takes_bias = True
    exponent = 2

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.offset = -math.log(site.keys.tokens)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        dtype = v.dtype
        q, k, v = (split_heads(x, self.site.heads) for x in (q, k, v))
        logits = scores(q, k) + self.offset
        if bias is not None:
            logits = logits + bias.to(logits.dtype)
        return merge_heads(logits.sigmoid().to(dtype) @ v).to(dtype)

    def naive(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        def weights(q: Tensor, k: Tensor, head: int) -> Tensor:
            logits = torch.einsum("bnc,bmc->bnm", q, k) / math.sqrt(q.shape[-1])
            if bias is not None:
                logits = logits + bias[:, head % bias.shape[1]]
            return 1 / (1 + k.shape[1] * (-logits).exp())

        return mix_per_head(q, k, v, self.site.heads, weights)

    def macs(self) -> Macs:
        return Macs(attention=2 * self.site.queries.tokens * self.site.keys.tokens * self.site.dim)
