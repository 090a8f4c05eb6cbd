"""Agent attention: softmax attention through a few agent tokens. Han et al., ECCV 2024, arXiv 2312.08874.

softmax(q a^T / sqrt(d) + B2) softmax(a k^T / sqrt(d) + B1) v, plus a depthwise convolution of the values: agents a,
pooled from the queries, first gather from the keys what the queries then read from the agents. Linear in the tokens.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions._contract import Attention, Given, Macs, Site
from attentions._heads import merge_heads, split_heads
from attentions._linear import ValueConvolution, check_kernel_size, pooled
from attentions._naive import cell_means, mix_per_head
from attentions._registry import register

# Side of the maps the biases are interpolated from.
BLOCK = 7


def published_agents(tokens: int) -> int:
    """Return the agents for a number of tokens: 9-16-49-49 in official pyramids, from 224 to 447 pixels."""
    if tokens >= 56 * 56:
        return 9
    return 16 if tokens >= 28 * 28 else 49


@register("agent")
class AgentAttention(Attention):
    """Agent attention. The agents are the queries, averaged over the cells of an s x s grid, where s * s = agents.

    On a map with fewer rows or columns than s, the grid has as many as the map: on a 56 x 1 stripe, 49 agents become
    7 x 1. Prefix tokens (the class token) are among the keys and queries, with biases of their own, but not in the
    agents, and the convolution gives them zeros.

    Options:
        agents: their number, a square; None for that of the official pyramids, which depends on the tokens of the grid:
            9 from 56 x 56 up, 16 from 28 x 28 up, else 49.
        agent_bias: learned biases between agents and positions: interpolated 7 x 7 maps, plus rows and columns.
        kernel_size: of the depthwise convolution of the values, which is added to the output; None for no convolution,
            as in CSWin, whose LePE already is one.
    """

    def __init__(
        self,
        site: Site,
        *,
        agents: int | None = 49,
        agent_bias: bool = True,
        kernel_size: int | None = 3,
    ) -> None:
        super().__init__(site)
        check_kernel_size(kernel_size)
        height, width, prefix = site.queries
        wanted = published_agents(height * width) if agents is None else agents
        if wanted < 1 or math.isqrt(wanted) ** 2 != wanted:
            raise ValueError(f"agents={agents} is not allowed; it takes None or a square number")
        self.agents = (min(math.isqrt(wanted), height), min(math.isqrt(wanted), width))
        self.agent_bias = agent_bias
        if agent_bias:
            n, heads, keys = self.agents[0] * self.agents[1], site.heads, site.keys
            # Named as in official checkpoints: a is an agent, n a position; h, w and c are rows, columns, class tokens.
            self.an_bias = nn.Parameter(torch.empty(heads, n, BLOCK, BLOCK))
            self.na_bias = nn.Parameter(torch.empty(heads, n, BLOCK, BLOCK))
            # A single row or column is the full map: a bias equal for all keys does not change their softmax.
            # Four dimensions, without the official leading 1: torch cannot move five to channels_last.
            self.ah_bias = nn.Parameter(torch.empty(heads, n, keys.height, 1)) if keys.height > 1 else None
            self.aw_bias = nn.Parameter(torch.empty(heads, n, 1, keys.width)) if keys.width > 1 else None
            self.ha_bias = nn.Parameter(torch.empty(heads, height, 1, n)) if height > 1 else None
            self.wa_bias = nn.Parameter(torch.empty(heads, 1, width, n)) if width > 1 else None
            self.ac_bias = nn.Parameter(torch.empty(1, heads, n, keys.prefix)) if keys.prefix else None
            self.ca_bias = nn.Parameter(torch.empty(1, heads, prefix, n)) if prefix else None
            # The paper does not give their initial values; Swin's position biases start like this.
            for bias in self.parameters():
                nn.init.trunc_normal_(bias, std=0.02)
        # One kernel per channel, while FLatten's are shared by the heads.
        self.dwc = None if kernel_size is None else ValueConvolution(replace(site, heads=1), kernel_size)

    def key_bias(self) -> Tensor:
        """Return B1, between agents and keys, (1, heads, n, M)."""
        keys = self.site.keys
        block = F.interpolate(self.an_bias, size=(keys.height, keys.width), mode="bilinear")
        bias = sum((lines for lines in (self.ah_bias, self.aw_bias) if lines is not None), block)
        bias = bias.flatten(2).unsqueeze(0)
        return bias if self.ac_bias is None else torch.cat((self.ac_bias, bias), dim=-1)

    def query_bias(self) -> Tensor:
        """Return B2, between queries and agents, (1, heads, N, n)."""
        grid = self.site.queries
        block = F.interpolate(self.na_bias, size=(grid.height, grid.width), mode="bilinear").permute(0, 2, 3, 1)
        bias = sum((lines for lines in (self.ha_bias, self.wa_bias) if lines is not None), block)
        bias = bias.flatten(1, 2).unsqueeze(0)
        return bias if self.ca_bias is None else torch.cat((self.ca_bias, bias), dim=-2)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        heads = self.site.heads
        agents = pooled(q, self.site.queries, self.agents).to(q.dtype)
        to_keys = self.key_bias().to(q.dtype) if self.agent_bias else None
        to_queries = self.query_bias().to(q.dtype) if self.agent_bias else None
        agents, queries, keys, values = (split_heads(x, heads) for x in (agents, q, k, v))
        gathered = F.scaled_dot_product_attention(agents, keys, values, attn_mask=to_keys)
        out = F.scaled_dot_product_attention(queries, agents, gathered.to(v.dtype), attn_mask=to_queries)
        out = merge_heads(out).to(v.dtype)
        return out if self.dwc is None else out + self.dwc(v)

    def naive(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        site = self.site
        a = cell_means(q, site.queries, self.agents)

        def weights(queries: Tensor, keys: Tensor, head: int, bias: list[Tensor]) -> Tensor:
            scores = torch.einsum("bnc,bmc->bnm", queries, keys) / math.sqrt(queries.shape[-1])
            if bias:
                scores = scores + bias[head]
            return scores.exp() / scores.exp().sum(dim=-1, keepdim=True)

        to_keys, to_queries = self._naive_biases() if self.agent_bias else ([], [])
        gathered = mix_per_head(a, k, v, site.heads, lambda q, k, head: weights(q, k, head, to_keys))
        out = mix_per_head(q, a, gathered, site.heads, lambda q, k, head: weights(q, k, head, to_queries))
        return out if self.dwc is None else out + self.dwc.naive(v)

    def _naive_biases(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return B1 (n, M) and B2 (N, n) of each head, position by position."""
        to_keys, to_queries = [], []
        for head in range(self.site.heads):
            _, width, prefix = keys = self.site.keys
            columns = [] if self.ac_bias is None else [self.ac_bias[0, head, :, token] for token in range(prefix)]
            for y, x in (divmod(place, width) for place in range(keys.height * width)):
                column = _between(self.an_bias[head], y, x, keys.height, width)
                column = column if self.ah_bias is None else column + self.ah_bias[head, :, y, 0]
                columns.append(column if self.aw_bias is None else column + self.aw_bias[head, :, 0, x])
            to_keys.append(torch.stack(columns, dim=1))
            _, width, prefix = grid = self.site.queries
            rows = [] if self.ca_bias is None else [self.ca_bias[0, head, token] for token in range(prefix)]
            for y, x in (divmod(place, width) for place in range(grid.height * width)):
                row = _between(self.na_bias[head], y, x, grid.height, width)
                row = row if self.ha_bias is None else row + self.ha_bias[head, y, 0]
                rows.append(row if self.wa_bias is None else row + self.wa_bias[head, 0, x])
            to_queries.append(torch.stack(rows, dim=0))
        return to_keys, to_queries

    @property
    def uses_positions(self) -> bool:
        height, width, prefix = self.site.queries
        # With one agent, or one per token, the positions of tokens do not matter.
        pooled = self.agents not in ((1, 1), (height, width))
        return self.agent_bias or self.dwc is not None or pooled or prefix > 0

    def macs(self) -> Macs:
        tokens = self.site.queries.tokens + self.site.keys.tokens
        macs = Macs(attention=2 * self.agents[0] * self.agents[1] * tokens * self.site.dim)
        return macs if self.dwc is None else macs + self.dwc.macs()


def _between(block: Tensor, y: int, x: int, height: int, width: int) -> Tensor:
    """Interpolate a map (n, 7, 7) at a position of a height x width grid from its four nearest values: (n,)."""
    total = torch.zeros_like(block[:, 0, 0])
    # The centre of the position in units of the map, whose centres lie at integers.
    down, right = (y + 0.5) * BLOCK / height - 0.5, (x + 0.5) * BLOCK / width - 0.5
    for row in range(BLOCK):
        for column in range(BLOCK):
            near = [max(0.0, 1 - abs(min(max(at, 0), BLOCK - 1) - line)) for at, line in ((down, row), (right, column))]
            total = total + near[0] * near[1] * block[:, row, column]
    return total
