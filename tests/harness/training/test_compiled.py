"""Compiled training compiles once: not again for a stage, a micro-batch, an epoch, or what is evaluated in between.

Graphs are captured as in any compiled run, and then run by torch's operators: what is counted does not depend on the
code that is made of them, which takes minutes.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from backbones import BackboneSpec, preset
from harness.cells import MICRO, Recipe
from harness.images.batches import Batch
from harness.training.learner import Learner, Setup
from harness.training.loop import train
from tests.harness.image_sets import coloured
from tests.harness.small_training import EVERYTHING, deit, task

ONCE = {"total": 1, "ok": 1}
"""What dynamo counts of frames where one was compiled, and none a second time."""


@pytest.fixture(autouse=True)
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()
    counters.clear()


def compiled() -> tuple[Counter[str], int, int]:
    """Return the frames that were compiled, and how many graphs and breaks between graphs that made."""
    return counters["frames"], counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())


def test_a_run_compiles_once(tmp_path: Path) -> None:
    """Two epochs of updates in two micro-batches, mixed, erased and with drop path; 13 val images remain."""
    folder = coloured(tmp_path / "images", val=47)
    this = task(folder, EVERYTHING, mode="compiled", device_batch=8)
    metrics = train(this, deit(), tmp_path / "run", print)
    assert (metrics["epochs"], metrics["accumulation"], metrics["n_images"]) == (2, 2, 141)
    assert compiled() == (ONCE, 1, 0)


def test_stages_and_their_windows_are_one_graph() -> None:
    spec, recipe = preset("swin_micro", attention="focused"), replace(MICRO, batch=8, drop_path=0.1)
    learner = Learner(spec, recipe, Setup(torch.device("cpu"), mode="compiled", accumulation=2), updates_per_epoch=10)
    for step in range(3):
        learner.update([micro_batch(spec, recipe, step) for _ in range(2)], step)
    assert compiled() == (ONCE, 1, 0)
    learner.update([micro_batch(spec, replace(recipe, batch=4), 0)] * 2, 3)
    assert compiled()[1] == 2, "another size of batch, which no run has, would be seen here"


def micro_batch(spec: BackboneSpec, recipe: Recipe, seed: int) -> Batch:
    generator, images = torch.Generator().manual_seed(seed), recipe.batch // 2
    pixels = torch.randint(0, 256, (images, spec.in_channels, *spec.image_size), generator=generator)
    targets = torch.randint(0, spec.num_classes, (images,), generator=generator)
    return Batch(pixels.to(torch.uint8), targets, torch.arange(images), torch.arange(images))
