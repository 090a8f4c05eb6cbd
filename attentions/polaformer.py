"""PolaFormer's polarity-aware linear attention. Meng et al., ICLR 2025, arXiv 2501.15061.

relu discards the negative parts of q and k. Here q and k are split into positive and negative parts: half of the values
of a head are mixed by the products of parts of the same sign, the other half by those of opposite signs. A learned
power per channel sharpens the parts, and a gate from the input weights the output. Beyond the paper's equations, as in
the official implementation and in focused attention: the softplus scale, the positional encoding of the keys and the
depthwise convolution of the values.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions._contract import Attention, Given, Macs, Site
from attentions._heads import merge_heads, region_masks, split_heads
from attentions._linear import EPS, ValueConvolution, check_kernel_size
from attentions._naive import normalised
from attentions._registry import register


def polarity_product(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Mix v (B, heads, M, d): its first half by same-signed scores, its second half by opposite-signed ones.

    q (B, heads, N, 2 d) and k (B, heads, M, 2 d) hold the positive, then the negative parts, all non-negative.
    Same-signed scores are q.k, opposite-signed ones q.k with the parts of k swapped. They are swapped in k^T v, a small
    matrix, so that q, k and v are read once for both. Sums over keys are taken as means.
    """
    d = v.shape[-1]
    mean = k.mean(dim=-2, keepdim=True)
    same, opposite = (k.transpose(-2, -1) @ v / k.shape[-2]).chunk(2, dim=-1)
    mixed = q @ torch.cat((same, opposite.roll(d, dims=-2)), dim=-1)
    normaliser = q @ torch.cat((mean, mean.roll(d, dims=-1)), dim=-2).transpose(-2, -1) + EPS
    return (mixed.unflatten(-1, (2, -1)) / normaliser.unsqueeze(-1)).flatten(-2)


@register("polaformer")
class PolaFormerAttention(Attention):
    """Polarity-aware linear attention with a learned power and a gate.

    Prefix tokens (the class token) are mixed and gated like the others; the convolution gives them zeros.

    Options:
        alpha: the power of a channel is 1 + alpha * sigmoid(learned), thus between 1 and 1 + alpha.
        kernel_size: of the depthwise convolution of the values, which is added to the output; None for no convolution.
        positional_encoding: the learned encoding of the keys, which fixes the resolution. It has M * C parameters.
    """

    takes_input = True
    takes_regions = True

    def __init__(
        self, site: Site, *, alpha: int = 4, kernel_size: int | None = 5, positional_encoding: bool = True
    ) -> None:
        super().__init__(site)
        check_kernel_size(kernel_size)
        if alpha < 1:
            raise ValueError(f"alpha={alpha} is not allowed; it takes a number from 1 up")
        if site.head_dim % 2:
            raise ValueError(f"it splits the values of each head in half, but a head here has {site.head_dim} channels")
        self.alpha = alpha
        self.power = nn.Parameter(torch.zeros(1, site.heads, 1, site.head_dim))
        self.scale = nn.Parameter(torch.zeros(1, 1, site.dim))
        self.positional_encoding = (
            nn.Parameter(torch.zeros(1, site.keys.tokens, site.dim)) if positional_encoding else None
        )
        self.g = nn.Linear(site.dim, site.dim)
        self.dwc = None if kernel_size is None else ValueConvolution(site, kernel_size)

    def features(self, x: Tensor, scale: Tensor, power: Tensor) -> Tensor:
        """Return the parts of x / scale to their powers, (B, N, C) -> (B, heads, N, 2 d): positive, then negative."""
        x = split_heads(x / scale, self.site.heads)
        # Each entry has only one sign, so one power serves both parts. The exponent is at least 1, so 0 stays 0, and
        # torch's gradients there, of x and of the exponent, are 0 and not NaN.
        x = x.sign() * x.abs() ** power
        return torch.cat((F.relu(x), F.relu(-x)), dim=-1)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        assert x is not None
        dtype = v.dtype
        gate = self.g(x)
        # Powers, and sums over thousands of keys, exceed the range of half precision: they run in float32. So does the
        # convolution, as the gate scales its gradients.
        with torch.autocast(q.device.type, enabled=False):
            wide = torch.promote_types(q.dtype, torch.float32)
            q, k, v = q.to(wide), k.to(wide), v.to(wide)
            if self.positional_encoding is not None:
                k = k + self.positional_encoding
            scale = F.softplus(self.scale.to(wide))
            power = 1 + self.alpha * self.power.to(wide).sigmoid()
            q, k = self.features(q, scale, power), self.features(k, scale, power)
            values = split_heads(v, self.site.heads)
            if regions is None:
                out = merge_heads(polarity_product(q, k, values))
            else:
                masks = (own.unsqueeze(1) for own in region_masks(regions, self.site.regions, wide))
                mixed = (polarity_product(q, k * own, values) * own for own in masks)
                out = merge_heads(sum(mixed, torch.zeros_like(values)))
            out = out if self.dwc is None else out + self.dwc(v, regions)
            return (out * gate).to(dtype)

    def naive(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        assert x is not None
        if self.positional_encoding is not None:
            k = k + self.positional_encoding
        scale = torch.log1p(torch.exp(self.scale))
        power = 1 + self.alpha / (1 + torch.exp(-self.power))
        q, k, d = q / scale, k / scale, self.site.head_dim
        mixed = []
        for head in range(self.site.heads):
            part = slice(head * d, (head + 1) * d)
            signs = [(q[..., part], k[..., part]), (-q[..., part], -k[..., part])]
            (q_pos, k_pos), (q_neg, k_neg) = [[x.clamp(min=0) ** power[0, head] for x in pair] for pair in signs]
            same = q_pos @ k_pos.transpose(1, 2) + q_neg @ k_neg.transpose(1, 2)
            opposite = q_pos @ k_neg.transpose(1, 2) + q_neg @ k_pos.transpose(1, 2)
            mixed.append(normalised(same, EPS, regions) @ v[..., part][..., : d // 2])
            mixed.append(normalised(opposite, EPS, regions) @ v[..., part][..., d // 2 :])
        out = torch.cat(mixed, dim=-1)
        if self.dwc is not None:
            out = out + self.dwc.naive(v, regions)
        return out * (x @ self.g.weight.T + self.g.bias)

    @property
    def uses_positions(self) -> bool:
        return self.dwc is not None or self.positional_encoding is not None

    def macs(self) -> Macs:
        n, m, d = self.site.queries.tokens, self.site.keys.tokens, self.site.head_dim
        # q and k have 2 d features, and two normalisers.
        macs = Macs(
            attention=self.site.regions * (2 * m * d + 2 * n * d + 4 * n) * self.site.dim,
            projections=n * self.site.dim**2,
        )
        return macs if self.dwc is None else macs + self.dwc.macs()
