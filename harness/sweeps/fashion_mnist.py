"""Accuracy on all of Fashion-MNIST with five seeds per attention: the effect of seeds beside that of the attention."""

from backbones import preset
from harness.cells import MICRO, Cell, DataSource, Train
from harness.cells.source import FASHION_MNIST
from harness.sweeps.quickstart import ATTENTIONS

SEEDS = range(5)


def fashion_mnist() -> list[Cell]:
    """softmax, linear, focused without and with DWC in a micro PVTv2, 5 seeds each, on all of Fashion-MNIST."""
    specs = [preset("pvt_v2_micro", attention=attention) for attention in ATTENTIONS]
    data = DataSource(FASHION_MNIST)
    return [Cell(spec, Train(recipe=MICRO, data=data, seed=seed)) for seed in SEEDS for spec in specs]
