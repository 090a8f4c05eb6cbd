"""Top-1 of the paper: every published model trained on ImageNet by its own recipe."""

import results
from harness.cells import Cell
from harness.published_recipes import recipe_of
from harness.reproduce import spec_of
from harness.sources import DataSource
from harness.speed import Precision
from harness.train import Train

IMAGENET = DataSource("imagenet")
SIDE = 224
# One for all, so that no pair differs in it; the sources have float32 (FLatten) or float16 autocast (the others). What
# is sensitive in linear attention is summed in float32 under any autocast.
PRECISION: Precision = "bf16"


def paper_accuracy() -> list[Cell]:
    """Top-1 of every published model at 224 pixels and of the ablations of tables 4 to 7, trained on ImageNet."""
    rows = results.published_rows("flatten")
    rows = rows[(rows["primary"] == "1") & (rows["top1"] != "")]
    specs = dict.fromkeys(spec_of(target) for target in results.targets(rows))
    # At 384 pixels they are fine-tuned, from weights that a run at 224 pixels has yet to make.
    from_scratch = [spec for spec in specs if spec.image_size == (SIDE, SIDE)]
    return [
        Cell(spec, Train(recipe=recipe_of(spec.name), data=IMAGENET, device="cuda", precision=PRECISION))
        for spec in from_scratch
    ]
