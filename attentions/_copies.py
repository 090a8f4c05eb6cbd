"""A copy of an attention that runs on other values, in float64, with its depthwise convolutions of the values apart.

B batch, N queries, Q of them chosen, M keys, C channels, h heads.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions._contract import Attention, Given, Site
from attentions._heads import region_masks, split_heads
from attentions._linear import ValueConvolution, on_query_grid
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
        part = self.part
        if not isinstance(part, ValueConvolution):
            return self.convolve(v, *self.others, **self.named)  # type: ignore[arg-type]
        assert part.bias is not None
        heads = part.site.heads
        return self._by_taps(v, part.weight.repeat(heads, 1, 1, 1), part.bias.repeat(heads))

    def head_means(self, v: Tensor, heads: int) -> Tensor:
        """Return the means over the channels of each head (B, N, h) for values that are alike in all channels.

        Of a `ValueConvolution`, without its bias: the mean of its channels is the convolution with the mean kernel,
        which has a channel per head instead of dozens.
        """
        kernels = self.part.weight.repeat(self.part.site.heads, 1, 1, 1)  # type: ignore[operator]
        means = kernels.unflatten(0, (heads, -1)).mean(dim=1)
        return self._by_taps(v[..., :1].expand(-1, -1, heads), means, v.new_zeros(heads))

    def _by_taps(self, v: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
        """Convolve values (B, M, c) depthwise with kernels (c, 1, k, k): a sum over taps, tokens of a region apart.

        For float64 a CPU has no depthwise convolution, and takes ten times as long for a loop over channels.
        """
        site, size = self.part.site, kernels.shape[-1]
        regions = self.regions
        total = v.new_zeros(len(v), site.queries.tokens, v.shape[-1])
        for mask in [1.0] if regions is None else region_masks(regions, site.regions, v.dtype):
            height, width, prefix = site.queries
            image = on_query_grid(v * mask, site).unflatten(1, (height, width)).permute(0, 3, 1, 2)
            padded = F.pad(image, (size // 2,) * 4)
            mixed = bias[:, None, None].expand(image.shape)
            for down, across in itertools.product(range(size), repeat=2):
                shifted = padded[..., down : down + height, across : across + width]
                mixed = mixed + shifted * kernels[:, 0, down, across, None, None]
            total = total + F.pad(mixed.flatten(2).transpose(1, 2), (0, 0, prefix, 0)) * mask
        return total

    @property
    def regions(self) -> Given:
        """The regions that it was given in its first call."""
        return self.named.get("regions", self.others[0] if self.others else None)

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
            if added and not any(part.regions is not None for part in parts):
                return _quick_map(run, quick_means, values, side), theirs
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


def _quick_map(run: Run, means: Callable[[Tensor], Tensor], values: Tensor, side: int) -> Tensor:
    """Return the same of convolutions that treat all entries and all channels of a head alike, in a few passes."""
    weights = values.new_zeros(run.site.heads, len(run.rows), values.shape[1])
    patterns = _sparse(run.site, side)
    size = max(1, ELEMENTS // (8 * values.shape[1] * run.site.heads))
    for start in range(0, len(patterns), size):
        chosen = patterns[start : start + size]
        units = values.new_zeros(len(chosen), values.shape[1], 1)
        for unit, (keys, _) in zip(units, chosen, strict=True):
            unit[keys.to(values.device)] = 1
        columns = torch.stack([met for _, met in chosen]).to(values.device)[:, run.rows]
        pattern, row = (columns >= 0).nonzero(as_tuple=True)
        weights[:, row, columns[pattern, row]] = means(units)[pattern, :, row].T
    return weights.expand(len(values), -1, -1, -1).clone()


@lru_cache(maxsize=16)
def _sparse(site: Site, side: int) -> list[tuple[Tensor, Tensor]]:
    """Return keys (u,) so far apart that a convolution meets one of them at most, and the one each query meets, (N,).

    -1 stands for none. All keys on the grid are among them, once.
    """
    (height, width, prefix), keys = site.queries, site.keys
    if keys.tokens - keys.prefix != height * width:
        # Interpolated to the grid of the queries, a key reaches further.
        tokens = site.queries.tokens
        return [(torch.tensor([key]), torch.full((tokens,), key)) for key in range(keys.prefix, keys.tokens)]

    def met(length: int, first: int) -> Tensor:
        at = torch.arange(length)
        other = at - side // 2 + (first - at + side // 2) % side
        return torch.where((other >= 0) & (other < length), other, -1)

    found = []
    for row in range(min(side, height)):
        for column in range(min(side, width)):
            down, across = met(height, row)[:, None], met(width, column)
            other = torch.where((down >= 0) & (across >= 0), keys.prefix + down * width + across, -1).flatten()
            found.append((other[other >= 0].unique(), torch.cat((torch.full((prefix,), -1), other))))
    return found
