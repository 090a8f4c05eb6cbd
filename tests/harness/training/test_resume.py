"""A run that is killed ends like one that is not: weights, average, optimizer bit for bit, every line of metrics.

Each attempt is a process of its own, or two, forked from a server that has imported torch already. It kills itself with
SIGKILL at a step of the test's choice.
"""

import hashlib
import json
import multiprocessing
import os
import random
import signal
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

import backbones
from harness.cells import MICRO, DataSource, Train
from harness.cells.recipe import LR_BATCH
from harness.images.batches import Batch
from harness.process.ranks import process_group
from harness.process.stopping import Stopped
from harness.training import checkpoints
from harness.training.learner import Learner
from harness.training.loop import train
from tests.harness.image_sets import coloured
from tests.harness.processes import PATIENCE, SERVER, become, free_port
from tests.nightly import KILLS, NIGHTLY

RECIPE = replace(
    MICRO,
    epochs=2,
    batch=16,
    warmup_epochs=0.5,
    lr=2e-3 * LR_BATCH / 16,
    drop_path=0.2,
    label_smoothing=0.1,
    mixup=0.8,
    cutmix=1.0,
    mixup_images=8,
    random_erasing=0.25,
    rand_augment="rand-m9-mstd0.5-inc1",
    repeated_augmentation=2,
    ema_decay=0.9,
)
UPDATES = 12  # an epoch


@dataclass(frozen=True)
class Attempt:
    """One start of the run in `folder`, on so many ranks; `kill_at`: SIGKILL before that update, on `kill_rank`."""

    images: str
    folder: str
    accumulation: int = 1
    workers: int = 0
    world: int = 1
    kill_at: int | None = None
    kill_rank: int = 0
    with_signal: int = signal.SIGKILL
    checkpoint_minutes: float = 0.0
    precision: str = "fp32"
    drop_path: float = RECIPE.drop_path

    def start(self) -> list[int]:
        """Exit codes by rank; negative: the number of the signal that ended it."""
        port = free_port()
        processes: list[BaseProcess] = [
            SERVER.Process(target=attempt, args=(self, rank, port)) for rank in range(self.world)
        ]
        for process in processes:
            process.start()
        # As torchrun does: where one has died, the others are ended.
        while all(process.is_alive() for process in processes):
            processes[0].join(0.02)
        for process in processes:
            process.join(5)
            if process.is_alive():
                process.kill()
            process.join(PATIENCE)
        return [process.exitcode or 0 for process in processes]


def attempt(this: Attempt, rank: int, port: int) -> None:
    """What a process does: the run, with its own death in it."""
    become(rank, this.world, port)
    update = Learner.update

    def update_or_die(self: Learner, batches: list[Batch], step: int) -> None:
        if step == this.kill_at and rank == this.kill_rank:
            if this.with_signal == signal.SIGKILL:  # as when a node is lost: its workers would linger for seconds
                for worker in multiprocessing.active_children():
                    worker.kill()
            os.kill(os.getpid(), this.with_signal)
        update(self, batches, step)

    Learner.update = update_or_die  # type: ignore[method-assign]
    task = Train(
        replace(RECIPE, drop_path=this.drop_path),
        DataSource.folder(this.images),
        precision=this.precision,  # type: ignore[arg-type]
        workers=this.workers,
        device_batch=RECIPE.batch // (this.world * this.accumulation),
        checkpoint_minutes=this.checkpoint_minutes,
    )
    with process_group():
        try:
            train(task, spec(), Path(this.folder), lambda line: None)
        except Stopped as stopped:
            raise SystemExit(stopped.status) from None


def spec() -> backbones.BackboneSpec:
    size: dict[str, Any] = {"dim": 16, "depth": 2, "heads": 2, "image_size": (16, 16), "num_classes": 3}
    return replace(backbones.preset("deit_micro", attention="focused"), **size)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(coloured(tmp_path_factory.mktemp("images")))


def digest(folder: Path) -> str:
    """Of every tensor in the newest checkpoint, and of what is counted; not of times."""
    state = checkpoints.read(checkpoints.all_of(folder)[0])
    found = hashlib.sha256()

    def add(name: str, value: object) -> None:
        if isinstance(value, dict):
            for key in sorted(value, key=str):
                add(f"{name}.{key}", value[key])
        elif isinstance(value, torch.Tensor):
            found.update(name.encode() + value.contiguous().numpy().tobytes())

    for part in ("model", "ema", "optimizer", "counts"):
        add(part, state[part])
    return found.hexdigest()


def metrics(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    times = ("loop_images_per_s", "data_wait_share", "loop_disturbed_share", "loop_disturbed")
    return [{k: v for k, v in line.items() if k not in times} for line in lines]


# Every pair of values is there.
@pytest.mark.parametrize(("world", "workers", "accumulation"), [(1, 0, 1), (1, 2, 2), (2, 0, 2), (2, 2, 1)])
def test_killed_at_random_steps(images: str, tmp_path: Path, world: int, workers: int, accumulation: int) -> None:
    whole = Attempt(images, str(tmp_path / "whole"), accumulation, workers, world, checkpoint_minutes=10.0)
    assert whole.start() == [0] * world
    draw = random.Random(repr((world, workers, accumulation)))
    kills = sorted(draw.choices(range(2 * UPDATES), k=KILLS))
    killed = replace(whole, folder=str(tmp_path / "killed"), checkpoint_minutes=0.0)
    for step in kills:
        rank = draw.randrange(world)
        codes = replace(killed, kill_at=step, kill_rank=rank).start()
        assert codes[rank] == -signal.SIGKILL, (step, codes)
    assert killed.start() == [0] * world
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    for name in ("correct.npy", "correct_ema.npy"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_ranks_and_accumulation_change_nothing_but_the_order_of_sums(images: str, tmp_path: Path) -> None:
    """But for drop path, which draws for each micro-batch: off here. The images are the same whatever the split."""
    found = {}
    for world, accumulation in ((1, 1), (1, 4), (2, 1), (2, 2), (4, 1)):
        folder = tmp_path / f"{world}x{accumulation}"
        one = Attempt(images, str(folder), accumulation, 0, world, checkpoint_minutes=10.0, drop_path=0.0)
        assert one.start() == [0] * world
        found[world, accumulation] = checkpoints.read(checkpoints.all_of(folder)[0])["model"], metrics(folder)[-1]
    model, last = found[1, 1]
    for split, (other, line) in found.items():
        for name, value in model.items():
            assert torch.allclose(other[name], value, rtol=1e-3, atol=2e-5), (split, name)
        assert line["train_loss"] == pytest.approx(last["train_loss"], rel=1e-5)
        assert line["top1"] == pytest.approx(last["top1"], abs=3)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_killed_in_half_precision(images: str, tmp_path: Path, precision: str) -> None:
    whole = Attempt(images, str(tmp_path / "whole"), checkpoint_minutes=10.0, precision=precision)
    assert whole.start() == [0]
    killed = replace(whole, folder=str(tmp_path / "killed"), checkpoint_minutes=0.0)
    for step in (3, 11, 12, 20) if NIGHTLY else (3, 12):
        assert replace(killed, kill_at=step).start() == [-signal.SIGKILL]
    assert killed.start() == [0]
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")


def test_killed_long_after_the_last_checkpoint(images: str, tmp_path: Path) -> None:
    whole = Attempt(images, str(tmp_path / "whole"), checkpoint_minutes=10.0)
    assert whole.start() == [0]
    killed = replace(whole, folder=str(tmp_path / "killed"))
    for step in (7, 23):  # nothing saved yet; eleven updates after the end of an epoch
        assert replace(killed, kill_at=step).start() == [-signal.SIGKILL]
    assert killed.start() == [0]
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")


def test_four_ranks_resume_bit_for_bit(images: str, tmp_path: Path) -> None:
    """With more than two the order of sums depends on how gradients are packed, which changes after a first step."""
    whole = Attempt(images, str(tmp_path / "whole"), world=4, checkpoint_minutes=10.0)
    assert whole.start() == [0] * 4
    killed = replace(whole, folder=str(tmp_path / "killed"), checkpoint_minutes=0.0)
    for step in (1, 5, 12, 19) if NIGHTLY else (1, 12):
        assert replace(killed, kill_at=step).start()[0] == -signal.SIGKILL
    assert killed.start() == [0] * 4
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")
