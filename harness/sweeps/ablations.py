"""The ablations of FLatten (arXiv 2308.00442, tables 4 to 7), and one of the kernel size, which the paper lacks.

Each has two parts: the costs of the paper's own model, and a micro model trained on the embedded images, which shows
the effect as far as so small a model can. Top-1 of the paper's models needs ImageNet.
"""

from typing import Any

from backbones import preset
from harness.cells import MICRO, Cell, Costs, Train
from harness.sweeps.quickstart import FASHION


def _costs(backbone: str, **overrides: Any) -> list[Cell]:
    return [Cell(preset(backbone, **overrides), Costs())]


def _micro(backbone: str, **overrides: Any) -> list[Cell]:
    spec = preset(backbone, **overrides)
    return [Cell(spec, Costs()), Cell(spec, Train(recipe=MICRO, data=FASHION))]


def ablation_focusing_factor() -> list[Cell]:
    """The focusing factor p = 2, 3, 4, 8, 32 (table 5): FLatten-Swin-T, and a micro Swin."""
    attentions = [f"focused(focusing_factor={p})" for p in (2, 3, 4, 8, 32)]
    cells = [cell for text in attentions for cell in _costs("flatten_swin_t", attention=text)]
    return cells + [cell for text in attentions for cell in _micro("swin_micro", attention=text)]


def ablation_dwc() -> list[Cell]:
    """The kernel of the depthwise convolution: none, 3, 5, 7: FLatten-Swin-T, and a micro Swin."""
    attentions = [f"focused(kernel_size={kernel})" for kernel in (None, 3, 5, 7)]
    cells = [cell for text in attentions for cell in _costs("flatten_swin_t", attention=text)]
    return cells + [cell for text in attentions for cell in _micro("swin_micro", attention=text)]


MODULES = (
    "softmax",
    "linear",
    "focused(kernel_size=None, positional_encoding=False)",
    "focused",
    # Never published:
    "linear(kernel_size=5)",
    "dwc",
)
"""Vanilla linear, + focusing, + DWC (table 4) beside softmax; then vanilla + DWC, and the DWC alone."""


def ablation_modules() -> list[Cell]:
    """Softmax, vanilla linear, + focusing, + DWC (table 4), vanilla + DWC, DWC only: FLatten-DeiT-T, a micro DeiT."""
    cells = [cell for text in MODULES for cell in _costs("flatten_deit_t", attention=text)]
    return cells + [cell for text in MODULES for cell in _micro("deit_micro", attention=text)]


def ablation_stages() -> list[Cell]:
    """Which stages are focused (table 7): SSSS to LLLL of FLatten-Swin-T, SS to LL and SL of a micro Swin."""
    cells = [
        cell for stages in ("SSSS", "LSSS", "LLSS", "LLLS", "LLLL") for cell in _costs("flatten_swin_t", stages=stages)
    ]
    return cells + [
        cell for stages in ("SS", "LS", "SL", "LL") for cell in _micro("swin_micro", attention="focused", stages=stages)
    ]


def ablation_window() -> list[Cell]:
    """The window of the focused blocks (table 6): 7 to 56 in FLatten-Swin-T, 2 to 8 in a micro Swin."""
    cells = [cell for window in (7, 14, 28, 56) for cell in _costs("flatten_swin_t", window=window)]
    return cells + [cell for window in (2, 4, 8) for cell in _micro("swin_micro", attention="focused", window=window)]
