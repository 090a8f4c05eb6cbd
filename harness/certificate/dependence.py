"""The laws of dependence: what the output depends on, and what it must not depend on, in float64.

N queries, M keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from attentions import Attention, AttentionSpec
from harness.certificate.subject import (
    REGIONS,
    SAME,
    Broken,
    Case,
    Exempt,
    Subject,
    at,
    difference,
    gradients,
    leaves,
    loss_of,
    quarters,
    require,
    shown_sites,
)

ROUGH = 1e-4
"""Relative l2 difference above which lower precision than float64 is no explanation."""


def batch(subject: Subject) -> str:
    """Entries of a batch (images, windows, stripes) do not influence each other."""
    for case in subject.cases:
        with at(case):
            module, inputs = subject.randomised(case.site), subject.inputs(case)
            entries = [{name: x[i : i + 1] for name, x in inputs.items()} for i in range(case.batch)]
            for mode in (True, False):
                together = module.train(mode)(**inputs)
                gap = difference(together, torch.cat([module(**entry) for entry in entries]))
                named = "training" if mode else "evaluation"
                require(
                    gap < SAME, case, f"in {named} mode, an entry alone differs by {gap:.1e} from itself in a batch"
                )
            for name, g in zip(inputs, gradients(together[:1], leaves(inputs)), strict=False):
                require(float(g[1:].abs().max()) == 0, case, f"the first entry depends on {name} of other entries")
    return shown_sites(subject.cases)


def permutation(subject: Subject) -> str:
    """Permuted tokens give the permuted output, unless positions are declared to matter; then they do matter."""
    moved = 0.0
    declared = None
    for case in subject.cases:
        with at(case):
            module, inputs = subject.randomised(case.site), subject.inputs(case)
            declared = module.uses_positions
            gap = max(_permutation_gaps(module, inputs, case))
        if not declared:
            require(
                gap < SAME,
                case,
                f"a permutation of the tokens changes the output by {gap:.1e} beyond permuting it; "
                + ("positions matter, so uses_positions must be True" if gap > ROUGH else "is everything in float64?"),
            )
        moved = max(moved, gap)
    if declared and moved < SAME:
        raise Broken("uses_positions is True, but permuting the tokens only permutes the output")
    return "positions matter, as declared" if declared else f"permutes with the tokens at {shown_sites(subject.cases)}"


def _permutation_gaps(module: Attention, inputs: dict[str, Tensor], case: Case) -> Iterator[float]:
    """Yield the difference from the permuted output, for each kind of permutation that the site allows."""
    n, m = case.site.queries.tokens, case.site.keys.tokens
    generator = torch.Generator().manual_seed(3)
    out = module(**inputs)
    rows = torch.randperm(n, generator=generator)
    # Where queries and keys are the same tokens they move together; otherwise each moves alone.
    columns = rows if case.site.queries == case.site.keys else torch.randperm(m, generator=generator)
    moves = [(rows, columns)] if columns is rows else [(rows, torch.arange(m)), (torch.arange(n), columns)]
    for of_queries, of_keys in moves:
        places = {"q": of_queries, "x": of_queries, "regions": of_queries, "k": of_keys, "v": of_keys}
        permuted = {name: x[:, places[name]] for name, x in inputs.items() if name in places}
        if "bias" in inputs:
            permuted["bias"] = inputs["bias"][:, :, of_queries][..., of_keys]
        yield difference(module(**permuted), out[:, of_queries])


def mask(subject: Subject) -> str:
    """A key masked by `bias` does not reach the output, and different regions do not mix, if either is declared."""
    takes = []
    if subject.attention.takes_bias:
        _check_bias(subject)
        takes.append("bias")
    if subject.attention.takes_regions and REGIONS in subject.cases:
        _check_regions(subject)
        takes.append("regions")
    if not takes and subject.attention.takes_regions:
        raise Exempt(f"it refuses sites with regions: {REGIONS}")
    if not takes:
        raise Exempt("declares that it takes no mask: tokens of a shifted window mix across the image border")
    return f"{' and '.join(takes)} honoured"


def _check_bias(subject: Subject) -> None:
    for case in subject.few:
        if case.site.regions > 1:
            continue
        with at(case):
            module, inputs = subject.randomised(case.site), subject.inputs(case)
            cut = torch.zeros(case.site.queries.tokens, case.site.keys.tokens, dtype=torch.float64)
            cut = cut.to(subject.device)
            cut[0, -1] = -100
            plain, masked = (
                {**inputs, "bias": bias.expand_as(inputs["bias"])} for bias in (torch.zeros_like(cut), cut)
            )
            reach = [float(_reach(module, given, 0)[-1]) for given in (plain, masked)]
            require(
                reach[1] < 1e-20 < reach[0],
                case,
                f"with a bias of -100 the value of a key has {reach[1]:.1e} of influence on the query, without it "
                f"{reach[0]:.1e}",
            )
            moved = difference(module(**inputs), module(**plain))
            require(
                moved > 1e-6, case, f"takes_bias is declared, but a random bias changes the output by only {moved:.1e}"
            )


def _reach(module: Attention, inputs: dict[str, Tensor], query: int) -> Tensor:
    """Return (M,): the largest derivative of one query's output by the value of each key, in the first entry."""
    (found,) = torch.autograd.grad(loss_of(module(**inputs)[:1, query]), inputs["v"])
    return found[0].abs().amax(dim=-1)


def _check_regions(subject: Subject) -> None:
    with at(REGIONS):
        module, inputs = subject.randomised(REGIONS.site), subject.inputs(REGIONS)
        labels = quarters(REGIONS.site.queries)
        whole = {**inputs, "regions": torch.zeros_like(inputs["regions"])}
        # With a single region, the output is that of a site without regions.
        plain = subject.randomised(replace(REGIONS.site, regions=1))
        gap = difference(module(**whole), plain(**{name: x for name, x in inputs.items() if name != "regions"}))
        require(
            gap < SAME,
            REGIONS,
            f"with all tokens in one region the output differs by {gap:.1e} from that without regions",
        )
        names = [name for name in ("q", "k", "v", "x") if name in inputs]
        found = gradients(module(**inputs)[:1, labels == 0], [inputs[name] for name in names])
        for name, g in zip(names, found, strict=True):
            leak = float(g.detach()[0, labels != 0].abs().max())
            require(leak == 0, REGIONS, f"{name} of another region reaches the output, with a derivative of {leak:.1e}")
        own = max(float(g[0, labels == 0].abs().max()) for g in found)
        require(own > 0, REGIONS, "a token's own region does not reach its output")


def reads(subject: Subject) -> str:
    """Of q, k, v and x, those that it declares to read reach the output, and no others do.

    An option may leave x unread, such as one that switches off the gate; with the defaults x must reach the output.
    """
    declared = [*subject.attention.reads, *("x" * subject.attention.takes_input)]
    reached = dict.fromkeys(sorted({*"qkv", *declared}), 0.0)
    for case in subject.cases:
        with at(case):
            inputs = subject.inputs(case)
            found = gradients(subject.randomised(case.site)(**inputs), [inputs[name] for name in reached])
            for name, g in zip(reached, found, strict=True):
                reached[name] = max(reached[name], float(g.abs().max()))
                require(
                    name in declared or not reached[name],
                    case,
                    f"{name} reaches the output but is not declared to be read",
                )
    unread = [name for name in declared if not reached[name]]
    if unread == ["x"] and subject.spec != AttentionSpec(subject.spec.name):
        return f"{', '.join(declared[:-1])}, as declared; x is not read with these options"
    if unread:
        says = "takes_input" if unread == ["x"] else "reads"
        raise Broken(
            f"declared to be read, but reaches the output at no site: {', '.join(unread)}; {says} must list what is"
        )
    return f"{', '.join(declared)}, as declared"


def parameters(subject: Subject) -> str:
    """Every parameter gets a nonzero gradient at some site."""
    reached: dict[str, tuple[bool, Case]] = {}
    for case in subject.cases:
        with at(case):
            module = subject.randomised(case.site)
            named = dict(module.named_parameters())
            found = gradients(module(**subject.inputs(case)), list(named.values())) if named else []
            for name, g in zip(named, found, strict=True):
                before, first = reached.get(name, (False, case))
                reached[name] = (before or bool(g.abs().max() > 0), first)
    for name, (has, case) in reached.items():
        require(has, case, f"{name} gets no gradient here or at any other site")
    return f"each of {len(reached)}" if reached else "it has none"
