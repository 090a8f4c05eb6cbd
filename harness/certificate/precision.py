"""The laws of precision: finite at every scale of the inputs, and close to float64, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from harness.certificate.subject import Case, Inputs, Subject, at, leaves, loss_of, require, shown_sites

NEAR = 4
"""Largest relative l2 error, in eps of the dtype; inputs, weights, scores and output each round by half an eps."""

SCALES = (1e-3, 1.0, 1e3)
FILLS = {"zero": 0.0, "negative": -1.0, "very negative": -1e3}
"""Values for tokens without a positive channel: a relu leaves nothing of them to divide by."""

HALF = (torch.float16, torch.bfloat16)


class Mode(NamedTuple):
    """Dtypes of parameters and inputs, and the dtype of autocast, None without autocast."""

    name: str
    parameters: torch.dtype
    inputs: torch.dtype
    autocast: torch.dtype | None

    def cast(self, device: str) -> AbstractContextManager[object]:
        return nullcontext() if self.autocast is None else torch.autocast(device, self.autocast)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


MODES = (
    *(Mode(f"{_name(dtype)} throughout", dtype, dtype, None) for dtype in (*HALF, torch.float32)),
    *(Mode(f"autocast to {_name(dtype)}, inputs in it", torch.float32, dtype, dtype) for dtype in HALF),
    *(Mode(f"autocast to {_name(dtype)}, float32 inputs", torch.float32, torch.float32, dtype) for dtype in HALF),
)


def cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    """Return the same values in another dtype, as leaves that require gradients; regions stay as they are."""
    return {name: x.detach().to(dtype).requires_grad_() if x.is_floating_point() else x for name, x in inputs.items()}


def finite(subject: Subject) -> str:
    """Output and gradients are finite, unless the exact value is beyond the range of the dtype."""
    tried = 0
    for case in subject.few:
        given = subject.inputs(case)
        variants = {f"inputs of scale {scale:g}": _scaled(given, scale) for scale in SCALES}
        variants |= {f"every other token {name}": _filled(given, value) for name, value in FILLS.items()}
        for what, inputs in variants.items():
            for mode in MODES:
                where = f"{case}, {mode.name}, {what}"
                with at(where):
                    for of, ours, exact in _both(subject, case, inputs, mode):
                        require(not bool(ours.isnan().any()), where, f"{of} is NaN")
                        # Values may be beyond the range by as much as `near` allows.
                        off = NEAR * torch.finfo(mode.autocast or mode.inputs).eps * float(exact.norm())
                        beyond = exact.abs() + off > torch.finfo(ours.dtype).max
                        finite = bool((ours.isfinite() | beyond).all())
                        require(finite, where, f"{of} overflows, but would not in exact arithmetic")
                tried += 1
    return f"{tried} cases in {len(MODES)} modes of float16, bfloat16 and float32, scales 1e-3 to 1e3"


def near(subject: Subject) -> str:
    """In half precision, output and gradients are as close to those in float64 as the dtype allows."""
    worst = 0.0
    for case in subject.few:
        for mode in MODES:
            where, half = f"{case}, {mode.name}", mode.autocast or mode.inputs
            if half not in HALF:
                continue
            with at(where):
                for what, ours, exact in _both(subject, case, subject.inputs(case), mode):
                    size, gap = float(exact.norm()), float((ours.double() - exact).norm())
                    error = gap / size / torch.finfo(half).eps if size else 0.0
                    require(error < NEAR, where, f"{what} differs by {error:.1f} eps of its norm; allowed is {NEAR}")
                    worst = max(worst, error)
    return f"float16 and bfloat16 at {shown_sites(subject.few)}, largest error {worst:.1f} eps"


def _both(subject: Subject, case: Case, inputs: Inputs, mode: Mode) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield (name, ours, exact) for output and gradients, exact for the same rounded inputs and parameters."""
    module = subject.randomised(case.site).to(mode.parameters)
    rounded = cast(inputs, mode.inputs)
    names = ["the output", *(f"the gradient of {name}" for name in _named(rounded, module))]
    ours = _run(module, rounded, mode.cast(subject.device))
    exact = _run(module.double(), cast(rounded, torch.float64), nullcontext())
    yield from zip(names, ours, exact, strict=True)


def _named(inputs: Inputs, module: torch.nn.Module) -> list[str]:
    return [
        *(name for name, x in inputs.items() if x.is_floating_point()),
        *(name for name, _ in module.named_parameters()),
    ]


def _run(module: torch.nn.Module, inputs: Inputs, autocast: AbstractContextManager[object]) -> list[Tensor]:
    """Return output and gradients of inputs and parameters, zeros where there is none; autocast covers the forward."""
    with autocast:
        out = module(**inputs)
    wanted = [*leaves(inputs), *module.parameters()]
    found = torch.autograd.grad(loss_of(out), wanted, allow_unused=True)
    return [out.detach(), *(torch.zeros_like(x) if g is None else g for x, g in zip(wanted, found, strict=True))]


def _scaled(inputs: Inputs, scale: float) -> Inputs:
    """Scale q, k and v, which come from projections; x is the output of a norm and a bias no activation: both stay."""
    return {name: x * scale if name in ("q", "k", "v") else x for name, x in inputs.items()}


def _filled(inputs: Inputs, value: float) -> Inputs:
    """Fill every other query and key of the first entry, and all those of the other entries."""
    filled = {name: x.detach().clone() for name, x in inputs.items()}
    for name in ("q", "k"):
        filled[name][:, ::2] = value
        filled[name][1:] = value
    return filled
