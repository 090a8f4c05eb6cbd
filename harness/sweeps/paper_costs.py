"""Parameters and GMACs of every published model."""

from backbones import preset, presets
from harness.cells import Cell, Costs


def paper_costs() -> list[Cell]:
    """Parameters and GMACs of every preset."""
    return [Cell(preset(name), Costs()) for name in presets()]
