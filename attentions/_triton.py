"""The kernels of _triton_kernels.py on a CUDA device: see `Kernels` in _functions.py.

They take tensors in any precision. Sums are in float32, or in float64 if the queries are: half precision is widened in
registers, and saved for backward as it is. Products of matrices are in TF32 where all of q, k and v are in half
precision, whose values TF32 holds exactly; in float32 they are in float32. Regions, and wide heads, are left to torch's
operators.

Triton is loaded at the first use. Where it is missing or fails, `takes` is false. With TRITON_INTERPRET=1 in the
environment before Triton is imported, its interpreter runs the kernels on a CPU, slowly. So far no card was at hand:
the path is taken where it is forced (`using_path`), and nowhere else.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attentions._contract import Given
from attentions._functions import GIVEN, Product
from attentions._paths import allows, is_forced

PATH = "triton"

HALF = (torch.float16, torch.bfloat16)
DTYPES = (*HALF, torch.float32, torch.float64)

WIDEST = {torch.float64: 32}
"""Channels of the widest head, 64 in other precisions: tiles must fit into registers and shared memory."""

OLDEST = (8, 0)
"""Compute capability from which on products of TF32 and float64 matrices are computed in hardware."""


def takes(tensors: Sequence[Given], regions: Given, widest: int) -> bool:
    given = [x for x in tensors if x is not None]
    device = given[0].device
    return (
        # Not of itself, before a card has shown that it is right.
        is_forced(PATH)
        and device.type in ("cuda", "cpu")
        and all(x.device == device and x.dtype in DTYPES and x.numel() for x in given)
        and regions is None
        and widest <= WIDEST.get(given[0].dtype, 64)
        and allows(PATH, *given)
        and _works(device)
    )


@cache
def _works(device: torch.device) -> bool:
    """Return whether the kernels run there; where Triton is there but fails, say so in one warning."""
    if device.type == "cpu":
        fits = os.environ.get("TRITON_INTERPRET") == "1"
    else:
        fits = torch.version.hip is None and torch.cuda.get_device_capability(device) >= OLDEST
    if not fits or importlib.util.find_spec("triton") is None:
        return False
    x = torch.ones(1, 1, 16, device=device)
    try:
        linear_forward(Product(1, 1, GIVEN, 1, True), x, x, x, None, None, None, None)
        return True
    # A missing library, no compiler for what starts a kernel, an unknown GPU: whatever it is, torch does the work.
    except Exception as problem:
        reason = next(iter(str(problem).strip().splitlines()), "no reason given")
        warnings.warn(f"Triton fails, attentions run as torch operators: {reason}", stacklevel=2)
        return False


def _run(name: str, x: Tensor, tokens: int, beside: int, *args: Any, **constants: Any) -> None:
    """Run a kernel for blocks of tokens of x (B, N, C), `beside` programs for each; `constants` are compiled in."""
    # By name, as it loads Triton; attentions/_source.py finds it in this form, so it is part of the hash of sources.
    kernel = getattr(importlib.import_module("attentions._triton_kernels"), name)
    language = importlib.import_module("triton.language")
    wide = language.float64 if x.dtype == torch.float64 else language.float32
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        kernel[(len(x) * _blocks(x, tokens), beside)](*args, WIDE=wide, BT=tokens, **constants)


def _blocks(x: Tensor, tokens: int) -> int:
    """Return the number of blocks of tokens in x (B, N, C)."""
    return -(-x.shape[1] // tokens)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _parts(x: Tensor, tokens: int, size: int) -> Tensor:
    """Return room for `size` sums over each block of tokens of x (B, N, C): (B, blocks, size)."""
    return torch.empty(len(x), _blocks(x, tokens), size, dtype=_wide(x), device=x.device)


class _Plan(NamedTuple):
    """Tokens of a program, and the constants of the kernels of a product."""

    tokens: int
    constants: dict[str, Any]

    def run(self, name: str, x: Tensor, *args: Any, **flags: bool) -> None:
        """Run a kernel for the tokens of x (B, N, C)."""
        _run(name, x, self.tokens, 1, *args, **flags, **self.constants)


def _plan(of: Product, q: Tensor, k: Tensor, v: Tensor) -> _Plan:
    features, values = q.shape[-1] // of.heads, v.shape[-1] // of.heads
    # Products of matrices take powers of two, from 16 on.
    padded = [max(16, 1 << (channels - 1).bit_length()) for channels in (features, values)]
    wide = max(padded) > 32
    # So that tiles stay in registers, and in the shared memory of the smaller GPUs.
    tokens = (32 if wide else 64) // (2 if q.dtype == torch.float64 else 1)
    constants = {
        **{"H": of.heads, "F": features, "V": values, "FB": padded[0], "VB": padded[1]},
        **{"KIND": of.kind, "POWER": of.power, "num_warps": 8 if wide else 4},
        "PRECISION": "tf32" if all(x.dtype in HALF for x in (q, k, v)) else "ieee",
    }
    return _Plan(tokens, constants)


def linear_forward(
    of: Product, q: Tensor, k: Tensor, v: Tensor, inverse: Given, encoding: Given, onto: Given, regions: Given
) -> tuple[Tensor, Tensor]:
    plan = _plan(of, q, k, v)
    parts = _parts(k, plan.tokens, q.shape[-1] * (v.shape[-1] // of.heads + 1))
    plan.run("sums", k, k, v, inverse, encoding, parts, k.shape[1], *k.stride()[:2], *v.stride()[:2])
    sums = parts.sum(dim=1)
    out = torch.empty(*q.shape[:2], v.shape[-1], dtype=v.dtype, device=v.device)
    args = (q, inverse, sums, onto, out, q.shape[1], *q.stride()[:2])
    plan.run("outputs", q, *args, NORMALISED=of.normalised)
    return out, sums


def linear_backward(
    of: Product,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    inverse: Given,
    encoding: Given,
    regions: Given,
    sums: Tensor,
    gradient: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    plan = _plan(of, q, k, v)
    d_q, d_k, d_v = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    of_queries, of_keys = (_parts(x, plan.tokens, 0 if inverse is None else x.shape[-1]) for x in (q, k))
    parts = _parts(q, plan.tokens, sums.shape[-1])
    args = (q, inverse, sums, gradient, d_q, parts, of_queries, q.shape[1], *q.stride()[:2])
    plan.run("queries_backward", q, *args, NORMALISED=of.normalised)
    d_sums = parts.sum(dim=1)
    args = (k, v, inverse, encoding, d_sums, d_k, d_v, of_keys, k.shape[1], *k.stride()[:2], *v.stride()[:2])
    plan.run("keys_backward", k, *args)
    return d_q, d_k, d_v, of_queries.sum(dim=(0, 1)) + of_keys.sum(dim=(0, 1))


TILE = (64, 32)
"""Tokens and channels of a program that convolves."""


def convolve(x: Tensor, taps: Tensor, bias: Tensor, regions: Given, grid: tuple[int, int]) -> Tensor:
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    of_entry = taps.stride(0) if taps.dim() > 2 else 0
    _convolve("convolve", x, taps, x, taps, bias, out, *grid, *x.stride()[:2], of_entry, x.shape[-1])
    return out


def convolve_backward(x: Tensor, taps: Tensor, regions: Given, grid: tuple[int, int], gradient: Tensor) -> Tensor:
    parts = _parts(x, TILE[0], taps.shape[-2] * taps.shape[-1])
    _convolve("convolve_backward", x, taps, x, gradient, parts, *grid, *x.stride()[:2], x.shape[-1])
    return parts.sum(dim=1 if taps.dim() > 2 else (0, 1)).view(taps.shape)


def _convolve(name: str, x: Tensor, taps: Tensor, *args: Any) -> None:
    tokens, channels = TILE
    _run(name, x, tokens, -(-x.shape[-1] // channels), *args, K=math.isqrt(taps.shape[-2]), BC=channels)
