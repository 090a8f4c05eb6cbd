"""Sweeps: functions that return cells. Those here come with the project; a user's own can be in any Python file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attentions import load_file, unknown
from harness.cells import Cell, distinct
from harness.sweeps.ablations import (
    ablation_dwc,
    ablation_focusing_factor,
    ablation_modules,
    ablation_stages,
    ablation_window,
)
from harness.sweeps.atlas import atlas
from harness.sweeps.fashion_mnist import fashion_mnist
from harness.sweeps.paper_accuracy import paper_accuracy
from harness.sweeps.paper_costs import paper_costs
from harness.sweeps.quickstart import quickstart

Sweep = Callable[[], list[Cell]]

SWEEPS: dict[str, Sweep] = {
    sweep.__name__: sweep
    for sweep in (
        quickstart,
        fashion_mnist,
        atlas,
        paper_costs,
        paper_accuracy,
        ablation_focusing_factor,
        ablation_dwc,
        ablation_modules,
        ablation_stages,
        ablation_window,
    )
}


def expand(name: str) -> list[Cell]:
    """Return the cells of a sweep, given by its name here or as `file.py:function`, without duplicates.

    Raises:
        ValueError: for an unknown sweep, a file that cannot be loaded, or a function that does not return cells.
    """
    sweep = _find(name)
    try:
        cells = sweep()
    except ValueError:
        raise
    except (Exception, SystemExit) as problem:
        # A sweep is the user's own code, which may raise anything.
        raise ValueError(f"sweep {name!r} failed: {type(problem).__name__}: {problem}") from problem
    if not isinstance(cells, list) or not all(isinstance(cell, Cell) for cell in cells):
        raise ValueError(f"sweep {name!r} does not return a list of cells")
    if not cells:
        raise ValueError(f"sweep {name!r} has no cells")
    return distinct(cells)


def _find(name: str) -> Sweep:
    path, colon, function = name.rpartition(":")
    if name.endswith((".py", ".py:")):
        file = name.removesuffix(":")
        raise ValueError(f"{file} is a file: add the name of the function in it, as in {file}:my_sweep")
    if not colon:
        if name not in SWEEPS:
            raise ValueError(unknown("sweep", name, [*SWEEPS, "my_sweeps.py:name"]))
        return SWEEPS[name]
    found = getattr(load_file(Path(path)), function, None)
    if not callable(found):
        raise ValueError(f"sweep {name!r}: {path} has no function {function!r}")
    return found
