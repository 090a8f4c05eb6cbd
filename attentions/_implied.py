"""The map that an attention implies: how much of each value reaches each output, in whatever order that is computed.

Few attentions hold it: linear ones multiply in another order. Nearly all are linear in the values, though, so it is
found by pushing unit values through the module, in float64. A depthwise convolution of the values is kept apart.

B batch, N queries, Q of them chosen, M keys, C channels, h heads, d = C / h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from attentions._contract import Attention, Given
from attentions._copies import EXACT, Run, head_means, taken_apart, wide
from attentions._heads import merge_heads, split_heads

Kind = Literal["per head", "per channel", "jacobian"]


@dataclass(frozen=True, eq=False)
class ImpliedMap:
    """The map of an attention at one input, in float64: rows are queries, columns keys, prefix tokens included.

    Attributes:
        weights: (B, h, Q, M), without the depthwise convolution of the values.
        convolution: (B, h, Q, M), what that convolution adds, as the mean over a head's channels, each of which has a
            kernel of its own; None where there is none, or where more than a factor per output follows it: it is then
            part of `weights`.
        offset: (B, Q, C), the output for values of zero: the bias of the convolution.
        kind: what `weights` are. "per head": all channels of a head share them; their product with the head's values is
            its output. "per channel": each channel has weights of its own (a gate); these are the mean over a head's
            channels. "jacobian": outputs depend on values of other channels, or not linearly on them; these are norms
            at this input, never negative: the Frobenius norm of the derivative of all channels of a head at a query by
            all channels of a key, divided by sqrt(d), which for a "per head" map is the absolute value.
        gap: largest relative l2 difference, over entries, of the output and what the map gives: that of each head or
            channel, or the whole Jacobian, times the values, plus the output of the convolution and `offset`. The
            values are v and, without a convolution, random ones. It is below 1e-10 unless `kind` is "jacobian"; there
            it is rounding if the attention is linear in v and only mixes channels, and large if it is not linear.
    """

    weights: Tensor
    convolution: Tensor | None
    offset: Tensor
    kind: Kind
    gap: float

    @property
    def together(self) -> Tensor:
        """The weights plus the convolution, (B, h, Q, M): the mean map of a head's channels, but for a "jacobian"."""
        return self.weights if self.convolution is None else self.weights + self.convolution


def implied_map(
    attention: Attention,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Given = None,
    x: Given = None,
    regions: Given = None,
    queries: Sequence[int] | None = None,
) -> ImpliedMap:
    """Return the map that an attention implies for the arguments of its `forward`: q (B, N, C), k and v (B, M, C).

    It is that of a copy in float64 and evaluation mode, on the device of q; the module itself is left as it is.
    `queries` chooses rows, by index among all N tokens, prefix tokens included; default: all.

    One pass per d keys suffices for "per head", one per key for "per channel", and Q * C for "jacobian", each of one
    batch entry.

    Raises:
        ValueError: if the attention does not read v, takes an argument that is missing or does not take one that is
            given, or a shape or index does not fit its site.
    """
    rows = _check(attention, q, k, v, {"bias": bias, "x": x, "regions": regions}, queries)
    # Normal tensors, even if the caller's are of inference mode, for the Jacobian; and none of the caller's gradients.
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(q.device.type, enabled=False):
        run = Run(attention, q, k, (bias, x, regions), torch.tensor(rows, device=q.device))
        values = wide(v)
        whole = run(values)
        offset = run(torch.zeros_like(values))
        convolution, convolved = taken_apart(run, values, whole, offset)
        nothing = run(torch.zeros_like(values))
        # Values may be zero, or alike: others tell whether the channels of a head really share their map.
        others = torch.randn(values.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        probes = torch.stack((values, others.to(values.device)))
        wanted = torch.stack([run(probe) for probe in probes]) - nothing
        kind: Kind = "per head"
        weights, products = _per_head(run, probes, nothing)
        if _gap(products, wanted) > EXACT:
            kind = "per channel"
            weights, products = _per_channel(run, probes, nothing)
        if _gap(products, wanted) > EXACT:
            kind = "jacobian"
            weights, products = _jacobian(run, probes)
        gap = max(_gap(products, wanted), _gap((products[0] + convolved + offset)[None], whole[None]))
        return ImpliedMap(weights, convolution, offset, kind, gap)


def _check(
    attention: Attention,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    given: dict[str, Given],
    queries: Sequence[int] | None,
) -> list[int]:
    """Return the rows that are chosen. Raises ValueError for what `implied_map` does not take."""
    name, site = type(attention).__name__, attention.site
    n, m = site.queries.tokens, site.keys.tokens
    if "v" not in attention.reads:
        raise ValueError(f"{name} does not read v: it implies no map of the values")
    for letter, tokens, number in (("q", q, n), ("k", k, m), ("v", v, m)):
        wanted = (len(q), number, site.dim)
        if tuple(tokens.shape) != wanted:
            raise ValueError(f"{letter} has the shape {tuple(tokens.shape)}; at the site of this {name} it is {wanted}")
    takes = {"bias": attention.takes_bias, "x": attention.takes_input, "regions": attention.takes_regions}
    for argument, tensor in given.items():
        if tensor is not None and not takes[argument]:
            raise ValueError(f"{name} takes no {argument}")
    if attention.takes_input and given["x"] is None:
        raise ValueError(f"{name} takes x, the input of the projections, which is missing")
    rows = list(range(n)) if queries is None else list(queries)
    if not rows or not all(0 <= row < n for row in rows):
        raise ValueError(f"queries={queries} is not allowed; it takes indices from 0 to {n - 1}, at least one")
    return rows


def _per_head(run: Run, probes: Tensor, nothing: Tensor) -> tuple[Tensor, Tensor]:
    """Return the map (B, h, Q, M) if a head's channels share it, and its products with probes (P, B, M, C).

    Channel j of every head gets the unit value of a key of its own, so that a pass tells the columns of d keys.
    """
    _, batch, m, _ = probes.shape
    heads, d = run.site.heads, run.site.head_dim
    weights = probes.new_empty(batch, heads, len(run.rows), m)
    for entries, numbers in run.passes(-(-m // d), batch):
        keys = numbers[:, None] * d + torch.arange(d, device=numbers.device)
        at, channel = (keys < m).nonzero(as_tuple=True)
        units = probes.new_zeros(len(numbers), m, heads, d)
        units[at, keys[at, channel], :, channel] = 1
        columns = split_heads(run(units.flatten(2), entries) - nothing[entries], heads)
        for entry, number, found in zip(entries.tolist(), numbers.tolist(), columns, strict=True):
            weights[entry, :, :, number * d : (number + 1) * d] = found[..., : m - number * d]
    return weights, torch.stack([merge_heads(weights @ split_heads(probe, heads)) for probe in probes])


def _per_channel(run: Run, probes: Tensor, nothing: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean map (B, h, Q, M) of a head's channels, and the products of their own maps with the probes."""
    _, batch, m, _ = probes.shape
    heads = run.site.heads
    weights = probes.new_empty(batch, heads, len(run.rows), m)
    products = torch.zeros_like(nothing).repeat(len(probes), 1, 1, 1)
    for entries, keys in run.passes(m, batch):
        units = probes.new_zeros(len(keys), *probes.shape[2:])
        units[torch.arange(len(keys), device=keys.device), keys] = 1
        columns = run(units, entries) - nothing[entries]
        weights[entries, :, :, keys] = head_means(columns, heads)
        for product, probe in zip(products, probes, strict=True):
            product.index_add_(0, entries, columns * probe[entries, keys].unsqueeze(1))
    return weights, products


def _jacobian(run: Run, probes: Tensor) -> tuple[Tensor, Tensor]:
    """Return norms (B, h, Q, M) of the Jacobian at the first of the probes, and its products with all of them."""
    _, batch, m, dim = probes.shape
    heads, d, rows = run.site.heads, run.site.head_dim, len(run.rows)
    squares, products = probes.new_zeros(batch, heads, rows, m), probes.new_zeros(len(probes), batch, rows, dim)
    for entries, numbers in run.passes(rows * dim, batch):
        values = probes[0, entries].requires_grad_()
        with torch.enable_grad():
            picked = run(values, entries).flatten(1).gather(1, numbers[:, None]).sum()
        # An output that is computed from none of the values has no graph.
        slopes = torch.autograd.grad(picked, values)[0] if picked.requires_grad else torch.zeros_like(values)
        row, channel = numbers // dim, numbers % dim
        squares.index_put_((entries, channel // d, row), slopes.square().sum(dim=-1), accumulate=True)
        products[:, entries, row, channel] = (slopes * probes[:, entries]).sum(dim=(2, 3))
    return (squares / d).sqrt(), products


def _gap(ours: Tensor, wanted: Tensor) -> float:
    """Return the largest relative l2 difference over entries (P, B, Q, C); infinity if it is not finite."""
    gaps, sizes = (ours - wanted).flatten(2).norm(dim=-1), wanted.flatten(2).norm(dim=-1)
    return float(torch.where(gaps == 0, 0.0, gaps / sizes).nan_to_num(nan=torch.inf).max())
