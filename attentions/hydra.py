"""Hydra attention: phi(q) * (sum over tokens of phi(k) * v). Bolya et al., ECCV 2022 workshops, arXiv 2209.07484.

Linear attention with as many heads as channels: a query takes a single vector from the image, by which its channels
are multiplied. The kernel is the cosine similarity, phi(x) = x / |x| over all channels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions._contract import Attention, Given, Macs
from attentions._heads import region_masks
from attentions._naive import same_region
from attentions._registry import register


@register("hydra")
class HydraAttention(Attention):
    """Hydra attention with the cosine kernel, over all channels, so that heads do not matter.

    As in the paper, weights are not divided by their sum. It has no matrix products: its 2 M C + N C operations are
    elementwise, which this benchmark's multiply-adds do not count.
    """

    takes_regions = True

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        # Norms, and sums over thousands of keys, exceed the range of half precision: they run in float32.
        with torch.autocast(q.device.type, enabled=False):
            wide = torch.promote_types(q.dtype, torch.float32)
            q, k = F.normalize(q.to(wide), dim=-1), F.normalize(k.to(wide), dim=-1)
            keys_values = k * v
            if regions is None:
                return (q * keys_values.sum(dim=1, keepdim=True)).to(v.dtype)
            own = region_masks(regions, self.site.regions, wide)
            sums = [(keys_values * mine).sum(dim=1, keepdim=True) * mine for mine in own]
            return (q * sum(sums, torch.zeros_like(q))).to(v.dtype)

    def naive(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        q = q / q.square().sum(dim=-1, keepdim=True).sqrt()
        k = k / k.square().sum(dim=-1, keepdim=True).sqrt()
        same = 1.0 if regions is None else same_region(regions)
        heads = [(q[:, :, None, c] * k[:, None, :, c] * same) @ v[:, :, c, None] for c in range(self.site.dim)]
        return torch.cat(heads, dim=-1)

    def macs(self) -> Macs:
        return Macs()
