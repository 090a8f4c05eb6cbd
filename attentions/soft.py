"""SOFT: attention without softmax, a Gaussian kernel of low rank. Lu et al., NeurIPS 2021, arXiv 2110.11945.

B batch, N queries, M keys, C channels, h heads, d = C / h, m landmarks.
"""

import math

import torch
from torch import Tensor

from attentions._contract import Attention, Given, Macs, Site
from attentions._heads import merge_heads, split_heads
from attentions._linear import pooled
from attentions._naive import cell_means, mix_per_head
from attentions._registry import register


def gaussian(x: Tensor, y: Tensor) -> Tensor:
    """Return exp(-|x_i - y_j|^2 / (2 sqrt(d))) for x (..., N, d) and y (..., M, d): (..., N, M)."""
    lengths = x.square().sum(dim=-1, keepdim=True) + y.square().sum(dim=-1).unsqueeze(-2)
    # For equal vectors the difference of sums may be below zero, and far below if they are long.
    distances = (lengths - 2 * x @ y.transpose(-2, -1)).clamp(min=0)
    return (distances * (-0.5 * x.shape[-1] ** -0.5)).exp()


def pseudo_inverse(kernel: Tensor, iterations: int) -> Tensor:
    """Return the Moore-Penrose inverse of symmetric kernels (..., m, m) without negative eigenvalues.

    The Newton-Raphson iteration starts from the kernel divided by its squared 1-norm, which converges for every kernel.
    """
    inverse = kernel / kernel.sum(dim=-2).amax(dim=-1)[..., None, None].square()
    for _ in range(iterations):
        inverse = 2 * inverse - inverse @ kernel @ inverse
    return inverse


@register("soft")
class SoftAttention(Attention):
    """A Gaussian kernel in place of softmax, at low rank through landmarks.

    K(q, l) pinv(K(l, l)) K(l, k) v with the Gaussian kernel K, and landmarks l pooled from the queries. The paper
    projects queries and keys by one matrix, so that q = k and the map is symmetric; here the host projects them by two.
    With q = k it is the paper's attention; otherwise the landmarks of the queries also represent the keys, which keeps
    the inverted kernel symmetric, with ones on its diagonal. Weights are not normalised, as in the paper. Landmarks are
    means on the grid, without the prefix tokens.

    Options:
        side: the grid is pooled to side * side landmarks, or to its own height or width where that is less.
        iterations: of the pseudo-inverse. Each at worst doubles rounding errors: in float32, where tokens are nearly
            alike, the gradients of q are accurate to 2e-2 with the published 20, and to 2e-5 with 10.
    """

    def __init__(self, site: Site, *, side: int = 7, iterations: int = 20) -> None:
        super().__init__(site)
        for name, value in (("side", side), ("iterations", iterations)):
            if value < 1:
                raise ValueError(f"{name}={value} is not allowed; it takes a number from 1 up")
        self.pooled = (min(side, site.queries.height), min(side, site.queries.width))
        self.iterations = iterations

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        # The inverse magnifies rounding errors, and sums over thousands of keys exceed the range of half precision.
        with torch.autocast(q.device.type, enabled=False):
            wide = torch.promote_types(q.dtype, torch.float32)
            q = q.to(wide)
            landmarks = pooled(q, self.site.queries, self.pooled)
            landmarks, q, k, values = (split_heads(x, self.site.heads) for x in (landmarks, q, k.to(wide), v.to(wide)))
            inverse = pseudo_inverse(gaussian(landmarks, landmarks), self.iterations)
            out = gaussian(q, landmarks) @ (inverse @ (gaussian(landmarks, k) @ values))
            return merge_heads(out).to(v.dtype)

    def naive(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        def similarity(x: Tensor, y: Tensor) -> Tensor:
            differences = x[:, :, None, :] - y[:, None, :, :]
            return (-differences.square().sum(dim=-1) / (2 * math.sqrt(x.shape[-1]))).exp()

        def inverse(a: Tensor) -> Tensor:
            z = a / a.abs().sum(dim=0).max() ** 2
            for _ in range(self.iterations):
                z = 2 * z - z @ a @ z
            return z

        def weights(q: Tensor, k: Tensor, head: int) -> Tensor:
            centres = cell_means(q, self.site.queries, self.pooled)
            inverses = torch.stack([inverse(a) for a in similarity(centres, centres)])
            return similarity(q, centres) @ inverses @ similarity(centres, k)

        return mix_per_head(q, k, v, self.site.heads, weights)

    @property
    def uses_positions(self) -> bool:
        height, width, prefix = self.site.queries
        # With one landmark, or one per token, the positions of tokens do not matter.
        return prefix > 0 or self.pooled not in ((1, 1), (height, width))

    def macs(self) -> Macs:
        site, m = self.site, math.prod(self.pooled)
        maps = m * (2 * site.queries.tokens + 2 * site.keys.tokens + 2 * m) * site.dim
        return Macs(attention=maps + 2 * self.iterations * m**3 * site.heads)
