"""A copy of an attention that runs on other values, in float64, with its depthwise convolutions of the values apart.

B batch, N queries, Q of them chosen, M keys, C channels, h heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions._contract import Attention, Given, Site
from attentions._heads import region_masks, split_heads
from attentions._linear import ValueConvolution, from_query_grid, to_query_grid
from attentions.inline import LocalResidual

EXACT = 1e-10
"""Largest relative l2 difference of the output and the product of map and values that counts as none."""

CONVOLUTIONS = (ValueConvolution, LocalResidual)
"""Modules that convolve the values depthwise; they take v (B, M, C) first, and return (B, N, C)."""

ELEMENTS = 2**24
"""Estimated numbers that are alive at once while values are pushed: 128 MiB."""


def wide(x: Tensor) -> Tensor:
    """Return a copy in float64, without gradients; of labels, a copy."""
    return x.detach().clone() if not x.is_floating_point() else x.detach().to(torch.float64, copy=True)


class Run:
    """A copy of an attention with its inputs: what it returns for other values, in the chosen rows."""

    def __init__(self, attention: Attention, q: Tensor, k: Tensor, given: Sequence[Given], rows: Tensor) -> None:
        self.module = deepcopy(attention).to(rows.device).double().eval().requires_grad_(False)
        self.site = attention.site
        self.q, self.k, self.given, self.rows = wide(q), wide(k), [x if x is None else wide(x) for x in given], rows

    def __call__(self, values: Tensor, entries: Tensor | None = None) -> Tensor:
        """Return the output (b, Q, C) for values (b, M, C), of all entries or those whose numbers (b,) are given."""

        def own(x: Tensor) -> Tensor:
            x = x if entries is None or len(x) == 1 else x[entries]
            return x.expand(len(values), *x.shape[1:])

        bias, x, regions = (given if given is None else own(given) for given in self.given)
        # Not a call: a hook of the caller's that was copied along would see unit values.
        return self.module.forward(own(self.q), own(self.k), values, bias=bias, x=x, regions=regions)[:, self.rows]

    def passes(self, number: int, entries: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield entries and numbers, both (b,), of so many passes of each entry, as many at once as memory allows."""
        n, m, heads = self.site.queries.tokens, self.site.keys.tokens, self.site.heads
        quadratic = 2 * heads * n * m if self.module.exponent > 1 else 0
        size = max(1, ELEMENTS // (8 * (n + m) * self.site.dim + quadratic))
        for chunk in torch.arange(entries * number, device=self.rows.device).split(size):
            yield chunk // number, chunk % number


def head_means(x: Tensor, heads: int) -> Tensor:
    """Return the means over the channels of each head of x (b, Q, C), as (b, h, Q)."""
    return split_heads(x, heads).mean(dim=-1)


class Silenced:
    """A convolution of the values in a copy, whose place a constant takes until it is restored."""

    def __init__(self, part: ValueConvolution | LocalResidual) -> None:
        size = part.kernel_size
        self.side = size if isinstance(size, int) else size[0]
        self.tokens = part.site.queries.tokens
        self.part, self.convolve = part, part.forward
        self.calls, self.constant = 0, 0.0
        part.forward = self.forward  # type: ignore[method-assign]

    def forward(self, v: Tensor, *others: Given, **named: Given) -> Tensor:
        if not self.calls:
            self.values, self.others, self.named = v, others, named
        self.calls += 1
        return v.new_full((len(v), self.tokens, v.shape[-1]), self.constant)

    def __call__(self, v: Tensor) -> Tensor:
        """Return what it makes of values (B, M, C), given the same beside them as in the first call: (B, N, C)."""
        return self.convolve(v, *self.others, **self.named)  # type: ignore[arg-type]

    def head_means(self, v: Tensor, heads: int) -> Tensor:
        """Return the means over the channels of each head (B, N, h) for values that are alike in all channels.

        Of a `ValueConvolution`, without its bias: the mean of its channels is the convolution with the mean kernel,
        which has a channel per head instead of dozens.
        """
        part, site = self.part, self.part.site
        assert isinstance(part, ValueConvolution)
        kernels = part.weight.repeat(site.heads, 1, 1, 1).unflatten(0, (heads, -1)).mean(dim=1)
        regions = self.named.get("regions", self.others[0] if self.others else None)
        masks = [None] if regions is None else region_masks(regions, site.regions, v.dtype)
        found = v.new_zeros(len(v), site.queries.tokens, heads)
        for mask in masks:
            own = v[..., :1] if mask is None else v[..., :1] * mask
            image = to_query_grid(own.expand(-1, -1, heads), site)
            out = from_query_grid(F.conv2d(image, kernels, padding=part.padding, groups=heads), site)
            found += out if mask is None else out * mask
        return found

    def restore(self) -> None:
        del self.part.forward


def taken_apart(run: Run, values: Tensor, whole: Tensor, offset: Tensor) -> tuple[Tensor | None, Tensor]:
    """Silence the convolutions of the values in the copy; return their map (B, h, Q, M), and their output (B, Q, C).

    `whole` is the output with them, `offset` that for values of zero; theirs is without their bias. Unless the output
    is a sum of the rest and of each of them times a factor, they stay in the copy, and None and zeros are returned.
    """
    every = [Silenced(part) for part in run.module.modules() if isinstance(part, CONVOLUTIONS)]
    rest, zeros = run(values), torch.zeros_like(values)
    parts = [part for part in every if part.calls]
    if parts and all(part.calls == 1 and torch.equal(part.values, values) for part in parts):
        factors, empty = [], [part(zeros) for part in parts]
        for part in parts:
            part.constant = 1.0
            factors.append(run(values) - rest)
            part.constant = 0.0

        def output(v: Tensor) -> Tensor:
            each = zip(parts, factors, empty, strict=True)
            return torch.stack([factor * (part(v) - bias)[:, run.rows] for part, factor, bias in each]).sum(dim=0)

        theirs = output(values)

        def means(v: Tensor) -> Tensor:
            return head_means(output(v), run.site.heads)

        def quick_means(v: Tensor) -> Tensor:
            every = [part.head_means(v, run.site.heads)[:, run.rows] for part in parts]
            return torch.stack(every).sum(dim=0).transpose(1, 2)

        left = whole - offset - theirs - (rest - run(zeros))
        if float(left.norm()) <= EXACT * float(whole.norm()):
            added = all(isinstance(part.part, ValueConvolution) for part in parts)
            added = added and all(float((factor - 1).abs().max()) <= EXACT for factor in factors)
            side = max(part.side for part in parts)
            return _convolution_map(run, quick_means if added else means, values, side), theirs
    for part in every:
        part.restore()
    return None, torch.zeros_like(whole)


def _convolution_map(run: Run, means: Callable[[Tensor], Tensor], values: Tensor, side: int) -> Tensor:
    """Return the mean map (B, h, Q, M) of convolutions that make `means` (B, h, Q) of values (B, M, C)."""
    weights = values.new_zeros(len(values), run.site.heads, len(run.rows), values.shape[1])
    for keys, met in _sparse(run.site, side):
        units = torch.zeros_like(values)
        units[:, keys.to(values.device)] = 1
        column = met.to(values.device)[run.rows]
        (row,) = (column >= 0).nonzero(as_tuple=True)
        weights[:, :, row, column[row]] = means(units)[:, :, row]
    return weights


def _sparse(site: Site, side: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield keys (u,) so far apart that a convolution meets one of them at most, and the one each query meets, (N,).

    -1 stands for none. All keys on the grid are among them, once.
    """
    (height, width, prefix), keys = site.queries, site.keys
    if keys.tokens - keys.prefix != height * width:
        # Interpolated to the grid of the queries, a key reaches further.
        for key in range(keys.prefix, keys.tokens):
            yield torch.tensor([key]), torch.full((site.queries.tokens,), key)
        return

    def met(length: int, first: int) -> Tensor:
        at = torch.arange(length)
        other = at - side // 2 + (first - at + side // 2) % side
        return torch.where((other >= 0) & (other < length), other, -1)

    for row in range(min(side, height)):
        for column in range(min(side, width)):
            down, across = met(height, row)[:, None], met(width, column)
            other = torch.where((down >= 0) & (across >= 0), keys.prefix + down * width + across, -1).flatten()
            yield other[other >= 0].unique(), torch.cat((torch.full((prefix,), -1), other))
