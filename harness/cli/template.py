"""my_attention: linear attention with the features elu(x) + 1. Katharopoulos et al., arXiv 2006.16236."""

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions import Attention, Given, Macs, Site, register

EPS = 1e-6


@register("my_attention")
class MyAttention(Attention):
    """The mean of v weighted by phi(q) . phi(k) in each head: q (B, N, C), k and v (B, M, C) -> (B, N, C).

    Options:
        temperature: the divisor of q and k before phi(x) = elu(x) + 1.
    """

    # `attention-bench check` tests what is declared here. Time grows with this power of the tokens: 1 or 2.
    exponent = 1
    # takes_bias = True      `bias` (B, heads, N, M) is added to a map of scores: position tables (Swin)
    # takes_input = True     `x` (B, N, C) is the input of the block
    # takes_regions = True   `regions` (B, N): tokens of different regions do not mix (Swin, across the border)
    # reads = "qv"           the ones of q, k and v that it reads; default: all
    # uses_positions, a property that returns True: a token's position matters (convolution, pooling)

    # An option is a keyword-only argument with a type and a default: --attention "my_attention(temperature=2.0)".
    # `site` has every shape: dim, heads, head_dim, and the grids queries and keys (height, width, prefix, tokens).
    def __init__(self, site: Site, *, temperature: float = 1.0) -> None:
        super().__init__(site)
        if temperature <= 0:
            raise ValueError(f"temperature={temperature} is not allowed; it takes a positive number")
        self.temperature = temperature

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        # Sums over many tokens exceed the range of half precision: they run in float32, also under autocast.
        with torch.autocast(q.device.type, enabled=False):
            wide = torch.promote_types(q.dtype, torch.float32)
            q, k = (F.elu(t.to(wide) / self.temperature) + 1 for t in (q, k))
            q, k, values = (t.unflatten(-1, (self.site.heads, -1)).transpose(1, 2) for t in (q, k, v.to(wide)))
            keys_values = k.transpose(-2, -1) @ (values / k.shape[-2])
            normaliser = q @ k.mean(dim=-2, keepdim=True).transpose(-2, -1) + EPS
            out = q @ keys_values / normaliser
        return out.transpose(1, 2).flatten(2).to(v.dtype)

    # The definition, as obvious as possible: outputs and gradients of forward are compared with it.
    def naive(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        def phi(t: Tensor) -> Tensor:
            return torch.where(t > 0, t / self.temperature + 1, torch.exp(t / self.temperature))

        heads = []
        for q_h, k_h, v_h in zip(*(t.chunk(self.site.heads, dim=-1) for t in (q, k, v)), strict=True):
            weights = phi(q_h) @ phi(k_h).transpose(1, 2)
            heads.append(weights @ v_h / (weights.sum(dim=-1, keepdim=True) + EPS * k.shape[1]))
        return torch.cat(heads, dim=-1)

    # For one batch entry: products by matmul or einsum count as `attention`, linear layers as `projections`.
    def macs(self) -> Macs:
        n, m, d = self.site.queries.tokens, self.site.keys.tokens, self.site.head_dim
        return Macs(attention=(m * d + n * d + n) * self.site.dim)
