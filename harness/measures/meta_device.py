"""Models on the meta device, where tensors have shapes and no memory: what it takes to run and to trace them there."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from harness.process.errors import first_line


@contextmanager
def autocast_on_meta() -> Iterator[None]:
    """Let `torch.autocast(x.device.type, enabled=False)` pass, which torch refuses for the meta device.

    Attentions open such regions to compute in float32; here everything is float32 anyway. The constructor is replaced
    and not the class, as a file may have imported that by name; no mode of torch's sees the constructor.
    """
    original = torch.autocast.__init__

    def init(self: torch.autocast, device_type: str, *args: Any, **kwargs: Any) -> None:
        original(self, "cpu" if device_type == "meta" else device_type, *args, **kwargs)

    torch.autocast.__init__ = init  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.autocast.__init__ = original  # type: ignore[method-assign]


@contextmanager
def as_written() -> Iterator[None]:
    """Let functions under `torch.compile` run as they are written: compiled code hides its operators from counters."""
    # torch refuses to trace such functions, whatever the stance; inside a kernel of its own it calls what they wrap.
    inside: Any = SimpleNamespace(in_kernel_invocation=True, shape_env=None)
    with torch.compiler.set_stance("force_eager"), torch._guards.tracing(torch._guards.TracingContext(inside)):
        yield


@contextmanager
def without_values() -> Iterator[None]:
    """Say in an error about the meta device what is different there: a user does not know that it is counted on it."""
    try:
        yield
    except (NotImplementedError, RuntimeError, TypeError) as problem:
        if "meta" not in str(problem):
            raise
        raise ValueError(
            f"{first_line(problem)} (multiply-adds are counted on the meta device, on which tensors have no values: "
            "neither .item() nor .numpy() nor a tensor of another device works there)"
        ) from problem


@contextmanager
def traceable(model: nn.Module, image: Tensor) -> Iterator[Tensor]:
    """Yield the image to trace with: on the CPU, where the model is all zeros meanwhile, if meta will not do."""
    if not image.is_meta or _convolutions_trace_on_meta():
        yield image
        return
    model.to_empty(device="cpu")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.detach().zero_()
    yield torch.zeros(image.shape)
    model.to("meta")


@cache
def _convolutions_trace_on_meta() -> bool:
    """Return whether this torch has the traceable convolution for the meta device; 2.11 has not."""
    x, weight = torch.empty(1, 1, 1, 1, device="meta"), torch.empty(1, 1, 1, 1, device="meta")
    try:
        _convolution(x, weight)
    except NotImplementedError:
        return False
    return True


class TraceableConvolutions(TorchFunctionMode):
    """Turn convolutions, transposed ones too, into the operator that the tracer records.

    `conv2d` is traced as the `_convolution` which its CPU kernel happens to call. On the meta device it calls
    none, so the operator is called by name here, which lets fvcore count without memory.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (torch.conv1d, torch.conv2d, torch.conv3d):
            return _convolution(*args, **(kwargs or {}))
        if func in (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d):
            return _transposed_convolution(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    rank = weight.dim() - 2
    dilation = _each(dilation, rank)
    if isinstance(padding, str):
        reach = [0 if padding == "valid" else d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        # torch pads "same" with the larger half at the end; the halves come last dimension first in F.pad.
        x = nn.functional.pad(x, [side for total in reversed(reach) for side in (total // 2, total - total // 2)])
        padding = 0
    return _traced(x, weight, bias, stride, padding, dilation, groups)


def _transposed_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    return _traced(x, weight, bias, stride, padding, dilation, groups, output_padding)


def _traced(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
    output_padding: int | Sequence[int] | None = None,
) -> Tensor:
    """Call the operator, transposed where there is an `output_padding`, on x (B, C, ...) or (C, ...)."""
    rank = weight.dim() - 2
    alone = x.dim() == rank + 1
    transposed = output_padding is not None
    out = torch._convolution(
        x.unsqueeze(0) if alone else x, weight, bias, _each(stride, rank), _each(padding, rank), _each(dilation, rank),
        transposed, _each(output_padding or 0, rank), groups,
        benchmark=False, deterministic=False, cudnn_enabled=False, allow_tf32=False,
    )  # fmt: skip
    return out.squeeze(0) if alone else out


def _each(value: int | Sequence[int], rank: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * rank if len(values) == 1 else values
