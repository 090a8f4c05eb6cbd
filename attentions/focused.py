"""Focused linear attention: FLatten Transformer, Han et al., ICCV 2023, arXiv 2308.00442.

Linear attention whose feature map sharpens the direction of a token, phi(x) = |x| x^p / |x^p| on relu(x), and a
depthwise convolution of the values, which restores the rank of the attention map. Beyond the paper's equations, as in
the official implementation, q and k are divided by a learned softplus scale per channel, and a learned positional
encoding is added to k.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions._contract import Attention, Given, Macs, Site
from attentions._functions import FOCUSED
from attentions._linear import (
    EPS,
    FeatureMap,
    ValueConvolution,
    check_kernel_size,
    linear_product,
    linear_product_macs,
)
from attentions._naive import mix_per_head, normalised
from attentions._registry import register


@register("focused")
class FocusedAttention(Attention):
    """Focused linear attention. The focusing function acts on all channels of a token, before heads are split.

    Options:
        focusing_factor: the power p; 1 leaves directions as they are.
        kernel_size: of the depthwise convolution of the values, which is added to the output; None for no convolution.
        positional_encoding: the learned encoding of the keys, which fixes the resolution. It has M * C parameters; the
            second row of the paper's module ablation (5.7 M) does not include it.
    """

    takes_regions = True

    def __init__(
        self,
        site: Site,
        *,
        focusing_factor: int = 3,
        kernel_size: int | None = 5,
        positional_encoding: bool = True,
    ) -> None:
        super().__init__(site)
        check_kernel_size(kernel_size)
        if focusing_factor < 1:
            raise ValueError(f"focusing_factor={focusing_factor} is not allowed; it takes a number from 1 up")
        self.focusing_factor = focusing_factor
        self.scale = nn.Parameter(torch.zeros(1, 1, site.dim))
        self.positional_encoding = (
            nn.Parameter(torch.zeros(1, site.keys.tokens, site.dim)) if positional_encoding else None
        )
        self.dwc = None if kernel_size is None else ValueConvolution(site, kernel_size)

    def focus(self, x: Tensor, scale: Tensor) -> Tensor:
        """Return phi(x / scale) for (B, N, C) and (C): it keeps a token's length, and sharpens its direction."""
        x = (F.relu(x) + EPS) / scale
        # The direction does not depend on the scale of x, so x may be divided by its largest channel before the power,
        # which keeps p = 32 within the range of float32. For the same reason no gradient needs to flow through it.
        power = (x / x.detach().amax(dim=-1, keepdim=True)) ** self.focusing_factor
        return power * (x.norm(dim=-1, keepdim=True) / power.norm(dim=-1, keepdim=True))

    def features(self, q: Tensor, k: Tensor, scale: Given, encoding: Given) -> tuple[Tensor, Tensor]:
        assert scale is not None
        return self.focus(q, scale), self.focus(k if encoding is None else k + encoding, scale)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        local = None if self.dwc is None else self.dwc(v, regions)
        # Powers, and sums over thousands of keys, exceed the range of half precision: they run in float32.
        with torch.autocast(q.device.type, enabled=False):
            wide = torch.promote_types(q.dtype, torch.float32)
            # Widened once for both, so that their gradients are summed in float32 if the parameter is half.
            scale = F.softplus(self.scale.to(wide))[0, 0]
            encoding = None if self.positional_encoding is None else self.positional_encoding[0].to(wide)
            features = FeatureMap(self.features, FOCUSED, self.focusing_factor, scale, encoding)
            given = (q, k, v, self.site.heads, regions, self.site.regions)
            return linear_product(*given, features=features, onto=local).to(v.dtype)

    def naive(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        p = self.focusing_factor
        if self.positional_encoding is not None:
            k = k + self.positional_encoding

        def phi(x: Tensor) -> Tensor:
            x = (x.clamp(min=0) + EPS) / torch.log1p(torch.exp(self.scale))
            return (x**p) * x.square().sum(-1, keepdim=True).sqrt() / (x**p).square().sum(-1, keepdim=True).sqrt()

        def weights(q: Tensor, k: Tensor, head: int) -> Tensor:
            return normalised(torch.einsum("bnc,bmc->bnm", q, k), EPS, regions)

        out = mix_per_head(phi(q), phi(k), v, self.site.heads, weights)
        return out if self.dwc is None else out + self.dwc.naive(v, regions)

    @property
    def uses_positions(self) -> bool:
        return self.dwc is not None or self.positional_encoding is not None

    def macs(self) -> Macs:
        macs = linear_product_macs(self.site)
        return macs if self.dwc is None else macs + self.dwc.macs()
