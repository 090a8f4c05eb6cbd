"""Blocks that a model repeats: counting one of each kind, and how many it stands for, is counting all of them.

Two blocks are of a kind if their inputs have one shape and nothing tells them apart: their classes, their attributes,
the shapes of their tensors, in all their modules. On the meta device, where tensors have no values, such blocks do the
same operations. What cannot be compared makes a block one of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from backbones import Backbone


@dataclass
class _Kind:
    """A block that is run, the shape of its input, and how many blocks it stands for."""

    block: nn.Module
    shape: tuple[int, ...]
    number: int = 1


@contextmanager
def each_kind_once(model: Backbone, image: Tensor) -> Iterator[dict[str, int]]:
    """Let a model run only the first block of each kind, and yield the numbers of those that stand for several.

    They are by the name of the block, as in {"layers.2.blocks.0": 3}. `image` (B, C, H, W) is what the model will get.
    A block returns tokens of the shape of its input.
    """
    kinds: list[_Kind] = []

    def find(blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
        for block in blocks:
            of = next((kind for kind in kinds if kind.shape == x.shape and alike(kind.block, block)), None)
            if of is None:
                kinds.append(_Kind(block, x.shape))
            else:
                of.number += 1
        return x

    def once(blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
        shape = tuple(map(int, x.shape))
        for block in blocks:
            if block in shapes:
                assert shapes[block] == shape
                x = block(x)
                assert tuple(map(int, x.shape)) == shape
        return x

    try:
        vars(model)["run"] = find
        with torch.no_grad():
            model(image)
        shapes = {kind.block: kind.shape for kind in kinds}
        vars(model)["run"] = once
        names = {block: name for name, block in model.named_modules()}
        yield {names[kind.block]: kind.number for kind in kinds if kind.number > 1}
    finally:
        del vars(model)["run"]


def alike(one: Any, other: Any) -> bool:
    """Return whether nothing tells two modules, or two attributes of modules, apart."""
    if type(one) is not type(other):
        return False
    if isinstance(one, nn.Module):
        return alike(vars(one), vars(other))
    if isinstance(one, Tensor):
        shaped = [(x.shape, x.stride(), x.dtype, x.device, x.requires_grad) for x in (one, other)]
        return shaped[0] == shaped[1] and (one.is_meta or torch.equal(one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(map(alike, one.values(), other.values()))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    # Not everything answers with a bool, as arrays do not.
    return one is other or (one == other) is True


class Tally(Protocol):
    """What counts while a model runs."""

    products: int
    norms: int


@contextmanager
def repeated(model: nn.Module, times: Mapping[str, int], tallies: Sequence[Tally]) -> Iterator[None]:
    """Let what is counted inside of the modules in `times` count that many times."""
    before: dict[str, list[tuple[int, int]]] = {}

    def enter(name: str, *_: Any) -> None:
        before[name] = [(tally.products, tally.norms) for tally in tallies]

    def leave(name: str, *_: Any) -> None:
        for tally, (products, norms) in zip(tallies, before[name], strict=True):
            tally.products += (times[name] - 1) * (tally.products - products)
            tally.norms += (times[name] - 1) * (tally.norms - norms)

    handles = []
    for name in times:
        block = model.get_submodule(name)
        handles.append(block.register_forward_pre_hook(partial(enter, name)))
        handles.append(block.register_forward_hook(partial(leave, name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
