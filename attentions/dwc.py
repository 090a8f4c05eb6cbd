"""Depthwise convolution of the values alone: an ablation that table 4 of FLatten (arXiv 2308.00442) does not have.

No token attends to another: this is what remains of focused attention without the product of q, k and v. The host still
projects q and k, so that only the mixing differs, but they are not used.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions._contract import Attention, Given, Macs, Site
from attentions._linear import ValueConvolution, check_kernel_size
from attentions._registry import register


@register("dwc")
class ValueConvolutionOnly(Attention):
    """The depthwise convolution branch by itself.

    A prefix token (the class token) is not on the grid, so the convolution would never show it the image: it reads the
    mean of the values instead.

    Options:
        kernel_size: of the depthwise convolution, odd.
    """

    takes_regions = True
    reads = "v"

    def __init__(self, site: Site, *, kernel_size: int = 5) -> None:
        super().__init__(site)
        check_kernel_size(kernel_size)
        self.dwc = ValueConvolution(site, kernel_size)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        out = self.dwc(v, regions)
        prefix = self.site.queries.prefix
        if prefix == 0:
            return out
        mean = v.mean(dim=1, keepdim=True).expand(-1, prefix, -1)
        return out + F.pad(mean, (0, 0, 0, out.shape[1] - prefix))

    def naive(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        out = self.dwc.naive(v, regions)
        prefix = self.site.queries.prefix
        mean = v.sum(dim=1, keepdim=True) / v.shape[1]
        return torch.cat((mean.expand(-1, prefix, -1), out[:, prefix:]), dim=1)

    @property
    def uses_positions(self) -> bool:
        return True

    def macs(self) -> Macs:
        return self.dwc.macs()
