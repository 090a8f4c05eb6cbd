"""Linformer: softmax attention to a fixed number of mixtures of the keys. Wang et al., arXiv 2006.04768.

B batch, N queries, M keys, C channels, h heads, d = C / h, L mixtures.
"""

import math

import torch
from torch import Tensor, nn

from attentions._contract import Attention, Given, Macs, Site
from attentions._heads import merge_heads, split_heads
from attentions._naive import mix_per_head
from attentions._registry import register


@register("linformer")
class LinformerAttention(Attention):
    """Softmax attention to a fixed number of learned mixtures of the keys.

    softmax(q (E k)^T / sqrt(d)) F v, where E and F are learned (L, M) matrices shared by all heads. They fix the
    resolution, and start as the paper's theorem draws them: independent, normal, with variance 1 / L. Prefix tokens
    are treated like all other tokens.

    Options:
        length: L, the number of mixtures; at most the number of keys is used.
        share: mix keys and values with one matrix, the paper's key-value sharing.
    """

    def __init__(self, site: Site, *, length: int = 64, share: bool = False) -> None:
        super().__init__(site)
        if length < 1:
            raise ValueError(f"length={length} is not allowed; it takes a number from 1 up")
        shape = (min(length, site.keys.tokens), site.keys.tokens)
        self.mix_keys = nn.Parameter(torch.randn(shape) * shape[0] ** -0.5)
        self.mix_values = None if share else nn.Parameter(torch.randn(shape) * shape[0] ** -0.5)

    def mixtures(self) -> tuple[Tensor, Tensor]:
        """Return E and F, each (L, M)."""
        return self.mix_keys, self.mix_keys if self.mix_values is None else self.mix_values

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        # Sums over thousands of keys, and the scores of such sums, exceed the range of half precision.
        with torch.autocast(q.device.type, enabled=False):
            wide = torch.promote_types(q.dtype, torch.float32)
            keys, values = (
                split_heads(mixture.to(wide) @ tokens.to(wide), self.site.heads)
                for tokens, mixture in zip((k, v), self.mixtures(), strict=True)
            )
            q = split_heads(q.to(wide) * self.site.head_dim**-0.5, self.site.heads)
            # Not fused: a map to so few keys is no larger than q, and fused kernels round large scores in backward.
            return merge_heads((q @ keys.transpose(-2, -1)).softmax(dim=-1) @ values).to(v.dtype)

    def naive(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        mix_keys, mix_values = self.mixtures()
        keys = torch.einsum("lm,bmc->blc", mix_keys, k)
        values = torch.einsum("lm,bmc->blc", mix_values, v)

        def weights(q: Tensor, k: Tensor, head: int) -> Tensor:
            scores = torch.einsum("bnc,blc->bnl", q, k) / math.sqrt(q.shape[-1])
            scores = scores - scores.amax(dim=-1, keepdim=True)
            return scores.exp() / scores.exp().sum(dim=-1, keepdim=True)

        return mix_per_head(q, keys, values, self.site.heads, weights)

    @property
    def uses_positions(self) -> bool:
        return True

    def macs(self) -> Macs:
        site, length = self.site, len(self.mix_keys)
        return Macs(attention=2 * length * (site.keys.tokens + site.queries.tokens) * site.dim)
