"""Multiply-adds of single operators by closed formulas, from the shapes of a call.

Conventions, besides one multiply-add = 1:

* What is summed over nothing (an outer product, a Hadamard product) is elementwise, and free.
* A product of complex numbers takes four of real ones.
* A Fourier transform of N points takes N/2 log2 N complex products in radix 2, that is 2 N log2 N real ones, and of a
  real signal half of them, with the logarithm rounded up: Rao et al., Global Filter Networks, arXiv 2107.00645, whose
  counting script has N ceil(log2 N) for `rfft2` and `irfft2` (raoyongming/GFNet, issues 12 and 15). N is the product of
  all transformed sizes.

A formula takes the arguments of the operator in the order of its schema, a shape in place of each tensor, and the shape
of the output. A traced size that was computed is `UNKNOWN`.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

Shape = Sequence[int]
Formula = Callable[[Sequence[Any], Shape], int]

UNKNOWN = object()
"""A constant that a trace does not have."""

COMPLEX = 4
"""Real multiply-adds in a complex one."""

LAYER_NORM_OPERATIONS = 5
"""Operations per element of a norm with weights, 4 without: fvcore's convention."""


def _row_by_column(first: int) -> Formula:
    """Return the formula of a product that sums over the last size of argument `first`, for each output."""
    return lambda args, out: math.prod(out) * args[first][-1]


def _inner(args: Sequence[Any], out: Shape) -> int:
    # With a number it is elementwise.
    return math.prod(out) * args[0][-1] if args[0] and args[1] else 0


def _addbmm(args: Sequence[Any], out: Shape) -> int:
    batch, _, summed = args[1]
    return batch * math.prod(out) * summed


def _tensordot(args: Sequence[Any], out: Shape) -> int:
    a, b, dims_a, dims_b = args[:4]
    return math.prod(out) * math.prod(min(a[i], b[j]) for i, j in zip(dims_a, dims_b, strict=True))


def vecdot(args: Sequence[Any], out: Shape = ()) -> int:
    """Return the multiply-adds of `torch.linalg.vecdot`, whose operands are broadcast."""
    return math.prod(torch.broadcast_shapes(*args[:2]))


def _multi_dot(args: Sequence[Any], out: Shape) -> int:
    """Return the least multiply-adds of a chain of matrices, whose order torch chooses by them."""
    first, *rest = args[0]
    # A vector at the start is a row, one at the end a column.
    sizes = [*(first if len(first) == 2 else (1, *first)), *(s[-1] if len(s) == 2 else 1 for s in rest)]
    chain = len(sizes) - 1
    least = [[0] * chain for _ in range(chain)]
    for length in range(1, chain):
        for i in range(chain - length):
            j = i + length
            least[i][j] = min(
                least[i][k] + least[k + 1][j] + sizes[i] * sizes[k + 1] * sizes[j + 1] for k in range(i, j)
            )
    return least[0][-1]


def _matrix_power(args: Sequence[Any], out: Shape) -> int:
    exponent = args[1]
    # An inverse, which torch's counter sees, is in neither counter's table.
    products = exponent.bit_length() - 1 + exponent.bit_count() - 1 if exponent > 0 else 0
    return products * math.prod(out) * args[0][-1]


def _bilinear(args: Sequence[Any], out: Shape) -> int:
    # x (..., I), W (O, I, J), y (..., J): first x W, then the sum over J.
    i, j = args[0][-1], args[1][-1]
    return math.prod(out) * (i * j + j)


def _trilinear(args: Sequence[Any], out: Shape) -> int:
    x, weight, y = args[:3]
    return _bilinear((x, y, weight), out)


def _distances(args: Sequence[Any], out: Shape) -> int:
    # One per pair and channel, whatever the norm: the square of a difference, added.
    return math.prod(out) * args[0][-1]


def _dot_product_attention(args: Sequence[Any], out: Shape) -> int:
    # q (..., N, D), k (..., M, D), v (..., M, E) -> (..., N, E): N M D for the logits and N M E for the mix. Heads may
    # be more than those of k and v, and a mask leaves nothing out.
    q, k, v = args[:3]
    return math.prod(out[:-1]) * k[-2] * (q[-1] + v[-1])


def _einsum(args: Sequence[Any], out: Shape) -> int:
    return sum(einsum(args[0], args[1]))


def einsum(equation: str, shapes: Sequence[Shape]) -> tuple[int, int]:
    """Return the multiply-adds of an einsum: those of torch's matrix products, and those over a size of one.

    Operands are contracted from left to right, as torch does without the package opt_einsum. The latter products are
    elementwise to torch, which counts none; a formula includes them like any other size of that letter. Where no letter
    of both operands is summed over, everything is elementwise, and there is no product.
    """
    operands, result = _letters(equation, shapes)
    products = over_one = 0
    while len(operands) > 1:
        a, b, *rest = operands
        later = {letter for term in rest for letter in term}
        # As torch does: a letter that only operands of size one still have is no reason to keep it.
        needed = {letter for term in rest for letter, size in term.items() if size != 1}
        gone = [letter for letter in {**a, **b} if letter not in result and letter not in needed]
        summed = [letter for letter in gone if a.get(letter, 1) != 1 and b.get(letter, 1) != 1]
        ones = [letter for letter in gone if letter in a and letter in b and letter not in later]
        kept = {
            letter: 1 if letter in gone else max(a.get(letter, 1), b.get(letter, 1))
            for letter in {**a, **b}
            if letter not in gone or letter in later
        }
        if summed:
            products += math.prod(kept.values()) * math.prod(a[letter] for letter in summed)
        elif ones:
            over_one += math.prod(kept.values())
        operands = [kept, *rest]
    return products, over_one


def _letters(equation: str, shapes: Sequence[Shape]) -> tuple[list[dict[str, int]], set[str]]:
    """Return the sizes of each operand of an einsum by letter, and the letters of the result; "..." are digits."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    operands = []
    for term, shape in zip(terms, shapes, strict=True):
        before, dots, after = term.partition("...")
        hidden = len(shape) - len(before) - len(after) if dots else 0
        # Counted from the last one, as sizes are broadcast.
        letters = [*before, *map(str, reversed(range(hidden))), *after]
        operands.append(dict(zip(letters, shape, strict=True)))
    hidden_letters = {letter for operand in operands for letter in operand if letter.isdigit()}
    if not arrow:
        return operands, hidden_letters | {letter for letter in left if letter.isalpha() and left.count(letter) == 1}
    return operands, set(right.replace("...", "")) | (hidden_letters if "..." in right else set())


def _levels(shape: Shape, dims: Sequence[int]) -> int:
    """Return log2 of the points of a transform over `dims`, rounded up."""
    return (math.prod(shape[dim] for dim in dims) - 1).bit_length()


def _real_transform(shape: Shape, dims: Sequence[int]) -> int:
    return math.prod(shape) * _levels(shape, dims)


def _complex_transform(shape: Shape, dims: Sequence[int]) -> int:
    return 2 * _real_transform(shape, dims)


def _r2c(args: Sequence[Any], out: Shape) -> int:
    signal, dims, _, half = args[:4]
    # The whole spectrum of a real signal is counted as that of any other.
    return (_real_transform if half else _complex_transform)(signal, dims)


def _fourier(name: str, args: Sequence[Any], out: Shape) -> int:
    """Return the multiply-adds of `torch.fft.<name>`, whose first arguments are signal, sizes and dimensions."""
    given, sizes, dims = args[0], args[1], args[2]
    sizes = sizes if isinstance(sizes, list | None) else [sizes]
    if dims is None:
        count = len(given) if sizes is None else len(sizes)
        dims = range(-count, 0)
    dims = [dims] if isinstance(dims, int) else list(dims)
    kind = name.rstrip("2n") if name[-1] in "2n" else name
    if kind in ("fft", "ifft"):
        return _complex_transform(out, dims)
    *others, last = dims
    if kind in ("rfft", "ihfft"):
        if sizes and UNKNOWN in sizes:
            raise ValueError(
                f"the sizes of torch.fft.{name} are computed from a tensor's shape; take them from self.site"
            )
        signal = list(given)
        for dim, size in zip(dims, sizes or [], strict=sizes is not None):
            signal[dim] = given[dim] if size == -1 else size
    else:
        signal = list(out)
    if kind in ("rfft", "irfft") or not others:
        return _real_transform(signal, dims)
    # Hermitian in the last dimension, any complex signal in the others.
    half = list(signal)
    half[last] = signal[last] // 2 + 1
    return _real_transform(signal, [last]) + _complex_transform(half, others)


TRANSFORMS = [f"{kind}{dims}" for kind in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft") for dims in ("", "2", "n")]

_FUSED_ATTENTIONS = [
    f"aten::_scaled_dot_product_{kernel}"
    for kernel in (
        "flash_attention",
        "flash_attention_for_cpu",
        "efficient_attention",
        "cudnn_attention",
        "fused_attention_overrideable",
    )
]

WITH_WEIGHT: dict[str, Formula] = {
    "aten::linear": _row_by_column(0),
    **{f"aten::{name}": _row_by_column(1) for name in ("addmm", "addmm_")},
}
"""By names in a trace, where a layer's product with its weight is one of these."""

OF_ACTIVATIONS: dict[str, Formula] = {
    **{f"aten::{name}": _row_by_column(0) for name in ("matmul", "linalg_matmul", "mm", "bmm", "mv", "dot", "vdot")},
    **{f"aten::{name}": _row_by_column(1) for name in ("baddbmm", "baddbmm_", "addmv", "addmv_")},
    **{f"aten::{name}": _addbmm for name in ("addbmm", "addbmm_")},
    "aten::inner": _inner,
    "aten::tensordot": _tensordot,
    **{f"aten::{name}": vecdot for name in ("linalg_vecdot", "cosine_similarity")},
    **{f"aten::{name}": _multi_dot for name in ("linalg_multi_dot", "chain_matmul")},
    **{f"aten::{name}": _matrix_power for name in ("linalg_matrix_power", "matrix_power")},
    "aten::bilinear": _bilinear,
    "aten::cdist": _distances,
    "aten::einsum": _einsum,
    **dict.fromkeys(["aten::scaled_dot_product_attention", *_FUSED_ATTENTIONS], _dot_product_attention),
}
"""By names in a trace: products of two activations."""

FOURIER: dict[str, Formula] = {f"aten::fft_{name}": partial(_fourier, name) for name in TRANSFORMS}
"""By names in a trace: Fourier transforms, complex already."""

FOURIER_BY_DISPATCHER: dict[str, Formula] = {
    "aten::_fft_r2c": _r2c,
    "aten::_fft_c2r": lambda args, out: _real_transform(out, args[1]),
    "aten::_fft_c2c": lambda args, out: _complex_transform(out, args[1]),
}
"""The same by names of dispatched operators."""

BY_DISPATCHER: dict[str, Formula] = {
    **{
        f"aten::{name}": OF_ACTIVATIONS[f"aten::{name}"]
        for name in ("mv", "dot", "vdot", "addmv", "addmv_", "addbmm", "addbmm_", "baddbmm_")
    },
    "aten::addmm_": WITH_WEIGHT["aten::addmm_"],
    "aten::_trilinear": _trilinear,
    **{f"aten::{name}": _distances for name in ("_euclidean_dist", "_cdist_forward")},
    **dict.fromkeys(_FUSED_ATTENTIONS, _dot_product_attention),
    **FOURIER_BY_DISPATCHER,
}
"""By names of dispatched operators: what torch's own counter may not know."""
