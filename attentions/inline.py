"""InLine attention: injective linear attention with a local residual. Han et al., NeurIPS 2024, arXiv 2412.06590.

Linear attention divides by the sum of a query's scores, so that a query and its multiples get the same weights. Here
the mean of the scores is subtracted instead, which keeps different queries different: the weight of key j for query i
is (s q_i.k_j - s q_i.mean(k) + 1) / M, s = 1 / sqrt(d). The residual is a depthwise convolution of the values, whose
kernels are predicted for each image from the mean of its tokens.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions._contract import Attention, Given, Macs, Site
from attentions._functions import Convolution
from attentions._heads import merge_heads, region_masks, split_heads
from attentions._linear import check_kernel_size, kernels_for, linear_product, linear_product_macs, on_query_grid
from attentions._naive import convolved, mix_per_head, same_region
from attentions._paths import note
from attentions._registry import register


def injective_product(q: Tensor, k: Tensor, v: Tensor, heads: int, own: Tensor | None = None) -> Tensor:
    """Mix v with weights (q_i.k_j - q_i.mean(k) + 1) / M, in linear order: (B, N, C), for q (B, N, C), k, v (B, M, C).

    With `own`, (B, M, 1) of 1 and 0, only the keys with a 1 count.
    """
    if own is None and kernels_for(q, k, v, widest=q.shape[-1] // heads) is not None:
        mean = mean_token(v, None)
        # Values that are centred need no means of keys.
        return linear_product(q, k, v - mean, heads, normalised=False) + mean
    note("plain")
    parts = (q, k, v if own is None else v * own, mean_token(k, own), mean_token(v, own))
    q, k, v, mean_key, mean_value = (split_heads(part, heads) for part in parts)
    number = k.shape[-2] if own is None else count(own).unsqueeze(1)
    return merge_heads(q @ (k.transpose(-2, -1) @ v / number) + (1 - q @ mean_key.transpose(-2, -1)) * mean_value)


def mean_token(x: Tensor, own: Tensor | None) -> Tensor:
    """Return the mean (B, 1, C) of all tokens x (B, N, C), or of those for which `own`, (B, N, 1), is 1.

    It is in float32 where x is in half precision.
    """
    if own is None:
        return x.mean(dim=1, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
    return (x * own).sum(dim=1, keepdim=True) / count(own)


def count(own: Tensor) -> Tensor:
    """Return the number of tokens in `own` (B, N, 1), as (B, 1, 1), and at least 1: an image may lack a region."""
    return own.sum(dim=1, keepdim=True).clamp(min=1)


class LocalResidual(nn.ModuleList):
    """Depthwise convolution of the values, with kernels that two layers, grouped by heads, predict from a mean token.

    Takes v (B, M, C), in float32 or wider, and the tokens x (B, N, C), and returns (B, N, C). Prefix tokens lie outside
    the grid: they are skipped, and get zeros.
    """

    def __init__(self, site: Site, kernel_size: int) -> None:
        hidden = nn.Conv1d(site.dim, site.dim, 1, groups=site.heads)
        taps = nn.Conv1d(site.dim, site.dim * kernel_size**2, 1, groups=site.heads)
        # Named as in official checkpoints, where a GELU without parameters lies between the two.
        super().__init__((hidden, nn.GELU(), taps))
        self.site = site
        self.kernel_size = kernel_size

    def layers(self, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
        """Return weight (channels, d, 1) and bias (channels,) of both layers, in a dtype."""
        return [
            (layer.weight.to(dtype), layer.bias.to(dtype))
            for layer in self
            if isinstance(layer, nn.Conv1d) and layer.bias is not None
        ]

    def forward(self, v: Tensor, x: Tensor, regions: Tensor | None = None) -> Tensor:
        # Widened once for all regions, so that their gradients are summed in float32 if the parameters are half.
        layers = self.layers(v.dtype)
        if regions is None:
            return self.convolve(v, mean_token(x, None), layers)
        own = region_masks(regions, self.site.regions, v.dtype)
        return sum((self.convolve(v * mine, mean_token(x, mine), layers) * mine for mine in own), torch.zeros_like(v))

    def convolve(self, v: Tensor, mean: Tensor, layers: list[tuple[Tensor, Tensor]]) -> Tensor:
        hidden, taps = layers
        heads, side = self.site.heads, self.kernel_size
        kernels = F.conv1d(F.gelu(F.conv1d(mean.transpose(1, 2), *hidden, groups=heads)), *taps, groups=heads)
        kernels = kernels.reshape(len(v), -1, 1, side, side)
        grid, x = self.site.queries, on_query_grid(v, self.site)

        def plain(x: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
            # Each image has kernels of its own: the batch is put into the channels.
            image = x.transpose(1, 2).unflatten(2, grid[:2])
            rows, kernels = image.flatten(0, 1).unsqueeze(0), kernels.flatten(0, 1)
            out = F.conv2d(rows, kernels, padding=side // 2, groups=len(kernels))
            return out.view(image.shape).flatten(2).transpose(1, 2)

        given = (x, kernels, torch.zeros(x.shape[-1], dtype=x.dtype, device=x.device))
        chosen = kernels_for(*given)
        note("plain" if chosen is None else chosen.PATH)
        out = plain(*given) if chosen is None else Convolution.apply(*given, None, grid[:2], chosen, plain)
        return F.pad(out, (0, 0, grid.prefix, 0)) if grid.prefix else out

    def naive(self, v: Tensor, mean: Tensor, regions: Tensor | None = None) -> Tensor:
        """Return the same for one image, (1, M, C) and (C,), head by head and as a sum over taps."""
        values = dict(self.named_parameters())
        d, kernels = self.site.head_dim, []
        for head in range(self.site.heads):
            part = slice(head * d, (head + 1) * d)
            hidden = values["0.weight"][part, :, 0] @ mean[part] + values["0.bias"][part]
            hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
            part = slice(head * d * self.kernel_size**2, (head + 1) * d * self.kernel_size**2)
            kernels.append(values["2.weight"][part, :, 0] @ hidden + values["2.bias"][part])
        weight = torch.cat(kernels).reshape(self.site.dim, 1, self.kernel_size, self.kernel_size)
        return convolved(v, weight, torch.zeros_like(mean), self.site, regions)

    def macs(self) -> Macs:
        grid, taps = self.site.queries, self.kernel_size**2
        predicted = (1 + taps) * self.site.head_dim
        return Macs(convolutions=self.site.regions * (predicted + grid.height * grid.width * taps) * self.site.dim)


@register("inline")
class InLineAttention(Attention):
    """InLine attention. The weights of a query sum to 1, but may be negative, and are not bounded.

    The mean token is the mean of `x` over all tokens, prefix tokens included. Prefix tokens are also among the queries
    and keys, but get no residual.

    Options:
        feature_map: of q and k: "identity" as in the official models, or "relu".
        kernel_size: of the local residual, odd; None for no residual.
    """

    takes_input = True
    takes_regions = True

    def __init__(
        self, site: Site, *, feature_map: Literal["identity", "relu"] = "identity", kernel_size: int | None = 3
    ) -> None:
        super().__init__(site)
        check_kernel_size(kernel_size)
        self.feature_map = feature_map
        self.residual = None if kernel_size is None else LocalResidual(site, kernel_size)

    def features(self, x: Tensor) -> Tensor:
        return x if self.feature_map == "identity" else F.relu(x)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        assert x is not None
        dtype = v.dtype
        # Unbounded products exceed the range of half precision, and may cancel: all of it runs in float32.
        with torch.autocast(q.device.type, enabled=False):
            wide = torch.promote_types(q.dtype, torch.float32)
            q, k, v = (tokens.to(wide) for tokens in (q, k, v))
            q, k = self.features(q) * self.site.head_dim**-0.5, self.features(k)
            if regions is None:
                out = injective_product(q, k, v, self.site.heads)
            else:
                own = region_masks(regions, self.site.regions, wide)
                mixed = (injective_product(q, k, v, self.site.heads, mine) * mine for mine in own)
                out = sum(mixed, torch.zeros_like(v))
            return (out if self.residual is None else out + self.residual(v, x, regions)).to(dtype)

    def naive(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        assert x is not None
        if self.feature_map == "relu":
            q, k = q.clamp(min=0), k.clamp(min=0)

        def weights(q: Tensor, k: Tensor, head: int) -> Tensor:
            scores = torch.einsum("bnc,bmc->bnm", q, k) / q.shape[-1] ** 0.5
            own = torch.ones_like(scores) if regions is None else same_region(regions)
            number = own.sum(dim=-1, keepdim=True)
            return own * (scores - (scores * own).sum(dim=-1, keepdim=True) / number + 1) / number

        out = mix_per_head(q, k, v, self.site.heads, weights)
        if self.residual is None:
            return out
        residuals = []
        for entry in range(v.shape[0]):
            alone = None if regions is None else regions[entry : entry + 1]
            labels = torch.zeros(x.shape[1]) if regions is None else regions[entry]
            total = torch.zeros_like(out[:1])
            for label in labels.unique():
                own = labels == label
                local = self.residual.naive(v[entry : entry + 1], x[entry, own].sum(dim=0) / own.sum(), alone)
                total = total + local * own[:, None]
            residuals.append(total)
        return out + torch.cat(residuals)

    @property
    def uses_positions(self) -> bool:
        return self.residual is not None

    def macs(self) -> Macs:
        macs = linear_product_macs(self.site)
        return macs if self.residual is None else macs + self.residual.macs()
