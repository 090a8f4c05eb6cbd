"""Top-1 of the paper: every published model trained on ImageNet by its own recipe."""

from backbones import BackboneSpec, preset
from harness.cells import Cell, DataSource, RunWeights, Train
from harness.cells.runtime import Precision
from harness.published.models import spec_of
from harness.published.recipes import FINE_TUNED, recipe_of
from results import tables

IMAGENET = DataSource("imagenet")
SIDE = 224
# The same for all, so that no pair differs in it; the sources use float32 (FLatten) or float16 autocast (the others).
# Sensitive sums of linear attention are in float32 under any autocast.
PRECISION: Precision = "bf16"


def paper_accuracy() -> list[Cell]:
    """Top-1 of every published model, and of the ablations of tables 4 to 7, trained on ImageNet.

    Models at 384 pixels are fine-tuned from their run at 224, and so run after it. DeiT-B at 384 is not included: it is
    the only model at 384 pixels whose recipe is not known here.
    """
    rows = tables.published_rows("flatten")
    rows = rows[(rows["primary"] == "1") & (rows["top1"] != "")]
    specs = dict.fromkeys(spec_of(target) for target in tables.targets(rows))
    return [
        _training(spec, _start(spec)) for spec in specs if spec.image_size == (SIDE, SIDE) or spec.name in FINE_TUNED
    ]


def _training(spec: BackboneSpec, weights: RunWeights | None = None) -> Cell:
    task = Train(recipe_of(spec.name), IMAGENET, device="cuda", precision=PRECISION, weights=weights)
    return Cell(spec, task)


def _start(spec: BackboneSpec) -> RunWeights | None:
    """Return the last weights of the run at 224 pixels, of the kind with the published accuracy; None from scratch."""
    if spec.name not in FINE_TUNED:
        return None
    start = preset(FINE_TUNED[spec.name])
    return _training(start).weights(ema=recipe_of(start.name).ema_decay is not None)
