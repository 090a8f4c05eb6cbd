"""Softmax attention: softmax(q k^T / sqrt(d) + bias) v. Vaswani et al., Attention Is All You Need, arXiv 1706.03762."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions._contract import Attention, Given, Macs, Site
from attentions._heads import merge_heads, scores, split_heads
from attentions._naive import mix_per_head
from attentions._registry import register


@register("softmax")
class SoftmaxAttention(Attention):
    """Softmax attention, quadratic in the tokens.

    Options:
        fused: one call of torch's scaled_dot_product_attention; False for separate products, which need memory for the
            (B, heads, N, M) map. The results are equal up to rounding; speed and memory are not. In float16, the
            separate scores are in float32.
    """

    takes_bias = True
    exponent = 2

    def __init__(self, site: Site, *, fused: bool = True) -> None:
        super().__init__(site)
        self.fused = fused

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        dtype = v.dtype
        q, k, v = (split_heads(x, self.site.heads) for x in (q, k, v))
        if bias is not None:
            bias = bias.to(q.dtype)
        if self.fused:
            return merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=bias)).to(dtype)
        weights = scores(q, k)
        if bias is not None:
            weights = weights + bias
        return merge_heads(weights.softmax(dim=-1).to(dtype) @ v).to(dtype)

    def naive(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        def weights(q: Tensor, k: Tensor, head: int) -> Tensor:
            scores = torch.einsum("bnc,bmc->bnm", q, k) / math.sqrt(q.shape[-1])
            if bias is not None:
                scores = scores + bias[:, head % bias.shape[1]]
            return scores.exp() / scores.exp().sum(dim=-1, keepdim=True)

        return mix_per_head(q, k, v, self.site.heads, weights)

    def macs(self) -> Macs:
        return Macs(attention=2 * self.site.queries.tokens * self.site.keys.tokens * self.site.dim)
