"""The main job on a small scale: four attentions in two families, measured and trained on real images anywhere."""

from backbones import preset
from harness.cells import MICRO, Cell, Costs, DataSource, Runtime, Speed, Train

ATTENTIONS = ("softmax", "linear", "focused(kernel_size=None)", "focused")
FAMILIES = ("pvt_v2_micro", "cswin_micro")
FASHION = DataSource(name="fashion_mnist_14k")


def quickstart() -> list[Cell]:
    """softmax, linear, focused without and with DWC in two micro backbones: costs, speed, top-1 on Fashion-MNIST."""
    tasks = (Costs(), Speed(Runtime(batch=64), min_seconds=1.0), Train(recipe=MICRO, data=FASHION))
    specs = [preset(family, attention=attention) for family in FAMILIES for attention in ATTENTIONS]
    return [Cell(spec, task) for spec in specs for task in tasks]
