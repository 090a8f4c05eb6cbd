"""Performer: linear attention with random features of the softmax kernel, FAVOR+. Choromanski et al., arXiv 2009.14794.

B batch, N queries, M keys, C channels, h heads, d = C / h, m random features per head.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions._contract import Attention, Given, Macs, Site
from attentions._linear import EPS, linear_product, linear_product_macs
from attentions._naive import mix_per_head, normalised, same_region
from attentions._registry import register

FLOOR = {"softmax": 1e-6, "relu": 1e-3}
"""What is added to each feature, by kernel, so that every token has some weight."""


def directions(features: int, dim: int, orthogonal: bool) -> Tensor:
    """Return random directions (m, d), each normal; orthogonal to one another within blocks of d, or independent."""
    normal = torch.randn(features, dim)
    if not orthogonal:
        return normal
    blocks = [nn.init.orthogonal_(torch.empty(dim, dim)) for _ in range(0, features, dim)]
    # Orthogonal directions have length 1, normal ones a random length.
    return torch.cat(blocks)[:features] * normal.norm(dim=-1, keepdim=True)


@register("performer")
class PerformerAttention(Attention):
    """Positive random features, whose products are those of softmax attention in expectation.

    phi(x) = exp(w.x - |x|^2 / 2) for each random direction w, on x / d^(1/4), so that phi(q).phi(k) estimates
    m exp(q.k / sqrt(d)). The directions are drawn when the module is built, are the same for all heads, are part of its
    state, and are not redrawn in training. Exponents are taken relative to the largest of a query, and to the largest
    of all keys of a head (and region): these factors cancel in the output, except against the floor of the features.

    Options:
        features: m, the number of random directions; None for d log(d), rounded.
        orthogonal: make the directions orthogonal, which lowers the variance; False for independent ones.
        kernel: "softmax", or "relu" for the features relu(w.x), the paper's generalised attention.
    """

    takes_regions = True
    projection: Tensor

    def __init__(
        self,
        site: Site,
        *,
        features: int | None = None,
        orthogonal: bool = True,
        kernel: Literal["softmax", "relu"] = "softmax",
    ) -> None:
        super().__init__(site)
        if features is not None and features < 1:
            raise ValueError(f"features={features} is not allowed; it takes None or a number from 1 up")
        self.features = max(1, round(site.head_dim * math.log(site.head_dim))) if features is None else features
        self.kernel = kernel
        self.register_buffer("projection", directions(self.features, site.head_dim, orthogonal))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the heads of x / d^(1/4), (B, N, h, d), and their products with the directions, (B, N, h, m)."""
        x = x.unflatten(-1, (self.site.heads, -1)) * self.site.head_dim**-0.25
        return x, F.linear(x, self.projection.to(x.dtype))

    def peaks(self, exponents: Tensor, regions: Tensor | None) -> Tensor:
        """Return the largest exponent (B, M, h, m) over a head's keys, or over those in the same region, if any."""
        largest = exponents.amax(dim=-1, keepdim=True)
        if regions is None:
            return largest.amax(dim=1, keepdim=True)
        peaks = largest
        for region in range(self.site.regions):
            mine = (regions == region)[..., None, None]
            peaks = torch.where(mine, largest.masked_fill(~mine, -math.inf).amax(dim=1, keepdim=True), peaks)
        return peaks

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        # Exponentials, and sums over thousands of keys, exceed the range of half precision: they run in float32.
        with torch.autocast(q.device.type, enabled=False):
            wide = torch.promote_types(q.dtype, torch.float32)
            (_, q), (k_heads, k) = self.project(q.to(wide)), self.project(k.to(wide))
            if self.kernel == "relu":
                q, k = F.relu(q), F.relu(k)
            else:
                # A query's |q|^2 is the same for all of its features, and cancels with their largest.
                k = k - k_heads.square().sum(dim=-1, keepdim=True) / 2
                q = (q - q.amax(dim=-1, keepdim=True)).exp()
                k = (k - self.peaks(k, regions)).exp()
            q, k = ((features + FLOOR[self.kernel]).flatten(-2) for features in (q, k))
            return linear_product(q, k, v.to(wide), self.site.heads, regions, self.site.regions).to(v.dtype)

    def naive(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        root = math.sqrt(q.shape[-1] // self.site.heads)

        def products(x: Tensor) -> Tensor:
            return torch.einsum("bnc,fc->bnf", x, self.projection) / math.sqrt(root)

        def exponents(x: Tensor) -> Tensor:
            return products(x) - x.square().sum(dim=-1, keepdim=True) / root / 2

        def weights(q: Tensor, k: Tensor, head: int) -> Tensor:
            if self.kernel == "relu":
                ours, theirs = products(q).clamp(min=0), products(k).clamp(min=0)
            else:
                ours, theirs = exponents(q), exponents(k)
                # (B, M, M): for each key, the largest exponents of the keys that it may mix with.
                others = theirs.amax(dim=-1)[:, None, :].expand(-1, k.shape[1], -1)
                if regions is not None:
                    others = others.masked_fill(same_region(regions) == 0, -math.inf)
                ours = (ours - ours.amax(dim=-1, keepdim=True)).exp()
                theirs = (theirs - others.amax(dim=-1, keepdim=True)).exp()
            ours, theirs = ours + FLOOR[self.kernel], theirs + FLOOR[self.kernel]
            return normalised(torch.einsum("bnf,bmf->bnm", ours, theirs), EPS, regions)

        return mix_per_head(q, k, v, self.site.heads, weights)

    def macs(self) -> Macs:
        site = self.site
        projected = (site.queries.tokens + site.keys.tokens) * site.dim * self.features
        return Macs(projections=projected) + linear_product_macs(site, self.features)
