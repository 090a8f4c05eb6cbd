"""Nystromformer: softmax attention through a few landmarks. Xiong et al., AAAI 2021, arXiv 2102.03902.

B batch, N queries, M keys, C channels, h heads, d = C / h, m landmarks.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions._contract import Attention, Given, Macs, Site
from attentions._heads import merge_heads, split_heads
from attentions._linear import ValueConvolution, check_kernel_size
from attentions._naive import mix_per_head
from attentions._registry import register


def pseudo_inverse(maps: Tensor, iterations: int) -> Tensor:
    """Return the Moore-Penrose inverse of maps (..., m, m) whose rows sum to 1.

    The third-order iteration of Razavi et al. starts from the transpose, divided by the product of the largest row
    sum, 1, and the largest column sum.
    """
    unit = torch.eye(maps.shape[-1], dtype=maps.dtype, device=maps.device)
    inverse = maps.transpose(-2, -1) / maps.sum(dim=-2).amax(dim=-1)[..., None, None]
    for _ in range(iterations):
        product = maps @ inverse
        inverse = inverse @ (13 * unit - product @ (15 * unit - product @ (7 * unit - product))) / 4
    return inverse


@register("nystromformer")
class NystromformerAttention(Attention):
    """Softmax attention through landmarks of the queries and the keys.

    softmax(q k'^T) pinv(softmax(q' k'^T)) softmax(q' k^T) v + conv(v), with landmarks q' and k', and all scores
    divided by sqrt(d). Landmarks are means of m segments of the flattened tokens, prefix tokens included. Segment i of
    n tokens runs from floor(i n / m) to ceil((i + 1) n / m): where m does not divide n, neighbours share a token. The
    paper convolves values along their sequence, with one kernel per head; here they lie on a grid, and the convolution
    is the one of the linear attentions.

    Options:
        landmarks: m; at most the number of queries or keys is used.
        iterations: of the pseudo-inverse. Each magnifies rounding errors up to 13 / 4 times: in float32, where tokens
            are nearly alike, the gradients of q and k are noise with 20 iterations, and accurate to 2e-5 with 6.
        kernel_size: of the depthwise convolution of the values, which is added to the output; None for no convolution.
    """

    def __init__(self, site: Site, *, landmarks: int = 64, iterations: int = 6, kernel_size: int | None = 3) -> None:
        super().__init__(site)
        check_kernel_size(kernel_size)
        for name, value in (("landmarks", landmarks), ("iterations", iterations)):
            if value < 1:
                raise ValueError(f"{name}={value} is not allowed; it takes a number from 1 up")
        self.landmarks = min(landmarks, site.queries.tokens, site.keys.tokens)
        self.iterations = iterations
        self.dwc = None if kernel_size is None else ValueConvolution(site, kernel_size)

    def means(self, x: Tensor) -> Tensor:
        """Return the segment means of x (B, N, C): (B, h, d, m)."""
        return F.adaptive_avg_pool1d(x.transpose(1, 2), self.landmarks).unflatten(1, (self.site.heads, -1))

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        # The inverse magnifies rounding errors, and sums over thousands of keys need more than half precision.
        with torch.autocast(q.device.type, enabled=False):
            wide = torch.promote_types(q.dtype, torch.float32)
            q, k = q.to(wide) * self.site.head_dim**-0.5, k.to(wide)
            landmarks_q, landmarks_k = self.means(q).transpose(-2, -1), self.means(k)
            heads_q, heads_k, heads_v = (split_heads(x, self.site.heads) for x in (q, k, v.to(wide)))
            inverse = pseudo_inverse((landmarks_q @ landmarks_k).softmax(dim=-1), self.iterations)
            gathered = (landmarks_q @ heads_k.transpose(-2, -1)).softmax(dim=-1) @ heads_v
            out = merge_heads((heads_q @ landmarks_k).softmax(dim=-1) @ (inverse @ gathered)).to(v.dtype)
        return out if self.dwc is None else out + self.dwc(v)

    def naive(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        m = self.landmarks

        def means(x: Tensor) -> Tensor:
            n = x.shape[1]
            segments = [x[:, i * n // m : math.ceil((i + 1) * n / m)] for i in range(m)]
            return torch.stack([segment.sum(dim=1) / segment.shape[1] for segment in segments], dim=1)

        def attention(q: Tensor, k: Tensor) -> Tensor:
            scores = torch.einsum("bnc,bmc->bnm", q, k) / math.sqrt(q.shape[-1])
            return scores.exp() / scores.exp().sum(dim=-1, keepdim=True)

        def inverse(a: Tensor) -> Tensor:
            z = a.T / (a.sum(dim=0).max() * a.sum(dim=1).max())
            for _ in range(self.iterations):
                z = (13 * z - 15 * z @ a @ z + 7 * z @ a @ z @ a @ z - z @ a @ z @ a @ z @ a @ z) / 4
            return z

        def weights(q: Tensor, k: Tensor, head: int) -> Tensor:
            inverses = torch.stack([inverse(a) for a in attention(means(q), means(k))])
            return attention(q, means(k)) @ inverses @ attention(means(q), k)

        out = mix_per_head(q, k, v, self.site.heads, weights)
        return out if self.dwc is None else out + self.dwc.naive(v)

    @property
    def uses_positions(self) -> bool:
        # As many landmarks as tokens are the tokens themselves, and a single one is the mean of all.
        tokens = max(self.site.queries.tokens, self.site.keys.tokens)
        return self.dwc is not None or 1 < self.landmarks < tokens

    def macs(self) -> Macs:
        site, m = self.site, self.landmarks
        maps = 2 * m * (site.queries.tokens + site.keys.tokens + m) * site.dim
        macs = Macs(attention=maps + 4 * self.iterations * m**3 * site.heads)
        return macs if self.dwc is None else macs + self.dwc.macs()
