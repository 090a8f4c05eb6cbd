"""Batches that depend on seed, epoch and index alone, whatever the workers, processes and micro-batches."""

import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.mixup import Mixup
from torch.utils.data import get_worker_info

from harness.cells import DataSource
from harness.cells.preprocessing import Augmentation
from harness.images.batches import Batch, Images, Key, TrainOrder, batches, eval_order, shares
from harness.images.sources import open_splits
from harness.images.transforms import TensorTransform, Transform, train_transform
from harness.process.determinism import derived_seed

EMBEDDED = DataSource(name="fashion_mnist_14k")
Paint = Callable[[Path], None]


def jpeg(path: Path, colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (40, 32)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Classes cat and dog, 6 training and 3 val images each."""
    for split, count in (("train", 6), ("val", 3)):
        for number, name in enumerate(("cat", "dog")):
            for i in range(count):
                jpeg(tmp_path / split / name / f"{i}.jpg", colour=(100 * number, 10 * i, 50))
    return tmp_path


def transform(augmentation: Augmentation = "small") -> Transform:
    made = train_transform(
        (32, 32),
        3,
        augmentation=augmentation,
        rand_augment="rand-m9-mstd0.5-inc1",
        color_jitter=0.0,
        interpolation="bicubic",
    )
    assert not isinstance(made, TensorTransform)
    return made


def read(images: Images, order: object, workers: int) -> list[Batch]:
    return list(batches(images, order, workers=workers))  # type: ignore[arg-type]


def test_importing_the_harness_imports_no_torch() -> None:
    code = "import sys, harness, harness.images; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3]).returncode == 0


# What is refused


def test_more_images_than_a_batch() -> None:
    with pytest.raises(ValueError, match="a batch of 64 needs as many training images; there are 60"):
        TrainOrder(60, batch=64, epochs=1, seed=0)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(truncate, id="truncated"),
        pytest.param(lambda path: path.write_bytes(b"<html>not found</html>"), id="no image"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_named_and_no_neighbour_served(folder: Path, damage: Paint, workers: int) -> None:
    broken = folder / "val/dog/1.jpg"
    damage(broken)
    images = Images(open_splits(DataSource.folder(folder), 2).val, transform(), seed=0)
    with pytest.raises(ValueError, match="unreadable image") as error:
        read(images, eval_order(len(images), 2), workers)
    assert str(broken) in str(error.value)
    assert "\n" not in str(error.value)


# Batches


@pytest.mark.parametrize("augmentation", ["small", "imagenet"])
def test_workers_change_nothing(folder: Path, augmentation: Augmentation) -> None:
    images = Images(open_splits(DataSource.folder(folder), 2).train, transform(augmentation), seed=5)
    order = TrainOrder(len(images), batch=5, epochs=2, seed=5)
    alone = read(images, order, workers=0)
    for i, batch in enumerate(read(images, order, workers=2)):
        for ours, theirs in zip(batch, alone[i], strict=True):
            assert torch.equal(ours, theirs)
    assert [batch.images.dtype for batch in alone] == [torch.uint8] * 4


def test_an_image_depends_on_seed_epoch_and_index_alone() -> None:
    reader = open_splits(EMBEDDED, 10).val
    images = Images(reader, transform(), seed=0)

    def pixels(images: Images, epoch: int, index: int) -> torch.Tensor:
        random.random(), np.random.rand(), torch.rand(1)  # where the generators stand must not matter
        sample = images[Key(epoch, index)]
        assert not isinstance(sample, str)
        return sample.image  # type: ignore[union-attr]

    first = pixels(images, 3, 8)
    pixels(images, 1, 4)
    assert torch.equal(pixels(images, 3, 8), first)
    assert not torch.equal(pixels(images, 4, 8), first)
    assert not torch.equal(pixels(Images(reader, transform(), seed=1), 3, 8), first)


def test_train_order_shuffles_each_epoch_and_repeats_nothing() -> None:
    order = TrainOrder(images=10, batch=3, epochs=2, seed=0)
    stream = list(order)
    assert order.batches_per_epoch == 3
    assert [len(batch) for batch in stream] == [3] * 6
    epochs = [[key.index for batch in stream for key in batch if key.epoch == epoch] for epoch in (0, 1)]
    assert all(len(set(epoch)) == 9 for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert list(order) == stream
    assert list(TrainOrder(images=10, batch=3, epochs=2, seed=1)) != stream


def test_eval_order_has_every_image_once() -> None:
    order = eval_order(7, 3)
    assert [[key.index for key in batch] for batch in order] == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.mark.parametrize("step", range(7))
@pytest.mark.parametrize("repeats", [1, 3])
def test_an_order_resumes_at_any_batch(step: int, repeats: int) -> None:
    order = TrainOrder(images=10, batch=3, epochs=2, seed=0, repeats=repeats)
    assert list(order.batches_from(step)) == list(order)[step:]


def test_repeats_show_fewer_images_more_often() -> None:
    order = TrainOrder(images=11, batch=4, epochs=2, seed=0, repeats=3)
    once = TrainOrder(images=11, batch=4, epochs=2, seed=0)
    assert order.batches_per_epoch == once.batches_per_epoch == 2
    epoch = [key for batch in list(order)[:2] for key in batch]
    assert [key.repeat for key in epoch] == [0, 1, 2, 0, 1, 2, 0, 1]
    images = [key.index for key in epoch]
    assert images == [image for image in [key.index for key in next(iter(once))][:3] for _ in range(3)][:8]
    with pytest.raises(ValueError, match="repeats is 0; allowed are numbers from 1 up"):
        TrainOrder(images=11, batch=4, epochs=2, seed=0, repeats=0)


def test_copies_of_an_image_are_augmented_each_on_its_own_and_the_first_as_ever() -> None:
    images = Images(open_splits(EMBEDDED, 10).val, transform(), seed=0)
    copies = [images[Key(2, 7, repeat)].image for repeat in range(3)]  # type: ignore[union-attr]
    assert torch.equal(copies[0], images[Key(2, 7)].image)  # type: ignore[union-attr]
    assert not torch.equal(copies[0], copies[1])
    assert not torch.equal(copies[1], copies[2])
    assert Key(2, 7).seed(5) == derived_seed(5, 2, 7)
    assert len({Key(0, index, repeat).seed(0) for index in range(100) for repeat in range(4)}) == 400


@pytest.mark.parametrize(("world", "accumulation"), [(1, 1), (2, 1), (1, 4), (2, 2), (3, 2), (4, 3)])
def test_shares_are_a_partition_that_keeps_mirrored_keys_together(world: int, accumulation: int) -> None:
    batch = [Key(0, index) for index in range(24)]
    split = shares(batch, world, accumulation)
    assert [len(rank) for rank in split] == [accumulation] * world
    micro = [keys for rank in split for keys in rank]
    assert {len(keys) for keys in micro} == {24 // (world * accumulation)}
    assert sorted(key.index for keys in micro for key in keys) == list(range(24))
    for keys in micro:
        assert [key.index + partner.index for key, partner in zip(keys, reversed(keys), strict=True)] == [23] * len(
            keys
        )
    assert shares(batch, 1, 1) == [[batch]]


def test_odd_micro_batches_are_runs_of_keys() -> None:
    batch = [Key(0, index) for index in range(6)]
    assert shares(batch, 2, 1) == [[batch[:3]], [batch[3:]]]
    with pytest.raises(AssertionError):
        shares(batch, 4, 1)


def test_mixup_of_shares_is_mixup_of_the_batch() -> None:
    images, targets = torch.rand(16, 3, 8, 8), torch.arange(16) % 4

    def mixed(keys: list[Key]) -> dict[int, torch.Tensor]:
        np.random.seed(3)  # the same share of each image in every micro-batch
        chosen = [key.index for key in keys]
        out, _ = Mixup(mixup_alpha=0.8, num_classes=4)(images[chosen], targets[chosen])
        return dict(zip(chosen, out, strict=True))

    batch = [Key(0, index) for index in range(16)]
    whole = mixed(batch)
    for world, accumulation in ((2, 1), (2, 2), (4, 2)):
        for rank in shares(batch, world, accumulation):
            for keys in rank:
                for index, image in mixed(keys).items():
                    assert torch.allclose(image, whole[index], atol=1e-6)


class Signals:
    """A transform that reports what its worker does on signals."""

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)

    def __call__(self, image: Image.Image) -> torch.Tensor:
        assert get_worker_info() is not None
        handled = [signal.getsignal(number) for number in self.numbers]
        codes: dict[Any, int] = {signal.SIG_DFL: 0, signal.SIG_IGN: 1}
        return torch.tensor([codes.get(handler, 2) for handler in handled])


def test_workers_do_not_inherit_the_trainers_signal_handlers(folder: Path) -> None:
    images = Images(open_splits(DataSource.folder(folder), 2).val, Signals(), seed=0)
    before = {number: signal.signal(number, lambda *arguments: None) for number in Signals.numbers}
    try:
        batch, *_ = read(images, eval_order(6, 6), workers=1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert batch.images[0].tolist() == [0, 1, 1, 1], "0 is the default, 1 ignored"


# The training input "tensor"


@pytest.mark.parametrize("workers", [0, 2])
def test_tensor_input_reads_encoded_images_and_names_the_unreadable(folder: Path, workers: int) -> None:
    fast = train_transform(
        (32, 32),
        3,
        augmentation="imagenet",
        rand_augment="rand-m9-mstd0.5-inc1",
        color_jitter=0.0,
        interpolation="bicubic",
        input="tensor",
    )
    images = Images(open_splits(DataSource.folder(folder), 2).train, fast, seed=5)
    order = TrainOrder(len(images), batch=5, epochs=2, seed=5)
    stream = read(images, order, workers)
    assert [batch.images.shape for batch in stream] == [(5, 3, 32, 32)] * 4
    for batch, again in zip(stream, read(images, order, workers=0), strict=True):
        assert torch.equal(batch.images, again.images)
    broken = folder / "train/dog/1.jpg"
    truncate(broken)
    with pytest.raises(ValueError, match=f"unreadable image {broken}: ") as error:
        read(images, order, workers)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"fashion_mnist_14k/val is an array and not image files: .* 'pillow'"):
        Images(open_splits(EMBEDDED, 10).val, fast, seed=0)
