"""Softmax attention: softmax(q k^T / sqrt(d) + bias) v. Vaswani et al., Attention Is All You Need, arXiv 1706.03762."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions._contract import Attention, Macs, Site
from attentions._heads import merge_heads, split_heads
from attentions._naive import mix_per_head
from attentions._registry import register


@register("softmax")
class SoftmaxAttention(Attention):
    """Softmax attention, quadratic in the tokens.

    Options:
        fused: one call of torch's scaled_dot_product_attention; False writes the product out, which needs memory
            for the (B, heads, N, M) map. The result is the same up to rounding; speed and memory are not. Where work
            is in float16, the written-out scores are in float32.
    """

    takes_bias = True
    exponent = 2

    def __init__(self, site: Site, *, fused: bool = True) -> None:
        super().__init__(site)
        self.fused = fused

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
        dtype = v.dtype
        q, k, v = (split_heads(x, self.site.heads) for x in (q, k, v))
        if bias is not None:
            bias = bias.to(q.dtype)
        if self.fused:
            return merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=bias)).to(dtype)
        scores = self._scores(q, k)
        if bias is not None:
            scores = scores + bias
        return merge_heads(scores.softmax(dim=-1).to(dtype) @ v).to(dtype)

    def _scores(self, q: Tensor, k: Tensor) -> Tensor:
        """q k^T / sqrt(d), (B, heads, N, M)."""
        device = q.device.type
        cast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)  # never on the meta device
        half = torch.get_autocast_dtype(device) if cast else q.dtype
        if half != torch.float16:
            return q * self.site.head_dim**-0.5 @ k.transpose(-2, -1)
        # Scores of a few hundred in each channel are beyond float16, and a softmax of infinities is NaN.
        with torch.autocast(device, enabled=False):
            wide = torch.promote_types(q.dtype, torch.float32)
            return q.to(wide) * self.site.head_dim**-0.5 @ k.to(wide).transpose(-2, -1)

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
        def weights(q: Tensor, k: Tensor, head: int) -> Tensor:
            scores = torch.einsum("bnc,bmc->bnm", q, k) / math.sqrt(q.shape[-1])
            if bias is not None:
                scores = scores + bias[:, head % bias.shape[1]]
            return scores.exp() / scores.exp().sum(dim=-1, keepdim=True)

        return mix_per_head(q, k, v, self.site.heads, weights)

    def macs(self) -> Macs:
        return Macs(attention=2 * self.site.queries.tokens * self.site.keys.tokens * self.site.dim)
