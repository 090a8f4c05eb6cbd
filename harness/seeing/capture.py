"""What reaches attentions in a forward pass, and what they return: by hooks, which are gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from attentions import Attention


class Call(NamedTuple):
    """One call of an attention: its arguments by name (q, k, v; bias, x and regions where it got them), its output."""

    arguments: dict[str, Tensor]
    out: Tensor


@contextmanager
def captured(modules: Sequence[Attention]) -> Iterator[dict[Attention, Call]]:
    """Collect, during the block, the last call of each of these modules of a model.

    Nothing of the model is changed: a forward pass returns the same bits with and without.
    """
    calls: dict[Attention, Call] = {}

    def keep(module: nn.Module, values: tuple[Any, ...], named: dict[str, Any], out: Tensor) -> None:
        assert isinstance(module, Attention)
        given = dict(zip("qkv", values, strict=False)) | named
        arguments = {name: value.detach() for name, value in given.items() if isinstance(value, Tensor)}
        calls[module] = Call(arguments, out.detach())

    handles = [module.register_forward_hook(keep, with_kwargs=True) for module in modules]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
