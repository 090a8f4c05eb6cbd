"""Where tokens lie: rows and columns on the grid of the queries."""

import torch
from torch import Tensor

from attentions._contract import Grid


def positions(grid: Grid, on: Grid) -> Tensor:
    """Rows and columns of the tokens of `grid`, without its prefix, in steps of `on`: (height * width, 2), float64.

    A coarser grid over the same image is laid on `on` with its edges on the edges: the places are centres of cells.
    """
    rows, columns = (
        (torch.arange(length, dtype=torch.float64) + 0.5) * (steps / length) - 0.5
        for length, steps in ((grid.height, on.height), (grid.width, on.width))
    )
    return torch.cartesian_prod(rows, columns)
