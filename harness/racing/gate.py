"""The gate of a race: what is wrong gets no number. Outputs and gradients are compared with float64."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from attentions import AttentionSpec
from backbones import BackboneSpec
from harness.certificate import definition
from harness.certificate.precision import NEAR
from harness.certificate.subject import Broken, Exempt, Subject, at, difference, loss_of, no_tensor, require
from harness.racing.candidates import Work
from harness.racing.entries import Entry, forced
from harness.runtimes.gate import agreement
from harness.runtimes.sessions import Deployed

FLOAT32 = 1e-4
"""Largest relative l2 difference of a float32 result: thousands of tokens have a tenth of it, TF32 has ten times it."""

SMALL = 1e-2
"""A gradient smaller than this share of the largest is compared with that share: by itself it may be mere rounding."""


@lru_cache
def lawful(spec: AttentionSpec, device: str, path: str | None) -> str:
    """Return how an attention was compared with its `naive`, in float64 at the small sites of the certificate.

    `path`: one of `attentions.PATHS`, if it is forced. Raises Broken where output or gradients differ.
    """
    subject = Subject(spec, quick=True, device=device)
    try:
        with torch.random.fork_rng(devices=()), forced(path):
            return f"naive(): {definition.reference(subject)}; gradients: {definition.gradient(subject)}"
    except Exempt as reason:
        return str(reason)


def tolerance(entry: Entry) -> float:
    """Return the largest relative l2 difference: of a half precision in its eps, once for each block of a model."""
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(entry.runtime.precision)
    if half is None:
        return FLOAT32
    spec = entry.candidate.reference
    depth = len(spec.mounts()) if isinstance(spec, BackboneSpec) else 1
    return NEAR * torch.finfo(half).eps * depth


def check(entry: Entry, work: Work) -> str:
    """Return how the raced module was compared with its reference in float64, on the raced inputs.

    What another runtime runs is compared with eager float32, on zeros and on the inputs scaled by 10 as well.

    Raises Broken with what differs, or with what went wrong.
    """
    spec = entry.candidate.reference
    attention = spec.attention if isinstance(spec, BackboneSpec) else spec
    with at(str(attention)):
        laws = lawful(attention, entry.runtime.device, entry.candidate.path)
    if isinstance(entry.module, Deployed):
        with at("on the raced inputs"):
            verdict = agreement(entry.own, entry.module, entry.args, entry.kwargs)
        if not verdict.right:
            raise Broken(str(verdict))
        return f"{laws}; {entry.module.session}: {verdict}"
    limit, worst = tolerance(entry), 0.0
    with at("on the raced inputs"):
        run = entry.run()
        out = run()
        require(isinstance(out, Tensor), "on the raced inputs", no_tensor(out))
        exact, wide = entry.exact()
        require(out.shape == exact.shape, "output", f"has the shape {tuple(out.shape)}, not {tuple(exact.shape)}")
        with torch.inference_mode():
            outputs = {"the output": out, "the output without gradients": run()}
        for what, x in outputs.items():
            worst = max(worst, _near(what, difference(x, exact), limit))
        if not out.requires_grad:
            require(work == "forward", "its output", "has no gradient, and --work is not forward")
            return f"{laws}; raced inputs: output only, difference {worst:.1e}"
        ours = {**entry.leaves, **entry.parameters}
        lost = [name for name in wide if name not in ours]
        require(not lost, "its parameters", f"do not include {', '.join(lost)}")
        found, wanted = (_gradients(y, {name: xs[name] for name in wide}) for y, xs in ((out, ours), (exact, wide)))
        size = max((float(g.norm()) for g in wanted.values()), default=0.0)
        for name, g in wanted.items():
            scale = max(float(g.norm()), SMALL * size)
            off = float((found[name].double() - g).norm())
            gap = off / scale if off else 0.0
            worst = max(worst, _near(f"the gradient of {name}", gap, limit))
    return f"{laws}; raced inputs: largest difference {worst:.1e}"


def _near(what: str, gap: float, limit: float) -> float:
    # Not `gap >= limit`, which is false for what is no number.
    if not gap < limit:
        raise Broken(f"{what} differs from the reference in float64 by {gap:.1e} of its norm; allowed is {limit:.1e}")
    return gap


def _gradients(out: Tensor, of: dict[str, Tensor]) -> dict[str, Tensor]:
    found = torch.autograd.grad(loss_of(out), list(of.values()), allow_unused=True)
    return {name: torch.zeros_like(x) if g is None else g for (name, x), g in zip(of.items(), found, strict=True)}
