"""The laws of the definition: output and gradients are those of `naive`, in float64.

B batch, N queries, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attentions import PATHS, Attention, used_paths, using_path
from harness.certificate.subject import (
    SAME,
    Broken,
    Case,
    Exempt,
    Inputs,
    Subject,
    at,
    difference,
    gradients,
    leaves,
    require,
    shown_sites,
)

SAME_GRADIENT = 1e-7
"""Largest relative l2 difference of two float64 gradients that count as equal."""


ROUNDING = 1e-13
"""Norm that a gradient may have by rounding alone, relative to the largest gradient of the module."""


def reference(subject: Subject) -> str:
    """The output equals that of the declared definition, for inputs of two scales and every shape of a bias."""
    if subject.attention.naive is Attention.naive:
        raise Exempt("declares no definition (naive) to be compared with")
    worst = 0.0
    cases = (*subject.cases, *subject.large)
    for case in cases:
        with at(case):
            module, inputs = subject.randomised(case.site), subject.inputs(case)
            for what, given in _variants(inputs) if case in subject.cases else [("", inputs)]:
                gap = difference(module(**given), _by_definition(module, given, case))
                require(gap < SAME, case, f"differs from naive() by {gap:.1e} of its norm{what}; allowed is {SAME:.0e}")
                worst = max(worst, gap)
    return f"{shown_sites(cases)}, largest difference {worst:.1e}"


def _variants(inputs: Inputs) -> list[tuple[str, Inputs]]:
    """Return (how they differ from standard normal inputs with a bias per entry and head, inputs)."""
    variants = [("", inputs), (", for q and k of scale 4", {**inputs, "q": 4 * inputs["q"], "k": 4 * inputs["k"]})]
    if "bias" in inputs:
        # Hosts without a position bias pass none; that of an unshifted window is the same for all entries.
        variants += [
            (", without a bias", {name: x for name, x in inputs.items() if name != "bias"}),
            (", with one bias for all entries", {**inputs, "bias": inputs["bias"][:1]}),
        ]
    return variants


def _by_definition(module: Attention, inputs: Inputs, case: Case) -> Tensor:
    """Return the output (B, N, C) of `naive`, which must not call `forward`."""

    def forward(*args: object, **kwargs: object) -> Tensor:
        raise Broken(f"{case}: naive() calls forward(), with which it is compared")

    module.forward = forward  # type: ignore[method-assign]
    try:
        return module.naive(**inputs)
    finally:
        del module.forward


def gradient(subject: Subject) -> str:
    """In training mode, output and gradients equal those of the declared definition, or else finite differences."""
    declared = subject.attention.naive is not Attention.naive
    worst = 0.0
    for case in subject.cases if declared else subject.cases[:1]:
        with at(case):
            module, inputs = subject.randomised(case.site).train(), subject.inputs(case)
            wanted = {
                **{name: x for name, x in inputs.items() if x.is_floating_point()},
                **dict(module.named_parameters()),
            }
            if not declared:
                torch.autograd.gradcheck(
                    lambda *args, module=module, inputs=inputs: module(**inputs), list(wanted.values()), fast_mode=True
                )
                return "equal to finite differences at 1 site: no definition is declared"
            out, defined = module(**inputs), module.naive(**inputs)
            gap = difference(out, defined)
            require(gap < SAME, case, f"in training mode it differs from naive() by {gap:.1e} of its norm")
            ours, theirs = gradients(out, list(wanted.values())), gradients(defined, list(wanted.values()))
            size = max(float(g.norm()) for g in theirs)
            for name, a, b in zip(wanted, ours, theirs, strict=True):
                # A gradient that is zero up to rounding has no meaningful direction.
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


SAME_PATH, SAME_ROUNDED = 1e-12, 1e-6
"""Largest relative l2 difference of a path's outputs and gradients in float64, and of those in float32 from these."""


def paths(subject: Subject) -> str:
    """Each path to the result gives the outputs and gradients of torch's operators, in float64 and float32."""
    taken: dict[str, float] = {}
    for case in (*subject.cases, *subject.large):
        with at(case):
            for path in PATHS[1:]:
                exact = _taken(subject, case, torch.float64, "plain")[0]
                found, used = _taken(subject, case, torch.float64, path)
                if path not in used:
                    continue
                gap = max(map(difference, found, exact))
                taken[path] = max(taken.get(path, 0.0), gap)
                what = f"the path {path} differs from torch's operators by"
                require(gap < SAME_PATH, case, f"{what} {gap:.1e}; allowed is {SAME_PATH:.0e}")
                # Of operators in float32 themselves, some gradients are far from those in float64.
                (rounded, _), (plain, _) = (_taken(subject, case, torch.float32, each) for each in (path, "plain"))
                for ours, theirs, wanted in zip(rounded, plain, exact, strict=True):
                    gap, allowed = difference(ours, wanted), max(SAME_ROUNDED, 2 * difference(theirs, wanted))
                    require(gap < allowed, case, f"in float32 {what} {gap:.1e}; allowed is {allowed:.0e}")
                # With regions, torch's operators spread it: they multiply what is masked by zero.
                for name in ("q", "k", "v") if case.site.regions == 1 else ():
                    shown, hidden = (_not_finite(subject, case, name, each) for each in ("plain", path))
                    require(torch.equal(shown, hidden), case, f"the path {path} hides a NaN in {name}, or spreads it")
    if not taken:
        return "torch's operators only"
    return ", ".join(f"{path}, largest difference {gap:.1e}" for path, gap in taken.items())


def _not_finite(subject: Subject, case: Case, name: str, path: str) -> Tensor:
    """Return which outputs of a path are not finite where a channel of one token is not a number, in float32."""
    inputs = dict(subject.inputs(case))
    inputs[name] = inputs[name].clone()
    inputs[name][0, -1, 0] = torch.nan
    module = subject.randomised(case.site).to(torch.float32)
    with torch.no_grad(), using_path(path):
        return ~module(**{key: x.float() if x.is_floating_point() else x for key, x in inputs.items()}).isfinite()


def _taken(subject: Subject, case: Case, dtype: torch.dtype, path: str) -> tuple[list[Tensor], set[str]]:
    """Return the output and the gradients of inputs and parameters by a path, and the paths that were taken."""
    module = subject.randomised(case.site).to(dtype)
    inputs = {
        name: x.detach().to(dtype).requires_grad_() if x.is_floating_point() else x
        for name, x in subject.inputs(case).items()
    }
    with using_path(path), used_paths() as used:
        out = module(**inputs)
    return [out, *gradients(out, [*leaves(inputs), *module.parameters()])], used
