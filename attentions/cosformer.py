"""cosFormer: linear attention weighted by the cosine of a distance. Qin et al., ICLR 2022, arXiv 2202.08791.

B batch, N queries, M keys, C channels, h heads, d = C / h.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions._contract import Attention, Given, Grid, Macs, Site
from attentions._linear import EPS, linear_product, linear_product_macs
from attentions._naive import mix_per_head, normalised
from attentions._positions import positions
from attentions._registry import register


def angles(grid: Grid, on: Grid) -> Tensor:
    """Return angles of the tokens of `grid`, (tokens, 1): from 0 to a right angle over all tokens of `on`, in order."""
    rows, columns = positions(grid, on).unbind(dim=-1)
    places = torch.cat((torch.arange(grid.prefix, dtype=torch.float64), on.prefix + rows * on.width + columns))
    return (places * (math.pi / 2 / on.tokens)).unsqueeze(-1).float()


@register("cosformer")
class CosformerAttention(Attention):
    """Linear attention with relu features, weighted by the cosine of a distance.

    Weights are relu(q_i).relu(k_j) cos(pi / 2 * (i - j) / N) over their sum, where i and j are positions in the
    sequence of the flattened queries, prefix tokens first. Keys on a grid of their own take the positions that the
    centres of their cells have in that sequence. The cosine of a difference is a product of two features per channel,
    relu(x) cos and relu(x) sin, so the order stays linear.
    """

    takes_regions = True
    query_angles: Tensor
    key_angles: Tensor

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.register_buffer("query_angles", angles(site.queries, site.queries), persistent=False)
        self.register_buffer("key_angles", angles(site.keys, site.queries), persistent=False)

    def features(self, x: Tensor, angles: Tensor) -> Tensor:
        """Return cosine and sine features of x (B, N, C), side by side in each head: (B, N, 2C)."""
        x, angles = F.relu(x).unflatten(-1, (self.site.heads, -1)), angles.to(x.dtype).unsqueeze(-1)
        return torch.cat((x * angles.cos(), x * angles.sin()), dim=-1).flatten(-2)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        # Sums over thousands of keys exceed the range and resolution of half precision: they run in float32.
        with torch.autocast(q.device.type, enabled=False):
            wide = torch.promote_types(q.dtype, torch.float32)
            q, k = self.features(q.to(wide), self.query_angles), self.features(k.to(wide), self.key_angles)
            return linear_product(q, k, v.to(wide), self.site.heads, regions, self.site.regions).to(v.dtype)

    def naive(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        queries = self.site.queries

        def angle(token: int, grid: Grid) -> float:
            if token < grid.prefix:
                place = float(token)
            else:
                row, column = divmod(token - grid.prefix, grid.width)
                row_there = (row + 0.5) * queries.height / grid.height - 0.5
                column_there = (column + 0.5) * queries.width / grid.width - 0.5
                place = queries.prefix + row_there * queries.width + column_there
            # Rounded, as the buffers are in float32.
            return torch.tensor(math.pi / 2 * place / queries.tokens, dtype=torch.float32).item()

        ours = [angle(token, queries) for token in range(queries.tokens)]
        theirs = [angle(token, self.site.keys) for token in range(self.site.keys.tokens)]
        cosines = torch.tensor([[math.cos(i - j) for j in theirs] for i in ours], dtype=q.dtype, device=q.device)

        def weights(q: Tensor, k: Tensor, head: int) -> Tensor:
            scores = torch.einsum("bnc,bmc->bnm", q.clamp(min=0), k.clamp(min=0)) * cosines
            return normalised(scores, EPS, regions)

        return mix_per_head(q, k, v, self.site.heads, weights)

    @property
    def uses_positions(self) -> bool:
        return True

    def macs(self) -> Macs:
        return linear_product_macs(self.site, features=2 * self.site.head_dim)
