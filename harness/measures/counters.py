"""Two counters of multiply-adds: torch's, of the dispatched operators, and fvcore's, of the traced graph.

Every dispatched and every traced operator is either counted or named in `FREE`; any other is an error, because a
counter that silently skips an operator makes its model look cheap. What no counter can see: a product written as a
broadcast multiplication and a sum. There the closed formula disagrees, see costs.py.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from harness.measures.meta_device import TraceableConvolutions, autocast_on_meta, traceable

LAYER_NORM_OPERATIONS = 5
"""Operations per element of an affine LayerNorm, fvcore's convention."""

FREE = frozenset(
    f"aten::{name}"
    for group in (
        # elementwise
        "abs absolute add addcdiv addcmul bitwise_and bitwise_not bitwise_or ceil celu clamp clamp_max clamp_min"
        " clip cos div divide elu eq erf exp exp2 expm1 floor floor_divide fmod ge gelu gt hardsigmoid hardswish"
        " hardtanh isfinite isinf isnan le leaky_relu lerp log log1p log2 log_sigmoid"
        " log_sigmoid_forward logical_and logical_not logical_or lt masked_fill maximum minimum mish mul multiply"
        " nan_to_num ne neg negative pow reciprocal relu relu6 remainder round rsqrt rsub selu sigmoid sign silu"
        " sin softplus sqrt square sub subtract tanh threshold true_divide where __and__ __or__",
        # reductions and scans
        "all amax amin any argmax argmin cumsum linalg_vector_norm logsumexp max mean min norm prod"
        " sort std std_mean sum topk var var_mean _log_softmax _safe_softmax _softmax log_softmax"
        " softmax",
        # normalisation: counted separately, see LAYER_NORM_OPERATIONS
        "_batch_norm_no_update _fused_rms_norm _native_batch_norm_legit_no_training batch_norm"
        " cudnn_batch_norm group_norm layer_norm native_batch_norm native_group_norm native_layer_norm"
        " rms_norm",
        # views, copies, moves and conversions
        "_reshape_alias _to_copy _unsafe_view alias as_strided broadcast_to cat chunk clone col2im"
        " concat constant_pad_nd contiguous copy detach diagonal expand expand_as fill flatten flip"
        " gather im2col index index_put index_select lift_fresh mH mT moveaxis movedim narrow numpy_T pad permute"
        " pixel_shuffle pixel_unshuffle reflection_pad1d reflection_pad2d repeat repeat_interleave"
        " replication_pad1d replication_pad2d reshape resolve_conj resolve_neg roll scatter select slice"
        " split split_with_sizes squeeze stack swapaxes swapdims t take tile to transpose tril triu type_as"
        " unbind unflatten unfold unsqueeze view view_as zero",
        # new tensors, dropout, sizes
        "arange empty empty_like empty_strided eye full full_like linspace new_empty new_empty_strided"
        " new_full new_ones new_zeros ones ones_like rand rand_like randn randn_like scalar_tensor zeros"
        " zeros_like bernoulli dropout feature_dropout native_dropout promote_types size numel Int ScalarImplicit",
        # interpolation and pooling
        "upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d"
        " grid_sampler grid_sampler_2d _adaptive_avg_pool2d adaptive_avg_pool1d adaptive_avg_pool2d"
        " adaptive_max_pool2d avg_pool1d avg_pool2d max_pool2d max_pool2d_with_indices",
    )
    for name in group.split()
)
"""Operators without matrix products, by name without the underscore of the in-place form."""

Counts = dict[str, int]
"""Multiply-adds of one forward pass by category, norms in operations; only what the counter can distinguish."""


def count_with_torch(model: nn.Module, image: Tensor) -> Counts:
    """Count one forward pass of `image` (B, C, H, W) with torch's own counter.

    Raises ValueError for an operator that has neither a formula in torch nor an entry in `FREE`.
    """
    counter = FlopCounterMode(display=False)
    strict, over_one = _EveryOperatorKnown(), _EinsumOverOne()
    # Fused attention kernels differ by device and version; the math backend is plain products everywhere.
    with torch.no_grad(), autocast_on_meta(), sdpa_kernel(SDPBackend.MATH), counter, strict, over_one:
        model(image)
    flops = counter.get_flop_counts().get("Global", {})
    convolutions = sum(n for operator, n in flops.items() if "convolution" in str(operator))
    return {
        "products and convolutions": sum(flops.values()) // 2 + over_one.products,
        "convolutions": convolutions // 2,
        "norms": strict.norms,
    }


class _EinsumOverOne(TorchFunctionMode):
    """Counts the products of einsums that sum over a size of one, such as the heads of a model with one head."""

    def __init__(self) -> None:
        super().__init__()
        self.products = 0

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.einsum:
            operands = args[1:] if isinstance(args[1], Tensor) else args[1]
            self.products += _einsum_products(args[0], [operand.shape for operand in operands])[1]
        return func(*args, **(kwargs or {}))


class _EveryOperatorKnown(TorchDispatchMode):
    """Raises ValueError at the first dispatched operator that is neither counted by torch nor free."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.norms = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not isinstance(func, torch._ops.OpOverload):
            raise ValueError(_unknown([str(func)]))
        name = func._schema.name
        if func._overloadpacket not in flop_registry and not _is_free(name):
            raise ValueError(_unknown([name]))
        if name == "aten::native_layer_norm":
            affine = args[2] is not None
            self.norms += args[0].numel() * (LAYER_NORM_OPERATIONS if affine else LAYER_NORM_OPERATIONS - 1)
        return func(*args, **(kwargs or {}))


def count_with_fvcore(model: nn.Module, image: Tensor) -> tuple[Counts, int]:
    """Count one forward pass of `image` (B, C, H, W) with fvcore; the second number is fvcore's own total.

    The total adds to products and convolutions what else fvcore counts: norms, bilinear interpolation (4 per output
    element) and adaptive pooling. Raises ValueError for an operator that has neither a handle nor an entry in `FREE`.
    """
    with traceable(model, image) as traced, torch.no_grad(), autocast_on_meta(), TraceableConvolutions():
        analysis = FlopCountAnalysis(model, (traced,))
        analysis.set_op_handle(**_HANDLES)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        operators: Counter[str] = analysis.by_operator()
    unknown = sorted(name for name in analysis.unsupported_ops() if not _is_free(name))
    if unknown:
        raise ValueError(_unknown(unknown))
    linear, attention = (int(sum(operators[name] for name in names)) for names in (_LINEAR, _ATTENTION))
    convolutions = int(operators["conv"])
    counts = {
        "products and convolutions": linear + attention + convolutions,
        "attention": attention,
        "projections and mlp": linear,
        "convolutions": convolutions,
        "norms": int(operators["layer_norm"]),
    }
    return counts, int(sum(operators.values()))


def _shape(value: Any) -> list[int]:
    """Return the shape of a traced value, `torch._C.Value`."""
    return value.type().sizes()


def _matmul(inputs: list[Any], outputs: list[Any]) -> int:
    # fvcore's own handle uses the first operand's batch, which is wrong where that operand is broadcast.
    return math.prod(_shape(outputs[0])) * _shape(inputs[0])[-1]


def _baddbmm(inputs: list[Any], outputs: list[Any]) -> int:
    return math.prod(_shape(outputs[0])) * _shape(inputs[1])[-1]


def _einsum(inputs: list[Any], outputs: list[Any]) -> int:
    # fvcore's own handle parses a printed number of four digits.
    return sum(_einsum_products(inputs[0].toIValue(), [_shape(value) for value in inputs[1].node().inputs()]))


def _einsum_products(equation: str, shapes: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Return the multiply-adds of an einsum: those of torch's matrix products, and those over a size of one.

    The latter are elementwise to torch, which counts none; a formula includes them like any other size of that letter.
    Where no letter of both operands is summed over, everything is elementwise, and there is no product.
    """
    terms, _, result = equation.replace(" ", "").partition("->")
    operands = terms.split(",")
    if "..." in terms or len(operands) != 2 or not result:
        raise ValueError(f"einsum {terms}->{result} cannot be counted: allowed are two operands without '...'")
    sizes: dict[str, int] = {}
    for term, shape in zip(operands, shapes, strict=True):
        for letter, size in zip(term, shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    summed = (set(operands[0]) & set(operands[1])) - set(result)
    if not summed:
        return 0, 0
    products = math.prod(sizes[letter] for letter in {*result, *summed})
    return (products, 0) if any(sizes[letter] > 1 for letter in summed) else (0, products)


def _dot_product_attention(inputs: list[Any], outputs: list[Any]) -> int:
    # q (..., N, D), k (..., M, D), v (..., M, E): N M D for the logits and N M E for the mix.
    q, k, v = (_shape(value) for value in inputs[:3])
    return math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])


_HANDLES = {
    "aten::matmul": _matmul,
    "aten::mm": _matmul,
    "aten::baddbmm": _baddbmm,
    "aten::einsum": _einsum,
    "aten::scaled_dot_product_attention": _dot_product_attention,
}
# A product with a weight is traced as one of the first, a product of two activations as one of the second.
_LINEAR = ("linear", "addmm")
_ATTENTION = ("matmul", "mm", "bmm", "baddbmm", "einsum", "scaled_dot_product_attention")


def _is_free(name: str) -> bool:
    return name in FREE or name.removesuffix("_") in FREE


def _unknown(names: Sequence[str]) -> str:
    return (
        f"operator {', '.join(names)} is neither counted nor free: "
        "give it a formula, or add it to harness.measures.counters.FREE if it multiplies no matrices"
    )
