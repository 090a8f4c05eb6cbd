"""The law of the map: the output is linear in the values, and is what the implied map makes of them, in float64.

B batch, N queries, M keys, C channels, h heads, d = C / h.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from attentions import Attention, ImpliedMap, implied_map
from harness.certificate.subject import (
    SAME,
    Case,
    Exempt,
    Inputs,
    Subject,
    at,
    difference,
    require,
    shown_sites,
)


def implied(subject: Subject) -> str:
    """The output is linear in the values, and rows of the implied map times the values give it."""
    if "v" not in subject.attention.reads:
        raise Exempt("it does not read v, so it implies no map of the values")
    cases = subject.few if subject.quick else subject.cases
    made = [
        (case, subject.randomised(case.site), {name: x.detach() for name, x in subject.inputs(case).items()})
        for case in cases
    ]
    for case, module, inputs in made:
        with at(case):
            _check_linear(module, inputs, case)
    kinds, worst = set(), 0.0
    for case, module, inputs in made:
        with at(case):
            bias, x, regions = map(inputs.get, ("bias", "x", "regions"))
            found = implied_map(module, inputs["q"], inputs["k"], inputs["v"], bias=bias, x=x, regions=regions)
            if found.kind == "jacobian":
                raise Exempt("linear in v, but it mixes channels: its maps are norms of a Jacobian, not weights")
            gap = max(difference(ours, wanted) for ours, wanted in _products(module, inputs, found))
            require(gap < SAME, case, f"the implied map times the values differs from the output by {gap:.1e}")
            kinds.add(found.kind)
            worst = max(worst, gap)
    return f"{' and '.join(sorted(kinds))}, {shown_sites(cases)}, largest difference {worst:.1e}"


def _check_linear(module: Attention, inputs: Inputs, case: Case) -> None:
    """Compare the output for a sum of values with the sum of outputs; of one part, every other token is zero."""
    v, sparse = inputs["v"], inputs["v"].flip(0).clone()
    sparse[:, ::2] = 0
    both, one, other = (module(**{**inputs, "v": values}) for values in (3 * v - 2 * sparse, v, sparse))
    gap = difference(both, 3 * one - 2 * other)
    require(
        gap < SAME,
        case,
        f"not linear in v: the output for a sum of values differs by {gap:.1e} from the sum of outputs; "
        "if that is meant, exempt must say why: {'map': 'the reason'}",
    )


def _products(module: Attention, inputs: Inputs, found: ImpliedMap) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the map times values, and the output that it must be, both by heads."""
    site = module.site

    def by_heads(x: Tensor) -> Tensor:
        """Split (B, N, C) into (B, h, N, d)."""
        return x.unflatten(-1, (site.heads, site.head_dim)).transpose(1, 2)

    # Where the channels of a head have the same values, their mean output is what their mean map makes of these.
    values = by_heads(inputs["v"]).mean(dim=-1, keepdim=True)
    alike = values.expand(-1, -1, -1, site.head_dim).transpose(1, 2).flatten(2)
    out = by_heads(module(**{**inputs, "v": alike}) - found.offset)
    yield found.together @ values, out.mean(dim=-1, keepdim=True)
    if found.kind == "per head" and found.convolution is None:
        yield found.weights @ by_heads(inputs["v"]), by_heads(module(**inputs) - found.offset)
