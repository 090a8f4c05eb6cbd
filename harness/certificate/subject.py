"""The subject of the laws: an attention at small sites like those of the five families, with random parameters.

B batch, N queries, M keys, C channels, h heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from attentions import Attention, AttentionSpec, Grid, Site, lookup
from harness.process.errors import first_line
from results.wording import count

Inputs = dict[str, Tensor]
"""Arguments of `forward` by name: q, k, v, and those of bias, x and regions that the attention takes."""


SAME = 1e-9
"""Largest relative l2 difference of two float64 outputs that count as equal."""


class Broken(Exception):
    """A law does not hold: the smallest failing case and what was seen there."""


class Exempt(Exception):
    """A law does not apply: the reason, as the attention declares it."""


@dataclass(frozen=True)
class Case:
    """A site and the number of batch entries there."""

    name: str
    site: Site
    batch: int = 2

    def __str__(self) -> str:
        site = self.site
        parts = [f"B {self.batch}", f"C {site.dim}", f"{site.heads} heads", f"queries {shown(site.queries)}"]
        if site.keys != site.queries:
            parts.append(f"keys {shown(site.keys)}")
        if site.regions > 1:
            parts.append(f"{site.regions} regions")
        return f"{self.name} ({', '.join(parts)})"


def shown(grid: Grid) -> str:
    return f"{grid.height}x{grid.width}" + (f" after {count(grid.prefix, 'prefix token')}" if grid.prefix else "")


def shown_sites(cases: Sequence[Case]) -> str:
    return count(len(cases), "site")


def _same(dim: int, heads: int, grid: Grid, regions: int = 1) -> Site:
    return Site(dim, heads, grid, grid, regions)


CASES = (
    Case("one head", _same(8, 1, Grid(2, 3))),
    Case("horizontal stripe", _same(16, 2, Grid(1, 8))),
    Case("vertical stripe", _same(16, 2, Grid(8, 1))),
    Case("wide head", _same(64, 1, Grid(4, 3))),
    Case("windows", _same(64, 2, Grid(4, 4)), batch=6),
    Case("class token", _same(48, 3, Grid(3, 5, prefix=1))),
    Case("reduced keys, class token", Site(16, 2, Grid(4, 4, prefix=1), Grid(2, 2, prefix=1))),
    Case("map", _same(32, 4, Grid(6, 4))),
    Case("reduced keys", Site(16, 2, Grid(8, 4), Grid(4, 2))),
    Case("odd map", _same(24, 3, Grid(7, 5))),
    Case("pooled keys", Site(16, 2, Grid(9, 8), Grid(7, 7))),
)
"""Smallest first, so that the first failure is the smallest; heads of 8, 16, 32 and 64 channels."""

LARGE = tuple(Case("tokens of a DeiT", _same(32, 2, Grid(14, 14, prefix)), batch=1) for prefix in (1, 0))

REGIONS = Case("shifted window", _same(64, 2, Grid(4, 4), regions=4))


@dataclass(frozen=True)
class Subject:
    """An attention with its options, on a device; `quick` asks for the form for a test suite, which takes seconds."""

    spec: AttentionSpec
    quick: bool = False
    device: str = "cpu"

    @property
    def attention(self) -> type[Attention]:
        return lookup(self.spec.name)

    @cached_property
    def cases(self) -> tuple[Case, ...]:
        """The cases at which it can be mounted."""
        cases = (*CASES, REGIONS) if self.attention.takes_regions else CASES
        return tuple(case for case in cases if self.accepts(case.site))

    @cached_property
    def found(self) -> dict[str, str]:
        """What a law has found out, by its name, where another one would only find it out again."""
        return {}

    @property
    def large(self) -> tuple[Case, ...]:
        """As many tokens as a DeiT has, with its class token or else without: some faults show only there."""
        return tuple(case for case in LARGE if self.accepts(case.site))[:1]

    def accepts(self, site: Site) -> bool:
        try:
            with torch.device("meta"):
                self.spec.build(site)
        # That it refuses with a ValueError is a law of its own.
        except Exception:
            return False
        return True

    @property
    def few(self) -> tuple[Case, ...]:
        """Cases for slow laws: one that is not square, one with a class token, one with regions."""
        chosen = [case for case in self.cases if case.name in ("map", "class token", REGIONS.name)] or self.cases[-1:]
        return tuple(chosen[:1] if self.quick else chosen)

    def build(self, site: Site, seed: int = 0) -> Attention:
        """Build it in evaluation mode, with the parameters that its constructor leaves, in float32."""
        torch.manual_seed(seed)
        return self.spec.build(site).eval().to(self.device)

    def randomised(self, site: Site, seed: int = 0) -> Attention:
        """Build it in float64 with random parameters: zeros and equal values, with which many start, hide mistakes."""
        module = self.build(site, seed).double()
        with torch.no_grad():
            for parameter in module.parameters():
                # Drawn on the CPU, so that they are the same on every device.
                parameter.copy_(torch.nn.init.normal_(torch.empty(parameter.shape, dtype=torch.float64), std=0.5))
        return module

    def inputs(self, case: Case, seed: int = 1) -> Inputs:
        """Return standard normal float64 inputs that require gradients; `regions` quarters the first entry only."""
        site, batch = case.site, case.batch
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=generator).to(self.device).requires_grad_()

        n, m = site.queries.tokens, site.keys.tokens
        inputs = {"q": normal(batch, n, site.dim), "k": normal(batch, m, site.dim), "v": normal(batch, m, site.dim)}
        if self.attention.takes_bias:
            inputs["bias"] = normal(batch, site.heads, n, m)
        if self.attention.takes_input:
            inputs["x"] = normal(batch, n, site.dim)
        if site.regions > 1:
            others = [torch.zeros(n, dtype=torch.int64)] * (batch - 1)
            inputs["regions"] = torch.stack((quarters(site.queries), *others)).to(self.device)
        return inputs

    def runs(self) -> str | None:
        """Return None if it returns a tensor at all of its cases, or else what happens at the first other one."""
        for case in self.cases or CASES[:1]:
            try:
                out = self.randomised(case.site)(**self.inputs(case))
            except Exception as problem:
                return f"{type(problem).__name__}: {first_line(problem)}"
            if not isinstance(out, Tensor):
                return no_tensor(out)
        return None


def no_tensor(out: object) -> str:
    """Return what is wrong with the output of `forward` that is no tensor."""
    what = f"a {type(out).__name__}" + (f" of {len(out)}" if isinstance(out, (tuple, list, dict)) else "")
    return f"returned {what}, must be one tensor (B, N, C)"


def quarters(grid: Grid) -> Tensor:
    """Return (N,) labels 0 to 3 of a grid cut once in each direction, like a shifted window at the image's corner."""
    rows = (torch.arange(grid.height) >= (grid.height + 1) // 2).long()
    columns = (torch.arange(grid.width) >= (grid.width + 1) // 2).long()
    return (2 * rows[:, None] + columns).flatten()


def leaves(inputs: Inputs) -> list[Tensor]:
    """Return the inputs that have gradients."""
    return [x for x in inputs.values() if x.is_floating_point()]


def loss_of(out: Tensor) -> Tensor:
    """Return a scalar whose gradient differs from element to element of `out`."""
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return (out.double() * direction.to(out.device)).sum()


def gradients(out: Tensor, wanted: list[Tensor]) -> list[Tensor]:
    """Return the gradients of `loss_of(out)`, zeros where there is none."""
    found = torch.autograd.grad(loss_of(out), wanted, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(wanted, found, strict=True)]


def difference(ours: Tensor, wanted: Tensor) -> float:
    """Return the relative l2 difference, infinity if the shapes differ or a value is not finite."""
    if ours.shape != wanted.shape or not (ours.isfinite().all() and wanted.isfinite().all()):
        return float("inf")
    ours, wanted = ours.detach().double(), wanted.detach().double()
    gap, size = float((ours - wanted).norm()), float(wanted.norm())
    return 0.0 if gap == 0 else gap / size if size else float("inf")


@contextmanager
def at(case: object) -> Iterator[None]:
    """Turn an exception within a case into a broken law there."""
    try:
        yield
    except (Broken, Exempt):
        raise
    except Exception as problem:
        raise Broken(f"{case}: {type(problem).__name__}: {first_line(problem)}") from problem


def require(holds: bool, case: object, seen: str) -> None:
    """Raise Broken, with the case and what was seen there, unless the law holds."""
    if not holds:
        raise Broken(f"{case}: {seen}")
