"""Softmax attention: softmax(q k^T / sqrt(d) + bias) v. Vaswani et al., Attention Is All You Need, arXiv 1706.03762."""

from torch import Tensor
from torch.nn import functional as F

from attentions._contract import Attention, Macs, Site
from attentions._heads import merge_heads, split_heads
from attentions._registry import register


@register("softmax")
class SoftmaxAttention(Attention):
    """Softmax attention, quadratic in the tokens.

    Options:
        fused: one call of torch's scaled_dot_product_attention; False writes the product out, which needs memory
            for the (B, heads, N, M) map. The result is the same up to rounding; speed and memory are not.
    """

    takes_bias = True

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
        q, k, v = (split_heads(x, self.site.heads) for x in (q, k, v))
        if bias is not None:
            bias = bias.to(q.dtype)
        if self.fused:
            return merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=bias))
        scores = q * self.site.head_dim**-0.5 @ k.transpose(-2, -1)
        if bias is not None:
            scores = scores + bias
        return merge_heads(scores.softmax(dim=-1).to(v.dtype) @ v)

    def macs(self) -> Macs:
        return Macs(attention=2 * self.site.queries.tokens * self.site.keys.tokens * self.site.dim)
