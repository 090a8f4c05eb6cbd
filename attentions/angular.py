"""Linear-angular attention: weights 1/2 + q.k / pi. Castling-ViT, You et al., CVPR 2023, arXiv 2211.10526.

The similarity of two tokens is 1 - angle / pi. For q and k of length 1 its series is 1/2 + q.k / pi plus odd powers
of q.k: the linear terms are kept, and the rest is left to a depthwise convolution of the values and, in training
only, to a sparse softmax attention. The paper's equations omit the normalisation; here, as in other kernel attentions,
weights are divided by their sum. The authors' published code differs: it adds half of a token's own value, divides the
output by its length, and convolves along the tokens instead of on their grid.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions._contract import Attention, Given, Macs, Site
from attentions._heads import merge_heads, region_masks, scores, split_heads
from attentions._linear import ValueConvolution, check_kernel_size, linear_product_macs
from attentions._naive import mix_per_head, normalised, same_region
from attentions._registry import register


@register("angular")
class LinearAngularAttention(Attention):
    """Linear-angular attention; q and k are scaled to length 1 in each head.

    No weight is below 1/2 - 1/pi, so the sum of weights, the divisor, is never near zero.

    Options:
        kernel_size: of the depthwise convolution of the values, which is added to the output; None for no convolution.
            It runs on the grid, as in the other attentions here, so that only the kernel differs.
        threshold: of the auxiliary softmax attention, 0.02 in the paper; None for none. In training mode, the weights
            of softmax(q k^T / sqrt(d)) above the threshold are added to the weights; this takes time and memory
            quadratic in the tokens. In evaluation mode it is omitted, and `macs` does not count it.
    """

    takes_regions = True

    def __init__(self, site: Site, *, kernel_size: int | None = 5, threshold: float | None = None) -> None:
        super().__init__(site)
        check_kernel_size(kernel_size)
        if threshold is not None and not 0 < threshold < 1:
            raise ValueError(f"threshold={threshold} is not allowed; it takes None or a number between 0 and 1")
        self.threshold = threshold
        self.dwc = None if kernel_size is None else ValueConvolution(site, kernel_size)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        # Norms, and sums over thousands of keys, exceed the range of half precision: they run in float32.
        with torch.autocast(q.device.type, enabled=False):
            wide = torch.promote_types(q.dtype, torch.float32)
            q, k, values = (split_heads(x.to(wide), self.site.heads) for x in (q, k, v))
            mixed = self._linear(q, k, values, regions)
            if self.threshold is not None and self.training:
                mixed = mixed + self._sparse(q, k, values, regions, self.threshold)
            out = merge_heads(mixed).to(v.dtype)
        return out if self.dwc is None else out + self.dwc(v, regions)

    def _linear(self, q: Tensor, k: Tensor, v: Tensor, regions: Tensor | None) -> Tensor:
        """Return the linear-angular part, (B, heads, N, d), with sums over keys taken as means."""
        q, k = F.normalize(q, dim=-1) / math.pi, F.normalize(k, dim=-1)

        def sums(k: Tensor, v: Tensor, share: Tensor | float) -> tuple[Tensor, Tensor]:
            """Return summed values and weights for the given share of the keys; the others are zero."""
            keys_values = k.transpose(-2, -1) @ (v / k.shape[-2])
            weights = share / 2 + q @ k.mean(dim=-2, keepdim=True).transpose(-2, -1)
            return v.mean(dim=-2, keepdim=True) / 2 + q @ keys_values, weights

        if regions is None:
            mixed, weights = sums(k, v, 1.0)
            return mixed / weights
        own = [mine.unsqueeze(1) for mine in region_masks(regions, self.site.regions, q.dtype)]
        parts = [(*sums(k * mine, v * mine, mine.mean(dim=-2, keepdim=True)), mine) for mine in own]
        # Divided only at the end: if a batch entry lacks a region, the sum of that region is zero.
        mixed = sum((values * mine for values, _, mine in parts), torch.zeros_like(v))
        return mixed / sum((weights * mine for _, weights, mine in parts), torch.zeros_like(v[..., :1]))

    @staticmethod
    def _sparse(q: Tensor, k: Tensor, v: Tensor, regions: Tensor | None, threshold: float) -> Tensor:
        """Return the auxiliary softmax attention, (B, heads, N, d), with only the weights above the threshold."""
        logits = scores(q, k)
        if regions is not None:
            logits = logits.masked_fill((regions[:, :, None] != regions[:, None, :])[:, None], -math.inf)
        weights = logits.softmax(dim=-1)
        return (weights * (weights > threshold)) @ v

    def naive(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        def unit(x: Tensor) -> Tensor:
            return x / x.square().sum(dim=-1, keepdim=True).sqrt()

        def weights(q: Tensor, k: Tensor, head: int) -> Tensor:
            angular = normalised(0.5 + torch.einsum("bnc,bmc->bnm", unit(q), unit(k)) / math.pi, 0.0, regions)
            if self.threshold is None or not self.training:
                return angular
            softmax = (torch.einsum("bnc,bmc->bnm", q, k) / math.sqrt(q.shape[-1])).exp()
            if regions is not None:
                softmax = softmax * same_region(regions)
            softmax = softmax / softmax.sum(dim=-1, keepdim=True)
            return angular + torch.where(softmax > self.threshold, softmax, 0.0)

        out = mix_per_head(q, k, v, self.site.heads, weights)
        return out if self.dwc is None else out + self.dwc.naive(v, regions)

    @property
    def uses_positions(self) -> bool:
        return self.dwc is not None

    def macs(self) -> Macs:
        macs = linear_product_macs(self.site)
        return macs if self.dwc is None else macs + self.dwc.macs()
