"""The kernels of _native.cpp on a CPU, compiled at their first use and kept: see `Kernels` in _functions.py.

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
from collections.abc import Sequence
from contextlib import suppress
from ctypes import c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attentions._contract import Given
from attentions._functions import Product
from attentions._paths import allows

PATH = "native"

SOURCE = Path(__file__).with_suffix(".cpp")

FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"),
    # Sums may be taken in vectors; what is infinite or not a number stays so.
    *("-fno-math-errno", "-fno-trapping-math", "-fassociative-math", "-fno-signed-zeros", "-freciprocal-math"),
)

KINDS = {torch.float32: "float32", torch.float64: "float64"}


def takes(tensors: Sequence[Given], regions: Given, widest: int) -> bool:
    """Return whether the kernels take these tensors: all float32 or all float64, on a CPU; see also `allows`."""
    given = [x for x in tensors if x is not None]
    return (
        all(x.device.type == "cpu" and x.dtype == given[0].dtype for x in given)
        and given[0].dtype in KINDS
        and all(x.numel() for x in given)
        and allows(PATH, *given)
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


def linear_forward(
    of: Product, q: Tensor, k: Tensor, v: Tensor, inverse: Given, encoding: Given, onto: Given, regions: Given
) -> tuple[Tensor, Tensor]:
    sums = q.new_empty(len(q), of.n_regions, q.shape[-1] * v.shape[-1] // of.heads + q.shape[-1])
    out = q.new_empty(*q.shape[:2], v.shape[-1])
    _call("linear_forward", q, _problem(of, q, k, v, inverse, encoding, regions), onto, sums, out)
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
    d_q, d_k, d_v = (torch.empty(x.shape, dtype=x.dtype) for x in (q, k, v))
    d_inverse, d_sums = q.new_empty(q.shape[-1]), torch.empty_like(sums)
    problem = _problem(of, q, k, v, inverse, encoding, regions)
    _call("linear_backward", q, problem, sums, gradient, d_sums, d_q, d_k, d_v, d_inverse)
    return d_q, d_k, d_v, d_inverse


def _problem(of: Product, q: Tensor, k: Tensor, v: Tensor, inverse: Given, encoding: Given, regions: Given) -> _Problem:
    """Return what the kernels read; it points to the tensors, which must live as long as it."""
    return _Problem(
        len(q), of.heads, q.shape[-1] // of.heads, v.shape[-1] // of.heads, of.n_regions, of.normalised,
        *(_pointer(regions), _pointer(regions)),
        *map(_tokens, (q, k, v)),
        *(_Features(of.kind, of.power, _pointer(inverse), _pointer(each)) for each in (None, encoding)),
    )  # fmt: skip


def convolve(x: Tensor, taps: Tensor, bias: Tensor, regions: Given, grid: tuple[int, int]) -> Tensor:
    out = torch.empty(x.shape, dtype=x.dtype)
    _call("convolve", x, _described(x, taps, regions, grid), taps, bias, _tokens(out))
    return out


def convolve_backward(x: Tensor, taps: Tensor, regions: Given, grid: tuple[int, int], gradient: Tensor) -> Tensor:
    d_taps = torch.empty_like(taps)
    _call("convolve_backward", x, _described(x, d_taps, regions, grid), _tokens(gradient), d_taps)
    return d_taps


def _described(x: Tensor, taps: Tensor, regions: Given, grid: tuple[int, int]) -> _Convolution:
    kernel, stride = math.isqrt(taps.shape[-2]), taps.stride(0) if taps.dim() > 2 else 0
    return _Convolution(len(x), *grid, x.shape[-1], kernel, stride, _pointer(regions), _tokens(x))
