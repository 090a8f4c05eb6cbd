"""Positions of tokens: rows and columns on the grid of the queries."""

import torch
from torch import Tensor

from attentions._contract import Grid


def positions(grid: Grid, on: Grid) -> Tensor:
    """Return rows and columns of the tokens of `grid`, without prefix, in steps of `on`: (height * width, 2), float64.

    A coarser grid of the same image is aligned with `on` at the edges; positions are the centres of its cells.
    """
    rows, columns = (
        (torch.arange(length, dtype=torch.float64) + 0.5) * (steps / length) - 0.5
        for length, steps in ((grid.height, on.height), (grid.width, on.width))
    )
    return torch.cartesian_prod(rows, columns)
