"""The laws of the mathematics: each takes a `Subject`, returns what was tried, and raises `Broken` or `Exempt`.

All of these are in float64. N queries, M keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

import backbones
from attentions import Attention, AttentionSpec
from harness.certificate.precision import MODES, Mode
from harness.certificate.subject import (
    CASES,
    REGIONS,
    Broken,
    Case,
    Exempt,
    Inputs,
    Subject,
    at,
    cast,
    difference,
    gradients,
    leaves,
    loss_of,
    quarters,
    require,
    shown_sites,
)
from harness.measures.meta_device import autocast_on_meta
from harness.process.errors import first_line

SAME, SAME_GRADIENT = 1e-9, 1e-7
"""Largest relative l2 difference of two float64 outputs, or gradients, that are one function's."""

ROUGH = 1e-4
"""Relative l2 difference of an output that was computed in less than float64 somewhere."""

ROUNDING = 1e-13
"""Of the largest gradient of a module: what another gradient may be by rounding alone."""

FAMILIES = ("deit_t", "pvt_tiny", "pvt_v2_b0", "pvt_v2_b2_li", "swin_t", "cswin_t", "flatten_swin_t", "flatten_pvt_t")
"""Published geometry: class tokens, reduced and pooled keys, windows of 7x7 and of 56x56, stripes of 1x56."""

IMAGES = ((224, 224), (224, 448))


def builds(subject: Subject) -> str:
    """It can be mounted at every site of every family, on square and non-square images, or says why not."""
    for case in CASES:
        try:
            subject.build(case.site)
        except ValueError as refusal:
            require("\n" not in str(refusal), case, f"the refusal is of several lines: {str(refusal)!r}")
        except Exception as problem:
            raise Broken(f"{case}: {type(problem).__name__}: {first_line(problem)}; {A_REFUSAL}") from problem
    refused: dict[str, list[str]] = {}
    for name in FAMILIES:
        for image_size in IMAGES:
            try:
                backbones.preset(name, attention=subject.spec, image_size=image_size)
            except ValueError as problem:
                reason = str(problem).removeprefix(f"{name}: ").removeprefix(f"{subject.spec.name}: ")
                require("\n" not in reason, name, f"the refusal is of several lines: {reason!r}")
                require(not reason.startswith("the constructor of "), name, f"{reason}; {A_REFUSAL}")
                refused.setdefault(reason, []).append(name)
    if not subject.cases or sum(map(len, refused.values())) == len(FAMILIES) * len(IMAGES):
        raise Broken(f"it cannot be mounted anywhere: {'; '.join(refused) or 'the small sites are refused'}")
    if refused:
        names = dict.fromkeys(name for found in refused.values() for name in found)
        raise Exempt(f"{', '.join(names)}: {next(iter(refused))}")
    return f"{len(FAMILIES)} published backbones, square and non-square"


A_REFUSAL = "a site where the mathematics does not work is refused by a ValueError"


def shape(subject: Subject) -> str:
    """(B, N, C) comes out, in the dtype of v, at every small site."""
    for case in subject.cases:
        for mode in (Mode("float64 throughout", torch.float64, torch.float64, None), *MODES):
            with at(f"{case}, {mode.name}"), mode.cast():
                out = subject.stirred(case.site).to(mode.parameters)(**cast(subject.inputs(case), mode.inputs))
            wanted = (case.batch, case.site.queries.tokens, case.site.dim)
            require(tuple(out.shape) == wanted, case, f"returned {tuple(out.shape)}, must be {wanted}")
            require(out.dtype == mode.inputs, case, f"{mode.name}, it returned {out.dtype}; v is {mode.inputs}")
            require(bool(out.isfinite().all()), case, f"{mode.name}, not finite on standard normal inputs")
    return shown_sites(subject.cases)


def reference(subject: Subject) -> str:
    """The output is that of the declared definition, of inputs of two scales, and with every shape of a bias."""
    _check_declares_naive(subject.attention)
    worst = 0.0
    cases = (*subject.cases, *subject.large)
    for case in cases:
        with at(case):
            module, inputs = subject.stirred(case.site), subject.inputs(case)
            for what, given in _variants(inputs) if case in subject.cases else [("", inputs)]:
                gap = difference(module(**given), _by_definition(module, given, case))
                require(gap < SAME, case, f"differs from naive() by {gap:.1e} of its norm{what}; allowed is {SAME:.0e}")
                worst = max(worst, gap)
    return f"{shown_sites(cases)}, largest difference {worst:.1e}"


def _variants(inputs: Inputs) -> list[tuple[str, Inputs]]:
    """What is handed over, and how it differs from standard normal inputs with a bias of each head and entry."""
    variants = [("", inputs), (", for q and k of scale 4", {**inputs, "q": 4 * inputs["q"], "k": 4 * inputs["k"]})]
    if "bias" in inputs:
        # Hosts without a position bias hand none over; an unshifted window's is the same for all entries.
        variants += [
            (", without bias", {name: x for name, x in inputs.items() if name != "bias"}),
            (", with one bias for all entries", {**inputs, "bias": inputs["bias"][:1]}),
        ]
    return variants


def _by_definition(module: Attention, inputs: Inputs, case: Case) -> Tensor:
    """What `naive` gives, which may not be made of `forward`."""

    def forward(*args: object, **kwargs: object) -> Tensor:
        raise Broken(f"{case}: naive() calls forward(), which it is to be compared with")

    module.forward = forward  # type: ignore[method-assign]
    try:
        return module.naive(**inputs)
    finally:
        del module.forward


def gradient(subject: Subject) -> str:
    """In training, output and gradients are those of the declared definition, or else of finite differences."""
    declared = subject.attention.naive is not Attention.naive
    worst = 0.0
    for case in subject.cases if declared else subject.cases[:1]:
        with at(case):
            module, inputs = subject.stirred(case.site).train(), subject.inputs(case)
            wanted = {
                **{name: x for name, x in inputs.items() if x.is_floating_point()},
                **dict(module.named_parameters()),
            }
            if not declared:
                torch.autograd.gradcheck(
                    lambda *args, module=module, inputs=inputs: module(**inputs), list(wanted.values()), fast_mode=True
                )
                return "as finite differences have them, at 1 site: no definition is declared"
            out, defined = module(**inputs), module.naive(**inputs)
            gap = difference(out, defined)
            require(gap < SAME, case, f"in training it differs from naive() by {gap:.1e} of its norm")
            ours, theirs = gradients(out, list(wanted.values())), gradients(defined, list(wanted.values()))
            size = max(float(g.norm()) for g in theirs)
            for name, a, b in zip(wanted, ours, theirs, strict=True):
                # A gradient that is zero but for rounding has no direction of its own.
                gap = difference(a, b)
                if float((a - b).norm()) < ROUNDING * size:
                    gap = min(gap, float((a - b).norm()) / size)
                require(
                    gap < SAME_GRADIENT,
                    case,
                    f"the gradient of {name} differs from that of naive() by {gap:.1e} of its norm; "
                    f"allowed is {SAME_GRADIENT:.0e}",
                )
                worst = max(worst, gap)
    return f"{shown_sites(subject.cases)}, largest difference {worst:.1e}"


def batch(subject: Subject) -> str:
    """Entries of a batch (images, windows, stripes) do not see each other."""
    for case in subject.cases:
        with at(case):
            module, inputs = subject.stirred(case.site), subject.inputs(case)
            entries = [{name: x[i : i + 1] for name, x in inputs.items()} for i in range(case.batch)]
            for mode in (True, False):
                together = module.train(mode)(**inputs)
                gap = difference(together, torch.cat([module(**entry) for entry in entries]))
                named = "training" if mode else "evaluation"
                require(gap < SAME, case, f"in {named}, an entry by itself differs by {gap:.1e} from it in a batch")
            for name, g in zip(inputs, gradients(together[:1], leaves(inputs)), strict=False):
                require(float(g[1:].abs().max()) == 0, case, f"the first entry depends on {name} of the others")
    return shown_sites(subject.cases)


def permutation(subject: Subject) -> str:
    """Permuted tokens give the permuted output, if places are declared not to matter; if to matter, they do."""
    moved = 0.0
    declared = None
    for case in subject.cases:
        with at(case):
            module, inputs = subject.stirred(case.site), subject.inputs(case)
            declared = module.uses_positions
            gap = max(_permutation_gaps(module, inputs, case))
        if not declared:
            require(
                gap < SAME,
                case,
                f"a permutation of the tokens changes the output by {gap:.1e} beyond permuting it; "
                + ("places matter, so uses_positions must be True" if gap > ROUGH else "is all of it in float64?"),
            )
        moved = max(moved, gap)
    if declared and moved < SAME:
        raise Broken("uses_positions is True, but a permutation of the tokens permutes the output and nothing else")
    return "places matter, as declared" if declared else f"permutes with the tokens at {shown_sites(subject.cases)}"


def _permutation_gaps(module: Attention, inputs: dict[str, Tensor], case: Case) -> Iterator[float]:
    """How far the output is from the permuted one, for permutations of the tokens that the site allows."""
    n, m = case.site.queries.tokens, case.site.keys.tokens
    generator = torch.Generator().manual_seed(3)
    out = module(**inputs)
    rows = torch.randperm(n, generator=generator)
    # Where queries and keys are one set of tokens they move together; else each moves by itself.
    columns = rows if case.site.queries == case.site.keys else torch.randperm(m, generator=generator)
    moves = [(rows, columns)] if columns is rows else [(rows, torch.arange(m)), (torch.arange(n), columns)]
    for of_queries, of_keys in moves:
        places = {"q": of_queries, "x": of_queries, "regions": of_queries, "k": of_keys, "v": of_keys}
        permuted = {name: x[:, places[name]] for name, x in inputs.items() if name in places}
        if "bias" in inputs:
            permuted["bias"] = inputs["bias"][:, :, of_queries][..., of_keys]
        yield difference(module(**permuted), out[:, of_queries])


def mask(subject: Subject) -> str:
    """What `bias` cuts off does not reach the output; unlike regions do not mix; or neither is declared to be taken."""
    takes = []
    if subject.attention.takes_bias:
        _check_bias(subject)
        takes.append("bias")
    if subject.attention.takes_regions and REGIONS in subject.cases:
        _check_regions(subject)
        takes.append("regions")
    if not takes and subject.attention.takes_regions:
        raise Exempt(f"it is refused where there are regions: {REGIONS}")
    if not takes:
        raise Exempt("declares that it takes no mask: tokens of a shifted window mix across the image border")
    return f"{' and '.join(takes)} honoured"


def _check_bias(subject: Subject) -> None:
    for case in subject.few:
        if case.site.regions > 1:
            continue
        with at(case):
            module, inputs = subject.stirred(case.site), subject.inputs(case)
            cut = torch.zeros(case.site.queries.tokens, case.site.keys.tokens, dtype=torch.float64)
            cut[0, -1] = -100
            plain, masked = (
                {**inputs, "bias": bias.expand_as(inputs["bias"])} for bias in (torch.zeros_like(cut), cut)
            )
            reach = [float(_reach(module, given, 0)[-1]) for given in (plain, masked)]
            require(
                reach[1] < 1e-20 < reach[0],
                case,
                f"a bias of -100 leaves the value of a key {reach[1]:.1e} of influence on its query, without it "
                f"{reach[0]:.1e}",
            )
            moved = difference(module(**inputs), module(**plain))
            require(moved > 1e-6, case, f"takes_bias is declared, and a random bias changes the output by {moved:.1e}")


def _reach(module: Attention, inputs: dict[str, Tensor], query: int) -> Tensor:
    """(M,) largest derivative of one query's output by the value of each key, in the first entry."""
    (found,) = torch.autograd.grad(loss_of(module(**inputs)[:1, query]), inputs["v"])
    return found[0].abs().amax(dim=-1)


def _check_regions(subject: Subject) -> None:
    with at(REGIONS):
        module, inputs = subject.stirred(REGIONS.site), subject.inputs(REGIONS)
        labels = quarters(REGIONS.site.queries)
        whole = {**inputs, "regions": torch.zeros_like(inputs["regions"])}
        # Of one region only, the output is that of a site that knows no regions.
        plain = subject.stirred(replace(REGIONS.site, regions=1))
        gap = difference(module(**whole), plain(**{name: x for name, x in inputs.items() if name != "regions"}))
        require(gap < SAME, REGIONS, f"with all tokens in one region the output differs by {gap:.1e} from no regions")
        names = [name for name in ("q", "k", "v", "x") if name in inputs]
        found = gradients(module(**inputs)[:1, labels == 0], [inputs[name] for name in names])
        for name, g in zip(names, found, strict=True):
            leak = float(g.detach()[0, labels != 0].abs().max())
            require(leak == 0, REGIONS, f"{name} of another region reaches the output, with a derivative of {leak:.1e}")
        own = max(float(g[0, labels == 0].abs().max()) for g in found)
        require(own > 0, REGIONS, "the own region does not reach the output")


def reads(subject: Subject) -> str:
    """What it declares to read of q, k and v, and to take of x, reaches the output; nothing else of them does.

    An option may leave x unread, as one that switches off the gate does; with the defaults it must reach the output.
    """
    declared = [*subject.attention.reads, *("x" * subject.attention.takes_input)]
    reached = dict.fromkeys(sorted({*"qkv", *declared}), 0.0)
    for case in subject.cases:
        with at(case):
            inputs = subject.inputs(case)
            found = gradients(subject.stirred(case.site)(**inputs), [inputs[name] for name in reached])
            for name, g in zip(reached, found, strict=True):
                reached[name] = max(reached[name], float(g.abs().max()))
                require(
                    name in declared or not reached[name],
                    case,
                    f"{name} reaches the output, and is not declared to be read",
                )
    unread = [name for name in declared if not reached[name]]
    if unread == ["x"] and subject.spec != AttentionSpec(subject.spec.name):
        return f"{', '.join(declared[:-1])}, as declared; x not with these options"
    if unread:
        says = "takes_input" if unread == ["x"] else "reads"
        raise Broken(f"{', '.join(unread)} declared to be read reaches the output at no site: {says} must say what is")
    return f"{', '.join(declared)}, as declared"


def parameters(subject: Subject) -> str:
    """Every parameter gets a gradient."""
    reached: dict[str, tuple[bool, Case]] = {}
    for case in subject.cases:
        with at(case):
            module = subject.stirred(case.site)
            named = dict(module.named_parameters())
            found = gradients(module(**subject.inputs(case)), list(named.values())) if named else []
            for name, g in zip(named, found, strict=True):
                before, first = reached.get(name, (False, case))
                reached[name] = (before or bool(g.abs().max() > 0), first)
    for name, (has, case) in reached.items():
        require(has, case, f"{name} gets no gradient here nor at any other site")
    return f"each of {len(reached)}" if reached else "it has none"


def state(subject: Subject) -> str:
    """A state dict, or a copy, has the same outputs to the bit; a step changes none of it; it moves with the module."""
    for case in subject.cases:
        with at(case):
            module, other = subject.stirred(case.site, seed=0), subject.stirred(case.site, seed=5)
            before = {name: value.clone() for name, value in module.state_dict().items()}
            inputs = subject.inputs(case)
            out = module.train()(**inputs)
            gradients(out, leaves(inputs))
            for name, value in module.state_dict().items():
                require(torch.equal(value, before[name]), case, f"a step of training changes {name}")
            other.load_state_dict(before)
            gap = difference(other.eval()(**inputs), module.eval()(**inputs))
            require(gap == 0, case, f"with the state dict of another module the output differs from its by {gap:.1e}")
            # What moving averages and scripts do with a model. Some kernels have another order for another layout.
            copy = deepcopy(module).to(memory_format=torch.channels_last)
            gap = difference(copy(**inputs), module(**inputs))
            require(gap < SAME, case, f"a copy, channels last, gives an output that differs by {gap:.1e}")
        with at(f"{case}, moved to another device"), autocast_on_meta():
            copy.to("meta")(**{name: x.to("meta") for name, x in inputs.items()})
    return shown_sites(subject.cases)


def deterministic(subject: Subject) -> str:
    """The same inputs give the same bits, in evaluation and in training, and the same seed the same parameters."""
    for case in subject.cases:
        with at(case):
            module, inputs = subject.stirred(case.site), subject.inputs(case)
            for mode in (True, False):
                torch.rand(1)  # not in the state that a seed leaves
                generator = torch.get_rng_state()
                runs = [module.train(mode)(**inputs) for _ in range(2)]
                found = [gradients(out, leaves(inputs)) for out in runs]
                named = "training" if mode else "evaluation"
                require(torch.equal(runs[0], runs[1]), case, f"two runs in {named} mode differ")
                require(all(map(torch.equal, *found)), case, f"gradients of two runs in {named} mode differ")
                still = torch.equal(generator, torch.get_rng_state())
                require(still, case, f"in {named} mode it moves the generator of random numbers")
            with torch.no_grad():
                gap = difference(module(**inputs), runs[0])
            require(gap < SAME, case, f"without gradients the output differs by {gap:.1e}")
            states = [subject.build(case.site).state_dict() for _ in range(2)]
            for name, value in states[0].items():
                require(torch.equal(value, states[1][name]), case, f"{name} differs though the seed is the same")
    return shown_sites(subject.cases)


def inputs(subject: Subject) -> str:
    """The inputs stay as they were, and may be views into a larger tensor, as the hosts' projections hand them over."""
    for case in subject.cases:
        with at(case):
            module, given = subject.stirred(case.site), {k: x.detach() for k, x in subject.inputs(case).items()}
            before = {name: x.clone() for name, x in given.items()}
            out = module(**given)
            for name, x in given.items():
                require(torch.equal(x, before[name]), case, f"forward changes {name} in place")
        for what, view in VIEWS.items():
            with at(f"{case}, inputs that are {what}"):
                gap = difference(module(**{name: view(x) for name, x in given.items()}), out)
                require(gap < SAME, case, f"inputs that are {what} change the output by {gap:.1e}")
    return shown_sites(subject.cases)


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    # As of a layer that projects q, k and v together.
    "slices of wider tokens": lambda x: x.repeat_interleave(3, dim=-2).unflatten(-2, (-1, 3))[..., 1, :],
    "every other channel": lambda x: x.repeat_interleave(2, dim=-1)[..., ::2],
    "transposed images": lambda x: x.transpose(-2, -1).contiguous().transpose(-2, -1),
}


def memory(subject: Subject) -> str:
    """Nothing depends on uninitialised memory: here it is full of NaN."""
    for case in subject.cases:
        with at(case), _poisoned():
            module = subject.build(case.site)
            for name, value in module.state_dict(keep_vars=True).items():
                require(bool(value.isfinite().all()), case, f"{name} is not initialised")
            given = {k: x.float() if x.is_floating_point() else x for k, x in subject.inputs(case).items()}
            out = module(**given)
            require(bool(out.isfinite().all()), case, "the output holds uninitialised memory")
            for g in gradients(out, [*leaves(given), *module.parameters()]):
                require(bool(g.isfinite().all()), case, "a gradient holds uninitialised memory")
    return shown_sites(subject.cases)


@contextmanager
def _poisoned() -> Iterator[None]:
    """torch.empty and its like are filled with NaN, which torch does where algorithms are to be deterministic."""
    before, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn)


def _check_declares_naive(attention: type[Attention]) -> None:
    if attention.naive is Attention.naive:
        raise Exempt("declares no definition (naive) to be compared with")
