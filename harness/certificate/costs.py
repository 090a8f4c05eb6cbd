"""The laws of cost: multiply-adds and their growth with the number of tokens are as declared."""

from __future__ import annotations

import math
import resource
import time

import torch
from torch import Tensor, nn

from attentions import Attention, AttentionSpec, Grid, Site, lookup, names, operators
from harness.certificate.subject import Broken, Subject, at, require, shown_sites
from harness.measures.costs import by_category, check_agreement
from harness.measures.counters import count_with_fvcore, count_with_torch, own_operators
from harness.measures.meta_device import as_written, without_values

SHAPES = ((32, 2), (64, 1))
"""Channels and heads of the maps on which growth is measured: the first pair that the attention accepts."""


class Alone(nn.Module):
    """An attention alone, as a model for the counters: its arguments are slices of one tensor (4, tokens, C)."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, tokens: Tensor) -> Tensor:
        attention, site = self.attention, self.attention.site
        n, m = site.queries.tokens, site.keys.tokens
        extra: dict[str, Tensor | None] = {}
        if attention.takes_input:
            extra["x"] = tokens[3:4, :n]
        if attention.takes_bias:
            # Hosts without a bias pass none; a bias costs an addition, which is not counted.
            extra["bias"] = None
        if site.regions > 1:
            extra["regions"] = torch.zeros(1, n, dtype=torch.int64, device=tokens.device)
        return attention(tokens[0:1, :n], tokens[1:2, :m], tokens[2:3, :m], **extra)


def _alone(subject: Subject, site: Site) -> tuple[Alone, Tensor]:
    with torch.device("meta"):
        model = Alone(subject.spec.build(site)).eval()
        tokens = torch.empty(4, max(site.queries.tokens, site.keys.tokens), site.dim)
    return model, tokens


def macs(subject: Subject) -> str:
    """`macs()` equals the counts of torch and of fvcore, and both know every operator."""
    cases = subject.few if subject.quick else subject.cases
    met: set[str] = set()
    for case in cases:
        with at(case):
            model, tokens = _alone(subject, case.site)
            with as_written(), without_values():
                met |= own_operators(model, tokens) if operators() else set()
                counts = {
                    "torch": count_with_torch(model, tokens),
                    "fvcore": count_with_fvcore(model, tokens)[0],
                    "formula": by_category(model.attention.macs()),
                }
            try:
                check_agreement(counts, label=subject.spec.name)
            except ValueError as problem:
                same = counts["torch"]["products and convolutions"] == counts["formula"]["products and convolutions"]
                raise Broken(f"{case}: {problem}" + (WHAT_IS_WHAT if same else "")) from problem
    if unmet := _unmet(subject, met):
        raise Broken(
            f"operator {unmet} has a formula and was not called at {shown_sites(cases)}, so the formula counts nothing "
            "(counting runs on the device meta: is another way taken there?)"
        )
    said = f", with the registered formula of {', '.join(sorted(met))}" if met else ""
    return f"formula, torch and fvcore agree at {shown_sites(cases)}{said}"


def _unmet(subject: Subject, met: set[str]) -> str | None:
    """Return an operator that was given a formula for this attention alone, in its file, and was not called.

    Options may choose another way, so only the defaults are held to it.
    """
    module = subject.attention.__module__
    alone = [name for name in names() if lookup(name).__module__ == module] == [subject.spec.name]
    if not alone or subject.spec != AttentionSpec.parse(subject.spec.name):
        return None
    of_its_file = {name for name, formula in operators().items() if getattr(formula, "__module__", None) == module}
    return min(of_its_file - met, default=None)


WHAT_IS_WHAT = (
    "; the total is right, the categories are not: matmul and einsum count as attention, linear layers as projections"
)


def _square(subject: Subject, side: int) -> Site:
    grid = Grid(side, side)
    for site in (Site(dim, heads, grid, grid) for dim, heads in SHAPES):
        if subject.accepts(site):
            return site
    raise Broken(f"a map of {side}x{side} is refused, so growth cannot be measured")


def growth_of_macs(subject: Subject) -> str:
    """Counted multiply-adds grow with the declared power of the number of tokens."""
    sides = (128, 256)
    declared = subject.attention.exponent
    with at(f"maps of {' and '.join(f'{side}x{side}' for side in sides)}"):
        small, large = (
            count_with_torch(*_alone(subject, _square(subject, side)))["products and convolutions"] for side in sides
        )
    if small == large == 0:
        return "no matrix products at any size"
    slope = math.log(large / small) / math.log((sides[1] / sides[0]) ** 2) if small else math.inf
    require(
        abs(slope - declared) < 0.1, f"maps of {sides[0]}x{sides[0]} and {sides[1]}x{sides[1]}", _seen(slope, declared)
    )
    return f"power {slope:.2f}, declared {declared}"


def growth_of_time(subject: Subject) -> str:
    """Measured time grows with the declared power: products are not the only cost."""
    declared = subject.attention.exponent
    with at("growing maps"):
        side = _first_side(subject)
        slope, seconds = _slope(subject, side)
        # The ends of caches bend the curve; larger maps show the power that holds in the end.
        while abs(slope - declared) > TOLERANCE and seconds < SLOW:
            side *= 2
            slope, seconds = _slope(subject, side)
    maps = f"maps of {side // 2}x{side // 2} and {side}x{side}"
    require(abs(slope - declared) < TOLERANCE, maps, _seen(slope, declared))
    return f"power {slope:.2f}, declared {declared}; {maps}, {seconds * 1e3:.0f} ms for the larger"


TOLERANCE = 0.5
"""Allowed error of the fitted power: caches bend it by up to 0.4, and 1 and 2 must remain distinct."""

ENOUGH, MOST = 0.03, 256
"""Least seconds that the larger of two maps takes, and its longest side."""

MEASURED, SLOW = 0.15, 0.25
"""Seconds of work that are timed together, and seconds from which on a single pass says enough."""


def _first_side(subject: Subject) -> int:
    """Return the side of the larger of two maps, so large that overhead does not matter."""
    side = 32
    while side < MOST and _seconds(subject, side, 0) < ENOUGH:
        side *= 2
    return side


def _slope(subject: Subject, side: int) -> tuple[float, float]:
    """Return the power by which time grows from a map of half that side, and the seconds for the map of that side."""
    # The shorter of two times is the less disturbed one.
    small, large = (min(_seconds(subject, each, MEASURED) for _ in range(2)) for each in (side // 2, side))
    return math.log(large / small) / math.log(4), large


def _seconds(subject: Subject, side: int, at_least: float) -> float:
    """Return the mean time of a forward pass of one entry on a square map, in float32, over `at_least` seconds.

    On the CPU it is the user-mode time of this process, so that neither other processes nor the system's work on new
    pages of memory, which begins at some tensor size, bends the curve.
    """
    site = _square(subject, side)
    module = subject.build(site)
    generator = torch.Generator().manual_seed(1)
    names = ("q", "k", "v", "x") if module.takes_input else ("q", "k", "v")
    given = {name: torch.randn(1, side * side, site.dim, generator=generator).to(subject.device) for name in names}
    with torch.inference_mode():
        module(**given)
        began = _clock(subject.device)
        runs, taken = 0, 0.0
        while taken < at_least or not runs:
            module(**given)
            runs, taken = runs + 1, _clock(subject.device) - began
    return max(taken, 1e-6) / runs


def _clock(device: str) -> float:
    """Return the seconds that a device has worked, but for a constant."""
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_utime
    torch.cuda.synchronize()
    return time.perf_counter()


def _seen(slope: float, declared: int) -> str:
    return f"the cost grows with power {slope:.2f} of the number of tokens; declared is exponent = {declared}"
