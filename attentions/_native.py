"""The kernels of _native.cpp on a CPU: compiled at their first use and kept, with gradients, as autograd functions.

Where there is no compiler, or it fails, `takes` is false, and torch's operators do the same work (see _paths.py).
B batch, N queries, M keys, H heads, F features and V values per head.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from ctypes import c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attentions._contract import Given
from attentions._paths import allows

SOURCE = Path(__file__).with_suffix(".cpp")

FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"),
    # Sums may be taken in vectors; what is infinite or not a number stays so.
    *("-fno-math-errno", "-fno-trapping-math", "-fassociative-math", "-fno-signed-zeros", "-freciprocal-math"),
)

GIVEN, RELU, FOCUSED = range(3)
"""How the kernels map queries and keys to features: see `FeatureMap` in _native.cpp."""

KINDS = {torch.float32: "float32", torch.float64: "float64"}


def takes(*tensors: Given) -> bool:
    """Return whether the kernels take these tensors: all float32 or all float64, on a CPU; see also `allows`."""
    given = [x for x in tensors if x is not None]
    return (
        all(x.device.type == "cpu" and x.dtype == given[0].dtype for x in given)
        and given[0].dtype in KINDS
        and all(x.numel() for x in given)
        and allows("native", *given)
        and library() is not None
    )


@cache
def library() -> ctypes.CDLL | None:
    """Return the compiled kernels; None where there is no compiler, and, after one warning, where it fails."""
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "c++", "g++", "clang++"))), None)
    if compiler is None:
        return None
    text = SOURCE.read_bytes() + repr((compiler, FLAGS, _cpu())).encode()
    name = f"native-{hashlib.sha256(text).hexdigest()[:16]}.so"
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attention-bench"
    try:
        # Another process may compile it at the same time: each writes a file of its own, and the last one stays.
        if not (folder / name).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as own:
                subprocess.run(
                    [compiler, *FLAGS, str(SOURCE), "-o", f"{own}/{name}"], check=True, capture_output=True, text=True
                )
                os.replace(f"{own}/{name}", folder / name)
        return ctypes.CDLL(str(folder / name))
    except (OSError, subprocess.CalledProcessError) as problem:
        reason = problem.stderr if isinstance(problem, subprocess.CalledProcessError) else str(problem)
        reason = next(iter(str(reason).strip().splitlines()), "no reason given")
        warnings.warn(f"{SOURCE.name} is not compiled, attentions run as torch operators: {reason}", stacklevel=2)
        return None


def _cpu() -> str:
    """Return what the compiler makes its code for: a home folder may be shared by unlike machines."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return " ".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    return platform.processor()


class _Tokens(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("count", c_int64), ("batch_stride", c_int64), ("token_stride", c_int64)]


class _Features(ctypes.Structure):
    _fields_ = [("map", c_int64), ("power", c_int64), ("scale", c_void_p), ("encoding", c_void_p)]


class _Problem(ctypes.Structure):
    _fields_ = [
        *((name, c_int64) for name in ("batch", "heads", "features", "values", "regions", "normalised")),
        *((name, c_void_p) for name in ("query_regions", "key_regions")),
        *((name, _Tokens) for name in ("q", "k", "v")),
        *((name, _Features) for name in ("of_q", "of_k")),
    ]


class _Convolution(ctypes.Structure):
    _fields_ = [
        *((name, c_int64) for name in ("batch", "height", "width", "channels", "kernel", "weight_stride")),
        ("regions", c_void_p),
        ("x", _Tokens),
    ]


def _call(name: str, like: Tensor, *args: Any) -> None:
    """Call a kernel for the dtype of `like`; tensors are passed as pointers, structures by reference."""
    function = getattr(library(), f"{name}_{KINDS[like.dtype]}")
    function.restype = None
    function(*(ctypes.byref(x) if isinstance(x, ctypes.Structure) else _pointer(x) for x in args))


def _pointer(x: Given) -> c_void_p | None:
    return None if x is None else c_void_p(x.data_ptr())


def _tokens(x: Tensor) -> _Tokens:
    return _Tokens(x.data_ptr(), x.shape[1], x.stride(0), x.stride(1))


def _dense(x: Tensor) -> Tensor:
    """Return x (B, N, C), copied if the channels of a token do not lie one after the other."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _differentiable(ctx: Any, gradient: Tensor, inputs: Sequence[Given]) -> list[Given]:
    """Return the gradients of inputs in a form that can be differentiated again: those of torch's operators."""
    wanted = [x for x in inputs if x is not None and x.requires_grad]
    found = iter(torch.autograd.grad(ctx.plain(*inputs), wanted, gradient, create_graph=True, allow_unused=True))
    return [next(found) if x is not None and x.requires_grad else None for x in inputs]


class LinearProduct(torch.autograd.Function):
    """Linear attention on features of q (B, N, H F) and k (B, M, H F), with v (B, M, H V): (B, N, H V).

    The features are of the map `kind`, to the power `power`: `scale` (H F) divides, and `encoding` (M, H F) is added
    to the keys before. `onto` (B, N, H V) is added to the output; `regions` (B, N) as in `linear_product`. `plain` does
    the same to the first five by torch's operators. Without `normalised` nothing is divided by the sums of the scores.
    Saved for backward are the inputs, and the sums over the keys.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scale: Given,
        encoding: Given,
        onto: Given,
        regions: Given,
        heads: int,
        n_regions: int,
        kind: int,
        power: int,
        normalised: bool,
        plain: Callable[..., Tensor],
    ) -> Tensor:
        ctx.heads, ctx.n_regions, ctx.kind, ctx.power, ctx.plain = heads, n_regions, kind, power, plain
        ctx.normalised = normalised
        regions = None if regions is None else regions.to(torch.int64).contiguous()
        features, values = q.shape[-1], v.shape[-1]
        sums = q.new_empty(len(q), n_regions, features * values // heads + features)
        out = q.new_empty(*q.shape[:2], values)
        onto = None if onto is None else onto.contiguous()
        with _problem(ctx, q, k, v, scale, encoding, regions) as problem:
            _call("linear_forward", q, problem, onto, sums, out)
        ctx.save_for_backward(q, k, v, scale, encoding, regions, sums)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Given, ...]:
        *inputs, regions, sums = ctx.saved_tensors
        rest = (gradient if ctx.needs_input_grad[5] else None, *[None] * 7)
        if torch.is_grad_enabled():
            return (*_differentiable(ctx, gradient, inputs), *rest)
        q, k, v, scale, encoding = inputs
        d_q, d_k, d_v = (torch.empty(x.shape, dtype=x.dtype) for x in (q, k, v))
        d_inverse, d_sums = q.new_empty(q.shape[-1]), torch.empty_like(sums)
        with _problem(ctx, q, k, v, scale, encoding, regions) as problem:
            _call("linear_backward", q, problem, sums, gradient.contiguous(), d_sums, d_q, d_k, d_v, d_inverse)
        d_scale = None if scale is None else -d_inverse / scale.square()
        return (d_q, d_k, d_v, d_scale, None if encoding is None else d_k.sum(dim=0), *rest)


@contextmanager
def _problem(
    ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: Given, encoding: Given, regions: Given
) -> Iterator[_Problem]:
    """Yield what the kernels read; the tensors that it points to live as long as the block."""
    q, k, v = map(_dense, (q, k, v))
    inverse = None if scale is None else 1 / scale
    encoding = None if encoding is None else encoding.contiguous()
    yield _Problem(
        len(q), ctx.heads, q.shape[-1] // ctx.heads, v.shape[-1] // ctx.heads, ctx.n_regions, ctx.normalised,
        *(_pointer(regions), _pointer(regions)),
        *map(_tokens, (q, k, v)),
        *(_Features(ctx.kind, ctx.power, _pointer(inverse), _pointer(each)) for each in (None, encoding)),
    )  # fmt: skip


class Convolution(torch.autograd.Function):
    """Depthwise convolution of tokens x (B, height * width, C) on their grid, with zeros around it: the same shape.

    `weight` is (C, 1, kernel, kernel), or has one for each entry, (B, C, 1, kernel, kernel); `bias` is (C). With
    `regions` (B, height * width) a token sees those of its own region only. `plain` does the same to the first three
    by torch's operators.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        regions: Given,
        height: int,
        width: int,
        plain: Callable[..., Tensor],
    ) -> Tensor:
        ctx.height, ctx.width, ctx.plain = height, width, plain
        regions = None if regions is None else regions.to(torch.int64).contiguous()
        ctx.save_for_backward(x, weight, bias, regions)
        return _convolved(ctx, x, weight.flatten(-3), bias, regions)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Given, ...]:
        *inputs, regions = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (*_differentiable(ctx, gradient, inputs), *[None] * 4)
        x, weight, bias = inputs
        x, gradient = _dense(x), gradient.contiguous()
        # Taps that look the other way.
        d_x = _convolved(ctx, gradient, weight.flatten(-3).flip(-1), torch.zeros_like(bias), regions)
        d_weight = torch.empty_like(_taps(weight.flatten(-3)))
        _call("convolve_backward", x, _described(ctx, x, d_weight, regions), _tokens(gradient), d_weight)
        return (d_x, d_weight.transpose(-2, -1).reshape(weight.shape), gradient.sum(dim=(0, 1)), *[None] * 4)


def _convolved(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, regions: Given) -> Tensor:
    """Return x (B, height * width, C) convolved with `weight` ([B,] C, kernel^2)."""
    out = torch.empty(x.shape, dtype=x.dtype)
    x, taps, bias = _dense(x), _taps(weight), bias.contiguous()
    _call("convolve", x, _described(ctx, x, taps, regions), taps, bias, _tokens(out))
    return out


def _taps(weight: Tensor) -> Tensor:
    """Return a weight ([B,] C, kernel^2) as the kernels take it: ([B,] kernel^2, C)."""
    return weight.transpose(-2, -1).contiguous()


def _described(ctx: Any, x: Tensor, taps: Tensor, regions: Given) -> _Convolution:
    kernel, stride = math.isqrt(taps.shape[-2]), taps.stride(0) if taps.dim() > 2 else 0
    sizes = (len(x), ctx.height, ctx.width, x.shape[-1], kernel, stride)
    return _Convolution(*sizes, _pointer(regions), _tokens(x))
