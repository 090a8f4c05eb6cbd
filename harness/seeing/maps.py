"""What chosen tokens of a block attend to, laid onto the map of the block.

B images or windows, N queries, M keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from attentions import Attention, Grid, ImpliedMap, implied_map
from harness.seeing.capture import Call, captured
from harness.seeing.places import Cell, Place, places_of
from results.wording import count

Part = Literal["together", "attention", "convolution"]
"""Of an implied map: all of it; without the depthwise convolution of the values; what that convolution adds."""

CLASS: Literal["class"] = "class"
"""The query that is the class token."""

Query = Cell | Literal["class"]


@dataclass(frozen=True)
class QueryMap:
    """What one query attends to: `weights` (heads, H, W) on the map of the block, NaN where it meets no key; `prefix`
    (heads, P), those of the prefix tokens."""

    query: Query
    weights: np.ndarray
    prefix: np.ndarray


@dataclass(frozen=True)
class BlockMaps:
    """Maps of one block of a model for an image.

    `kind` says what they are, as `attentions.ImpliedMap` does, and `convolved` whether the attention has a depthwise
    convolution of the values, which maps have as its mean over the channels of a head. `windows` has for each head the
    (height, width) of the group of cells that meets, None for all of them, and `shift` how far the map is moved before
    it is cut into windows.
    """

    stage: int
    block: int
    grid: Grid
    attention: str
    kind: str
    part: Part
    convolved: bool
    windows: tuple[tuple[int, int] | None, ...]
    shift: int
    queries: tuple[QueryMap, ...]


def block_places(model: nn.Module, stage: int, block: int) -> list[Place]:
    """Return the branches of a block: stages are counted from 1, blocks of a stage from 0.

    Raises ValueError, with what there is, for another stage or block.
    """
    places = places_of(model)
    stages = sorted({place.stage for place in places})
    if stage not in stages:
        raise ValueError(f"there is no stage {stage}; the model has {count(len(stages), 'stage')}, counted from 1")
    blocks = sorted({place.block for place in places if place.stage == stage})
    if block not in blocks:
        raise ValueError(
            f"stage {stage} has no block {block}; it has {count(len(blocks), 'block')}, counted from 0 to {blocks[-1]}"
        )
    return [place for place in places if (place.stage, place.block) == (stage, block)]


def read_query(text: str, grid: Grid) -> list[Query]:
    """Return the queries that a text means on a map: the number of a cell, row by row, "class" or "all".

    Raises ValueError for another text, and for a cell outside the map.
    """
    cells = grid.height * grid.width
    if text == "all":
        return [divmod(number, grid.width) for number in range(cells)]
    if text == CLASS:
        if not grid.prefix:
            raise ValueError("there is no class token in this block; allowed: the number of a cell, or all")
        return [CLASS]
    if not text.isdecimal() or int(text) >= cells:
        also = ", class" if grid.prefix else ""
        raise ValueError(
            f"query {text!r} is not on the map of {grid.height}x{grid.width} cells; allowed: 0 to {cells - 1}, "
            f"row by row{also}, or all"
        )
    return [divmod(int(text), grid.width)]


def same_place(query: Query, grid: Grid, other: Grid) -> Query:
    """Return the cell of another map at the place of a cell of this one, or the class token again.

    Raises ValueError where the other map has no class token.
    """
    if isinstance(query, str):
        return read_query(query, other)[0]
    row, column = ((2 * at + 1) * new // (2 * old) for at, old, new in zip(query, grid, other, strict=False))
    return row, column


@torch.no_grad()
def maps_of(
    model: nn.Module, image: Tensor, stage: int, block: int, queries: Sequence[Query], part: Part = "together"
) -> BlockMaps:
    """Return what queries of a block attend to in an image (1, C, H, W), normalised as the model takes it.

    Raises ValueError for a block that is not there, and where the attention has no such part or reads no values.
    """
    assert part in get_args(Part)
    places = block_places(model, stage, block)
    with captured([place.module for place in places]) as calls:
        model.eval()(image)
    branches = [_branch(place, calls[place.module], queries, part) for place in places]
    found = tuple(
        QueryMap(
            query, *(np.concatenate(parts) for parts in zip(*(branch[query] for branch, *_ in branches), strict=True))
        )
        for query in queries
    )
    kinds = dict.fromkeys(kind for _, kind, _ in branches)
    convolved = any(each for *_, each in branches)
    windows = tuple(place.window for place in places for _ in range(place.site.heads))
    first = places[0]
    about = (first.grid, first.attention, " and ".join(kinds), part, convolved)
    return BlockMaps(stage, block, *about, windows, first.shift, found)


def _branch(
    place: Place, call: Call, queries: Iterable[Query], part: Part
) -> tuple[dict[Query, tuple[np.ndarray, np.ndarray]], str, bool]:
    """Return the weights on the map, and those of prefix tokens, for each query; their kind; if a convolution adds."""
    at = {query: (0, 0) if isinstance(query, str) else place.group_of(query) for query in queries}
    by_group: dict[int, list[Query]] = {}
    for query, (group, _) in at.items():
        by_group.setdefault(group, []).append(query)
    found, kinds, convolved = {}, dict[str, None](), False
    for group, members in by_group.items():
        implied = _implied(place.module, call, group, [at[query][1] for query in members])
        kinds[implied.kind] = None
        convolved |= implied.convolution is not None
        weights = _part_of(implied, part, place.module)[0].movedim(1, 0).cpu().numpy()
        for query, own in zip(members, weights, strict=True):
            found[query] = (place.on_map(own, group), own[:, : place.site.keys.prefix])
    return found, " and ".join(kinds), convolved


def _implied(module: Attention, call: Call, group: int, tokens: Sequence[int]) -> ImpliedMap:
    given = {
        name: value if name == "bias" and len(value) == 1 else value[group : group + 1]
        for name, value in call.arguments.items()
    }
    return implied_map(module, **given, queries=tokens)


def _part_of(implied: ImpliedMap, part: Part, module: Attention) -> Tensor:
    if part == "attention":
        if implied.convolution is not None and not implied.weights.any():
            raise ValueError(f"{type(module).__name__} has no part here but its depthwise convolution of the values")
        return implied.weights
    if implied.convolution is None:
        if part == "convolution":
            raise ValueError(f"{type(module).__name__} has no depthwise convolution of the values here")
        return implied.weights
    return implied.convolution if part == "convolution" else implied.weights + implied.convolution
