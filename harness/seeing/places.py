"""Where the tokens of each attention lie on the image: whole maps, windows and their shift, stripes, reduced keys."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from attentions import Attention, Grid, Site
from backbones import BackboneSpec

Cell = tuple[int, int]
"""Row and column on the map of a block."""


@dataclass(frozen=True)
class Place:
    """One attention of a model, and how its tokens lie on the map of its block.

    `stage` and `branch` are counted from 1, `block` from 0; CSWin has two branches, with a share of the heads each.
    `grid` is the block's map of tokens, `window` the (height, width) of the group that meets or None for all of it,
    `shift` Swin's cyclic shift of the map before it is cut into windows.
    """

    stage: int
    block: int
    branch: int
    attention: str
    module: Attention
    grid: Grid
    window: tuple[int, int] | None
    shift: int

    @property
    def site(self) -> Site:
        return self.module.site

    def __str__(self) -> str:
        return f"stage {self.stage}, block {self.block}"

    def group_of(self, cell: Cell) -> tuple[int, int]:
        """Return the window in which a cell of the map is, and the number of its token there, prefix included."""
        row, column = self._shifted(cell)
        height, width = self.window or (self.grid.height, self.grid.width)
        across = self.grid.width // width
        group = row // height * across + column // width
        return group, self.site.queries.prefix + row % height * width + column % width

    def _shifted(self, cell: Cell) -> Cell:
        row, column = cell
        return (row - self.shift) % self.grid.height, (column - self.shift) % self.grid.width

    def cells_of(self, group: int) -> np.ndarray:
        """Return the cells of the map that a window holds, in the order of its tokens, (tokens, 2)."""
        height, width = self.window or (self.grid.height, self.grid.width)
        top, left = (
            part * side for part, side in zip(divmod(group, self.grid.width // width), (height, width), strict=True)
        )
        rows, columns = np.mgrid[top : top + height, left : left + width].reshape(2, -1)
        return np.stack([(rows + self.shift) % self.grid.height, (columns + self.shift) % self.grid.width], axis=1)

    def on_map(self, weights: np.ndarray, group: int) -> np.ndarray:
        """Lay weights of the keys of a window, (..., M), onto the map, (..., H, W), with NaN outside the window.

        Where keys were reduced, each cell has the weight of the key that was made from it: of several keys, as in
        pooling with overlap, that of the one whose middle is nearest.
        """
        keys, (height, width) = self.site.keys, self.window or (self.grid.height, self.grid.width)
        laid = weights[..., keys.prefix :].reshape(*weights.shape[:-1], keys.height, keys.width)
        rows = (np.arange(height) * 2 + 1) * keys.height // (2 * height)
        columns = (np.arange(width) * 2 + 1) * keys.width // (2 * width)
        laid = laid[..., rows[:, None], columns[None, :]].reshape(*weights.shape[:-1], -1)
        found = np.full((*weights.shape[:-1], self.grid.height, self.grid.width), np.nan)
        cells = self.cells_of(group)
        found[..., cells[:, 0], cells[:, 1]] = laid
        return found


def places_of(model: nn.Module) -> list[Place]:
    """Return the places of a model's attentions, in the order in which they run.

    Raises ValueError for a model without an attention of this project, and for a compiled one, in which nothing can be
    looked at.
    """
    if hasattr(model, "_orig_mod"):
        raise ValueError("a compiled model cannot be looked into: take the model as it was before torch.compile")
    # Families register their blocks in the order in which they run, as timm does.
    modules = [module for module in model.modules() if isinstance(module, Attention)]
    if not modules:
        raise ValueError(
            f"{type(model).__name__} has no attention of this project; allowed: its backbones, and timm's "
            "VisionTransformer after swap"
        )
    if not isinstance(spec := getattr(model, "spec", None), BackboneSpec):
        return [
            Place(1, block, 1, type(module).__name__, module, module.site.queries, None, 0)
            for block, module in enumerate(modules)
        ]
    rest = iter(modules)
    return [
        Place(mount.stage, mount.block, branch, str(mount.attention), module, mount.grid, window, mount.shift)
        for mount in spec.mounts()
        for branch, (window, module) in enumerate(zip(mount.windows, rest, strict=False), start=1)
    ]
