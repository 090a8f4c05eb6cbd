"""Linear attention: phi(q) (phi(k)^T v) / (phi(q) sum phi(k)). Katharopoulos et al., arXiv 2006.16236.

With the relu feature map it is the "vanilla linear attention" of the FLatten paper (arXiv 2308.00442, table 4). A
depthwise convolution of the values may be added; `enhanced` is the multi-scale attention of EfficientViT, whose
convolutions produce further q, k and v.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions._contract import Attention, Given, Macs, Site
from attentions._linear import (
    AS_GIVEN,
    EPS,
    RECTIFIED,
    ValueConvolution,
    check_kernel_size,
    linear_product,
    linear_product_macs,
)
from attentions._naive import mix_per_head, normalised
from attentions._registry import register


@register("linear")
class LinearAttention(Attention):
    """Kernel attention in linear order; the feature map acts on each channel, so that heads do not matter to it.

    Options:
        feature_map: "relu", or "elu" for elu(x) + 1.
        kernel_size: of the depthwise convolution of the values, which is added to the output; None for no convolution.
    """

    takes_regions = True

    def __init__(
        self, site: Site, *, feature_map: Literal["relu", "elu"] = "relu", kernel_size: int | None = None
    ) -> None:
        super().__init__(site)
        check_kernel_size(kernel_size)
        self.feature_map = feature_map
        self.dwc = None if kernel_size is None else ValueConvolution(site, kernel_size)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        local = None if self.dwc is None else self.dwc(v, regions)
        # Sums over thousands of keys exceed the range and resolution of half precision: they run in float32.
        with torch.autocast(q.device.type, enabled=False):
            features = RECTIFIED
            if self.feature_map == "elu":
                wide = torch.promote_types(q.dtype, torch.float32)
                q, k, features = F.elu(q.to(wide)) + 1, F.elu(k.to(wide)) + 1, AS_GIVEN
            given = (q, k, v, self.site.heads, regions, self.site.regions)
            return linear_product(*given, features=features, onto=local).to(v.dtype)

    def naive(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        def features(x: Tensor) -> Tensor:
            return x.clamp(min=0) if self.feature_map == "relu" else torch.where(x > 0, x + 1, x.exp())

        def weights(q: Tensor, k: Tensor, head: int) -> Tensor:
            return normalised(torch.einsum("bnc,bmc->bnm", features(q), features(k)), EPS, regions)

        out = mix_per_head(q, k, v, self.site.heads, weights)
        return out if self.dwc is None else out + self.dwc.naive(v, regions)

    @property
    def uses_positions(self) -> bool:
        return self.dwc is not None

    def macs(self) -> Macs:
        macs = linear_product_macs(self.site)
        return macs if self.dwc is None else macs + self.dwc.macs()
