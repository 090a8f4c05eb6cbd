"""The law of finite numbers: half precision and float32, forward and backward, at every scale of the inputs."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from harness.certificate.subject import Case, Inputs, Subject, at, leaves, loss_of, require

SCALES = (1e-3, 1.0, 1e3)
FILLS = {"zero": 0.0, "negative": -1.0, "very negative": -1e3}
"""Tokens without a positive channel: a relu leaves nothing of them to divide by."""

HALF = (torch.float16, torch.bfloat16)
MODES = (
    *((f"{dtype} throughout".removeprefix("torch."), dtype, dtype, None) for dtype in (*HALF, torch.float32)),
    *((f"autocast to {dtype}, inputs in it".replace("torch.", ""), torch.float32, dtype, dtype) for dtype in HALF),
    *(
        (f"autocast to {dtype}, float32 inputs".replace("torch.", ""), torch.float32, torch.float32, dtype)
        for dtype in HALF
    ),
)
"""Name, dtype of the parameters, dtype of the inputs, and what autocast is set to, if to anything."""


def finite(subject: Subject) -> str:
    """Output and gradients are finite, but for what in exact arithmetic is beyond the range of its dtype."""
    tried = 0
    for case in subject.few:
        given = subject.inputs(case)
        variants = {f"inputs of scale {scale:g}": _scaled(given, scale) for scale in SCALES}
        variants |= {f"every other token {name}": _filled(given, value) for name, value in FILLS.items()}
        for what, inputs in variants.items():
            for name, of_parameters, of_inputs, autocast in MODES:
                with at(f"{case}, {name}, {what}"):
                    _check(subject, case, inputs, (of_parameters, of_inputs, autocast), f"{case}, {name}, {what}")
                tried += 1
    return f"{tried} cases in {len(MODES)} modes of float16, bfloat16 and float32, scales 1e-3 to 1e3"


def _check(
    subject: Subject,
    case: Case,
    inputs: Inputs,
    dtypes: tuple[torch.dtype, torch.dtype, torch.dtype | None],
    where: str,
) -> None:
    of_parameters, of_inputs, autocast = dtypes
    module = subject.stirred(case.site).to(of_parameters)
    rounded = _cast(inputs, of_inputs)
    names = ["the output", *(f"the gradient of {name}" for name in _named(rounded, module))]
    ours = _run(module, rounded, autocast)
    exact = _run(module.double(), _cast(rounded, torch.float64), None)
    for name, a, b in zip(names, ours, exact, strict=True):
        require(not bool(a.isnan().any()), where, f"{name} is NaN")
        beyond = b.abs() > 0.99 * torch.finfo(a.dtype).max
        require(bool((a.isfinite() | beyond).all()), where, f"{name} overflows, and would not in exact arithmetic")


def _named(inputs: Inputs, module: torch.nn.Module) -> list[str]:
    return [
        *(name for name, x in inputs.items() if x.is_floating_point()),
        *(name for name, _ in module.named_parameters()),
    ]


def _run(module: torch.nn.Module, inputs: Inputs, autocast: torch.dtype | None) -> list[Tensor]:
    """Output, and gradients of inputs and parameters; zeros where there is none. Autocast is for the forward."""
    with nullcontext() if autocast is None else torch.autocast("cpu", autocast):
        out = module(**inputs)
    wanted = [*leaves(inputs), *module.parameters()]
    found = torch.autograd.grad(loss_of(out), wanted, allow_unused=True)
    return [out.detach(), *(torch.zeros_like(x) if g is None else g for x, g in zip(wanted, found, strict=True))]


def _cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    return {name: x.detach().to(dtype).requires_grad_() if x.is_floating_point() else x for name, x in inputs.items()}


def _scaled(inputs: Inputs, scale: float) -> Inputs:
    """What comes from projections; x is the output of a norm, and a bias no activation at all: they stay."""
    return {name: x * scale if name in ("q", "k", "v") else x for name, x in inputs.items()}


def _filled(inputs: Inputs, value: float) -> Inputs:
    """Every other token of the queries and keys of the first entry, and all of the others."""
    filled = {name: x.detach().clone() for name, x in inputs.items()}
    for name in ("q", "k"):
        filled[name][:, ::2] = value
        filled[name][1:] = value
    return filled
