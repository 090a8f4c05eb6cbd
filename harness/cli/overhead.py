"""The overhead of the harness: the time of a `Learner`'s step divided by that of a plain loop on the same model.

    python -m harness.cli.overhead flatten_swin_t flatten_pvt_t --batch 8

The step does all that a recipe asks for: uint8 images normalised, erased and mixed on the device, drop path, the check
for gradients that are not finite, clipping, AdamW, the learning rate's schedule, the moving average, and on a CPU the
deterministic algorithms of torch. The plain loop has float images on the device, and does forward, cross entropy,
backward and `torch.optim.AdamW` with its defaults. Reading images from files is not measured here: the
`data_wait_share` of a run is.
"""

import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

from harness.process.waiting import set_wait_policy

if __name__ == "__main__":
    set_wait_policy()  # before torch

import torch
import tyro
from torch.nn import functional as F

from backbones import BackboneSpec, preset
from harness.cells import Recipe
from harness.cells.runtime import Device, Precision
from harness.images.batches import Batch
from harness.measures.comparison import Ratio, clock_of, ratio
from harness.measures.memory import held
from harness.measures.quiet import PATIENCE, UNWATCHED, wait_for_quiet, watch
from harness.measures.speed import Timer
from harness.process.determinism import deterministic
from harness.process.environment import check_device
from harness.published.recipes import recipe_of
from harness.training.learner import Learner, Setup

UPDATES_PER_EPOCH = 1000
"""Of the schedule; the time of a step does not depend on it."""


def overhead(
    spec: BackboneSpec,
    recipe: Recipe,
    device: torch.device,
    batch: int,
    min_seconds: float,
    precision: Precision = "fp32",
    timed: Timer | None = None,
) -> Ratio:
    """Measure the time of a step of `recipe` with `batch` images over that of a plain loop, in turn in this process.

    1 is no overhead; below 1 the step is faster, because of its fused optimizer. At least `min_seconds` are measured,
    by `timed` (default: the clock of the device).

    Raises:
        ValueError: for an odd batch if the recipe mixes images.
    """
    recipe = replace(recipe, batch=batch, mixup_images=None)
    setup = Setup(device, precision)
    learner = Learner(spec, recipe, setup, UPDATES_PER_EPOCH)
    model = deepcopy(learner.model).train()
    images = torch.randint(256, (batch, spec.in_channels, *spec.image_size), dtype=torch.uint8)
    targets = torch.randint(spec.num_classes, (batch,))
    data = [Batch(images, targets, torch.arange(batch), torch.arange(batch))]
    step = 0

    def of_the_learner() -> None:
        nonlocal step
        learner.update(data, step)
        step += 1

    normalised, labels = learner.normalise(images), targets.to(device)
    # At the learner's rate the two models stay alike: the time of a matrix product depends on its numbers as well.
    optimizer = torch.optim.AdamW(model.parameters(), lr=learner.optimizer.param_groups[0]["lr"])
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def plain() -> None:
        # A run is deterministic; a plain loop is not.
        torch.use_deterministic_algorithms(False)
        with setup.autocast():
            loss = F.cross_entropy(model(normalised), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        # Here, as in the learner, and not before the next step: so neither runs while the other holds gradients.
        optimizer.zero_grad()
        torch.use_deterministic_algorithms(deterministic_algorithms)

    with deterministic(device):
        deterministic_algorithms = torch.are_deterministic_algorithms_enabled()
        for call in (of_the_learner, plain) * 2:
            call()
        tensors = held(learner.model, model)
        kind: Device = "cuda" if device.type == "cuda" else "cpu"
        if timed is not None:
            return ratio(of_the_learner, plain, timed, min_seconds, UNWATCHED, tensors)
        watching = watch(kind)
        wait_for_quiet(watching, PATIENCE, lambda text: None)
        return ratio(of_the_learner, plain, clock_of(kind), min_seconds, watching, tensors)


def cpu_time(call: Callable[[], object]) -> float:
    """Time a call on a CPU shared with other work: CPU seconds of this process, summed over its threads (use one)."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main(
    presets: tyro.conf.Positional[tuple[str, ...]],
    batch: int = 8,
    seconds: float = 60.0,
    device: str = "cpu",
    precision: Precision = "fp32",
    ema_decay: float | None = None,
    shared: bool = False,
) -> None:
    """Print the overhead of the harness for presets with their published recipes.

    Args:
        presets: backbones such as flatten_swin_t.
        batch: images per step.
        seconds: the least time to measure for.
        device: cpu or cuda.
        precision: fp32, or autocast to bf16 or fp16.
        ema_decay: decay of the moving average, in place of the recipe's.
        shared: measure CPU time, as other work shares the CPU; set OMP_NUM_THREADS=1.
    """
    check_device(device)
    for name in presets:
        recipe = recipe_of(name)
        if ema_decay is not None:
            recipe = replace(recipe, ema_decay=ema_decay)
        found = overhead(
            preset(name), recipe, torch.device(device), batch, seconds, precision, cpu_time if shared else None
        )
        disturbed = "" if found.disturbed is None else f", disturbed: {found.disturbed}"
        print(
            f"{name}: {found.value:.3f} ({found.low:.3f} to {found.high:.3f}, {found.blocks} blocks{disturbed})",
            flush=True,
        )


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except ValueError as problem:
        print(f"overhead: {problem}", file=sys.stderr)
        sys.exit(2)
