"""The laws of mounting: where an attention can be built, and the shape and dtype that it returns.

B batch, N queries, C channels.
"""

from __future__ import annotations

import torch

import backbones
from harness.certificate.precision import MODES, Mode, cast
from harness.certificate.subject import CASES, Broken, Exempt, Subject, at, no_tensor, require, shown_sites
from harness.process.errors import first_line

FAMILIES = ("deit_t", "pvt_tiny", "pvt_v2_b0", "pvt_v2_b2_li", "swin_t", "cswin_t", "flatten_swin_t", "flatten_pvt_t")
"""Published geometry: class tokens, reduced and pooled keys, windows of 7x7 and of 56x56, stripes of 1x56."""


IMAGES = ((224, 224), (224, 448))


A_REFUSAL = "a site where the mathematics does not work is refused by a ValueError"


def builds(subject: Subject) -> str:
    """It can be mounted at every site of every family, on square and non-square images, or refuses with a reason."""
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


def shape(subject: Subject) -> str:
    """(B, N, C) comes out, in the dtype of v, at every small site."""
    for case in subject.cases:
        for mode in (Mode("float64 throughout", torch.float64, torch.float64, None), *MODES):
            with at(f"{case}, {mode.name}"), mode.cast(subject.device):
                out = subject.randomised(case.site).to(mode.parameters)(**cast(subject.inputs(case), mode.inputs))
            if not isinstance(out, torch.Tensor):
                raise Broken(f"{case}: {no_tensor(out)}")
            wanted = (case.batch, case.site.queries.tokens, case.site.dim)
            require(tuple(out.shape) == wanted, case, f"returned {tuple(out.shape)}, must be {wanted}")
            require(out.dtype == mode.inputs, case, f"{mode.name}, it returned {out.dtype}; v is {mode.inputs}")
            require(bool(out.isfinite().all()), case, f"{mode.name}, not finite on standard normal inputs")
    return shown_sites(subject.cases)
