"""Two counters of multiply-adds: torch's, of the dispatched operators, and fvcore's, of the traced graph.

Every dispatched and every traced operator is counted, by the counter or by a formula of ours (formulas.py) or of the
user's (`attentions.register_operator`), or named in `FREE`; any other is an error, because a counter that silently
skips an operator makes its model look cheap. What no counter can see: a product written as a broadcast multiplication
and a sum. There the closed formula disagrees, see costs.py.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import conv_flop_jit, norm_flop_counter
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from attentions import operator_macs, operators
from harness.measures import formulas
from harness.measures.formulas import COMPLEX, LAYER_NORM_OPERATIONS, UNKNOWN, Formula
from harness.measures.free import is_free
from harness.measures.meta_device import TraceableConvolutions, autocast_on_meta, traceable
from harness.measures.repeats import repeated

Handle = Callable[[list[Any], list[Any]], Any]

Counts = dict[str, int]
"""Multiply-adds of one forward pass by category, norms in operations; only what the counter can distinguish."""


def count_with_torch(model: nn.Module, image: Tensor, times: Mapping[str, int] = MappingProxyType({})) -> Counts:
    """Count one forward pass of `image` (B, C, H, W) with torch's own counter, the modules in `times` that many times.

    Raises ValueError for an operator that has neither a formula in torch or here nor an entry in `FREE`.
    """
    counter = FlopCounterMode(display=False)
    operators, functions = _Operators(), _Functions()
    # Fused attention kernels differ by device and version; the math backend is plain products everywhere.
    ours = repeated(model, times, (operators, functions))
    with _plainly(), sdpa_kernel(SDPBackend.MATH), ours, counter, operators, functions:
        model(image)
    by_module = counter.get_flop_counts()
    flops = Counter(by_module.get("Global", {}))
    for name, number in times.items():
        for operator, n in by_module.get(f"{type(model).__name__}.{name}", {}).items():
            flops[operator] += (number - 1) * n
    convolutions = sum(n for operator, n in flops.items() if "convolution" in str(operator))
    return {
        "products and convolutions": sum(flops.values()) // 2 + operators.products + functions.products,
        "convolutions": convolutions // 2,
        "norms": operators.norms + functions.norms,
    }


@contextmanager
def _plainly() -> Iterator[None]:
    """Run a model without gradients, and without what would make its products depend on what is installed."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), autocast_on_meta(), torch.backends.opt_einsum.flags(enabled=False):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _Functions(TorchFunctionMode):
    """Counts what can no longer be seen in the operators that a function calls.

    These are sums of elementwise products (einsums over a size of one, such as the heads of a model with one head,
    `vecdot` and `cosine_similarity`), and the norms that torch puts together.
    """

    def __init__(self) -> None:
        super().__init__()
        self.products = self.norms = 0

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func is torch.einsum:
            operands = args[1:] if isinstance(args[1], Tensor) else args[1]
            over_one = formulas.einsum(args[0], [operand.shape for operand in operands])[1]
            self.products += over_one * _factor(out)
        # Of two vectors, it calls an operator that is counted.
        elif func is torch.linalg.vecdot and out.dim():
            operands = _named(("x", "y"), args, kwargs)
            self.products += formulas.vecdot([operand.shape for operand in operands.values()]) * _factor(out)
        elif func is torch.cosine_similarity:
            operands = _named(("x1", "x2"), args, kwargs)
            self.products += formulas.vecdot([operand.shape for operand in operands.values()])
        elif func in (torch.rms_norm, F.rms_norm):
            given = _named(("input", "normalized_shape", "weight"), args, kwargs)
            self.norms += given["input"].numel() * _norm_operations(given.get("weight"))
        return out


def _named(names: Sequence[str], args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call that have these names, the first ones of a function."""
    return dict(zip(names, args, strict=False)) | {name: kwargs[name] for name in names if name in kwargs}


class _Operators(TorchDispatchMode):
    """Counts the dispatched operators that torch does not; raises ValueError at the first that is not known at all."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.products = self.norms = 0
        self.own, self.met = _own_formulas(), set[str]()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload):
            raise ValueError(_unknown([str(func)]))
        name, packet = func._schema.name, func._overloadpacket
        by_torch, formula = flop_registry.get(packet), formulas.BY_DISPATCHER.get(name)
        if by_torch is None and formula is None and name not in self.own and not is_free(name):
            raise ValueError(_unknown([name]))
        out = func(*args, **kwargs)
        if name in self.own:
            self.met.add(name)
        if by_torch is not None:
            # It takes a product of complex numbers for one.
            more = _factor(out) - 1
            self.products += more and more * by_torch(*args, **kwargs, out_val=out) // 2
        elif formula is not None:
            factor = 1 if name in formulas.FOURIER_BY_DISPATCHER else _factor(out)
            self.products += factor * formula(_by_schema(func, args, kwargs), _first(out).shape)
        elif name in self.own:
            self.products += operator_macs(name, _by_schema(func, args, kwargs))
        elif name == "aten::native_layer_norm":
            self.norms += args[0].numel() * _norm_operations(args[2])
        return out


def _norm_operations(weight: Tensor | None) -> int:
    return LAYER_NORM_OPERATIONS - (weight is None)


def _first(out: Any) -> Any:
    """Return the first result of an operator."""
    return out[0] if isinstance(out, (tuple, list)) and out else out


def _factor(out: Any) -> int:
    """Return how many real products one product is, given what the operator returns."""
    return COMPLEX if isinstance(_first(out), Tensor) and _first(out).is_complex() else 1


def _by_schema(func: Any, args: tuple, kwargs: dict[str, Any]) -> list[Any]:
    """Return the arguments of a call in the order of the operator's schema, defaults included, shapes for tensors."""
    given = _named([argument.name for argument in func._schema.arguments], args, kwargs)
    values = [given.get(argument.name, argument.default_value) for argument in func._schema.arguments]
    return [pytree.tree_map_only(Tensor, lambda tensor: tuple(tensor.shape), value) for value in values]


def _own_formulas() -> Mapping[str, Callable[..., int]]:
    """Return the formulas that users have registered. Raises ValueError for an operator that is counted anyway."""
    known = [name for name in operators() if _is_counted(name) or is_free(name)]
    if known:
        raise ValueError(f"operator {known[0]} is counted already: register_operator takes no other formula for it")
    return operators()


def _is_counted(name: str) -> bool:
    """Return whether a dispatched or traced operator is counted without any formula of the user's."""
    by_torch = {
        f"aten::{packet.__name__}" for packet in flop_registry if isinstance(packet, torch._ops.OpOverloadPacket)
    }
    return name in by_torch or name in formulas.BY_DISPATCHER or name in _HANDLES


def own_operators(model: nn.Module, image: Tensor) -> set[str]:
    """Return the operators, of those with a formula of the user's, that one pass of `image` (B, C, H, W) calls."""
    operators = _Operators()
    with _plainly(), sdpa_kernel(SDPBackend.MATH), operators:
        model(image)
    return operators.met


def count_with_fvcore(
    model: nn.Module, image: Tensor, times: Mapping[str, int] = MappingProxyType({})
) -> tuple[Counts, int]:
    """Count one forward pass of `image` (B, C, H, W) with fvcore; the second number is fvcore's own total.

    The modules in `times` count that many times. The total adds to products and convolutions what else fvcore counts:
    norms, bilinear interpolation (4 per output element) and adaptive pooling. Raises ValueError for an operator that
    has neither a handle nor an entry in `FREE`.
    """
    own = {name: _handle(name, partial(_by_own_formula, name)) for name in _own_formulas()}
    with traceable(model, image) as traced, _plainly(), TraceableConvolutions():
        analysis = FlopCountAnalysis(_Whole(model), (traced,))
        analysis.set_op_handle(**_HANDLES, **own)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        by_module: dict[str, Counter[str]] = analysis.by_module_and_operator()
    unknown = sorted(name for name in analysis.unsupported_ops() if not is_free(name))
    if unknown:
        raise ValueError(_unknown(unknown))
    counted = Counter(by_module[""])
    for name, number in times.items():
        for operator, n in by_module[f"model.{name}"].items():
            counted[operator] += (number - 1) * n
    linear = sum(counted[name] for name in formulas.WITH_WEIGHT)
    attention = sum(counted[name] for name in (*formulas.OF_ACTIVATIONS, *formulas.FOURIER, *own))
    convolutions = counted["conv"]
    counts = {
        "products and convolutions": linear + attention + convolutions,
        "attention": attention,
        "projections and mlp": linear,
        "convolutions": convolutions,
        "norms": counted["layer_norm"] + counted["rms_norm"],
    }
    return {name: int(number) for name, number in counts.items()}, int(sum(counted.values()))


class _Whole(nn.Module):
    """A model whose modules' results are results of its own: the tracer drops what only leads to an unused one.

    torch computes it all the same, as the keys of an attention that reads none.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> list[Tensor]:
        found: list[Tensor] = []

        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            found.extend(each for each in pytree.tree_leaves(output) if isinstance(each, Tensor))

        hooks = [module.register_forward_hook(keep) for module in self.model.modules()]
        try:
            self.model(image)
        finally:
            for hook in hooks:
                hook.remove()
        return found


def _handle(name: str, formula: Formula, factor: int = COMPLEX) -> Handle:
    """Return fvcore's form of a formula, which counts under the operator's full name; see `_factor` for `factor`."""

    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        out = outputs[0] if outputs else None
        number = formula([_argument(value) for value in inputs], () if out is None else _argument(out))
        return Counter({name: number * (factor if out is not None and _is_complex(out) else 1)})

    return handle


def _convolution(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    counted = conv_flop_jit(inputs, outputs)
    # torch makes three real convolutions of a complex one.
    return Counter({name: number * (3 if _is_complex(outputs[0]) else 1) for name, number in counted.items()})


def _by_own_formula(name: str, args: Sequence[Any], out: Any) -> int:
    return operator_macs(name, list(args))


def _is_complex(value: Any) -> bool:
    return value.isCompleteTensor() and "Complex" in value.type().scalarType()


def _argument(value: Any) -> Any:
    """Return a traced value, `torch._C.Value`, as a formula takes it: a shape for a tensor, else a constant.

    Sizes that a model reads from a shape are traced as tensors; what is computed from them is `UNKNOWN`.
    """
    node = value.node()
    match node.kind():
        case "prim::ListConstruct":
            return [_argument(each) for each in node.inputs()]
        case "prim::NumToTensor" | "aten::Int":
            number = _argument(next(node.inputs()))
            return number if isinstance(number, int) else UNKNOWN
        case "aten::size":
            shape, dim = map(_argument, node.inputs())
            return shape[dim]
    if value.isCompleteTensor():
        return tuple(value.type().sizes())
    return value.toIValue() if node.kind() == "prim::Constant" else UNKNOWN


_HANDLES: dict[str, Handle] = {
    **{name: _handle(name, formula) for name, formula in {**formulas.WITH_WEIGHT, **formulas.OF_ACTIVATIONS}.items()},
    **{name: _handle(name, formula, factor=1) for name, formula in formulas.FOURIER.items()},
    "aten::_convolution": _convolution,
    "aten::rms_norm": norm_flop_counter(2),
}


def _unknown(names: Sequence[str]) -> str:
    hidden = [name for name in names if name.startswith("prim::PythonOp")]
    if hidden:
        return (
            f"operator {', '.join(hidden)} is neither counted nor free: a torch.autograd.Function hides its products "
            "from the trace; make it a torch.library.custom_op, whose formula @attentions.register_operator takes"
        )
    if any(name.startswith("prim::Call") for name in names):
        return (
            "a function of torch.jit.script hides its products from the trace, and takes no formula: leave its "
            "decorator out"
        )
    return (
        f"operator {', '.join(names)} is neither counted nor free: give it a formula with "
        f'@attentions.register_operator("{names[0]}"), which returns its multiply-adds, 0 if it multiplies no matrices'
    )
