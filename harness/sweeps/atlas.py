"""What every attention costs in every backbone that takes it."""

from attentions import names
from backbones import preset
from harness.cells import Cell, Costs

HOSTS = (
    "deit_t",
    "deit_s",
    "deit_b",
    "pvt_tiny",
    "pvt_small",
    "pvt_medium",
    "pvt_large",
    "pvt_v2_b0",
    "pvt_v2_b1",
    "pvt_v2_b2",
    "pvt_v2_b3",
    "pvt_v2_b4",
    "pvt_v2_b5",
    "swin_t",
    "swin_s",
    "swin_b",
    "cswin_t",
    "cswin_s",
    "cswin_b",
)
"""The original backbones at 224 pixels, as published with softmax."""


def atlas() -> list[Cell]:
    """Parameters and GMACs of every attention in every original backbone that takes it, in all stages."""
    cells = []
    for host in HOSTS:
        for attention in names():
            try:
                cells.append(Cell(preset(host, attention=attention), Costs()))
            except ValueError:  # this attention does not fit this backbone, and says why
                continue
    return cells
