"""Opening image sets, what is refused in them, and batches that depend on seed, epoch and index alone."""

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.augment import Transform, train_transform
from harness.data import Batch, Images, Key, TrainOrder, batches, eval_order, seed_of
from harness.datasets import make_fashion_mnist_14k as script
from harness.sources import DataSource, list_hash, open_splits

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


def transform(augmentation: str = "small") -> Transform:
    return train_transform(
        (32, 32),
        3,
        augmentation=augmentation,
        rand_augment="rand-m9-mstd0.5-inc1",
        color_jitter=0.0,
        interpolation="bicubic",
    )


def read(images: Images, order: object, workers: int) -> list[Batch]:
    return list(batches(images, order, workers=workers))  # type: ignore[arg-type]


# The embedded set


@pytest.mark.parametrize(("split", "per_class"), [("train", 1200), ("val", 200)])
def test_embedded_set_is_balanced_and_real(split: str, per_class: int) -> None:
    reader = getattr(open_splits(EMBEDDED, num_classes=10), split)
    assert np.bincount(reader.targets).tolist() == [per_class] * 10
    pixels = np.stack([np.asarray(reader.image(i)) for i in range(len(reader.targets))])
    assert pixels.shape == (10 * per_class, 28, 28)
    assert pixels.dtype == np.uint8
    assert len(np.unique(pixels.reshape(len(pixels), -1), axis=0)) > 0.99 * len(pixels)


def test_embedded_set_is_what_the_script_makes_and_it_makes_it_twice_alike(tmp_path: Path) -> None:
    if not script.DEBIAN_FOLDER.exists():
        pytest.skip("needs Debian's package dataset-fashion-mnist")
    made = tmp_path / "first", tmp_path / "second"
    for destination in made:
        destination.mkdir()
        script.make(script.DEBIAN_FOLDER, destination)
    for name in ("train.npz", "val.npz"):
        first, second = (destination / name for destination in made)
        assert first.read_bytes() == second.read_bytes()
        with np.load(first) as ours, np.load(script.FOLDER / name) as committed:  # arrays: zlib differs between Pythons
            for array in ("images", "labels"):
                assert np.array_equal(ours[array], committed[array])


def test_embedded_set_keeps_its_licence_and_origin() -> None:
    assert "Zalando" in (script.FOLDER / "LICENSE").read_text()
    assert "dataset-fashion-mnist" in (script.FOLDER / "README.md").read_text()


def test_first_of_each_class_keeps_file_order() -> None:
    assert script.first_of_each_class(np.array([1, 0, 1, 1, 0, 0]), 2).tolist() == [0, 1, 2, 4]


def test_importing_the_harness_imports_no_torch() -> None:
    code = "import sys, harness, harness.datasets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


# What is refused


def test_source_without_a_folder_is_a_known_name() -> None:
    with pytest.raises(ValueError, match="unknown embedded image set 'cifar'; there is: fashion_mnist_14k"):
        DataSource("cifar")


def test_source_is_known_by_its_name_and_not_by_where_it_lies() -> None:
    assert DataSource("photos", root="/here") == DataSource("photos", root="/there") != DataSource.folder("/here")


def test_folder_opens(folder: Path) -> None:
    splits = open_splits(DataSource.folder(folder), num_classes=2)
    assert splits.train.targets == [0] * 6 + [1] * 6
    assert splits.val.targets == [0] * 3 + [1] * 3
    assert splits.train.classes == splits.val.classes == ("cat", "dog")
    assert Path(splits.val.filename(3)) == folder / "val/dog/0.jpg"


def remove(path: Path) -> None:
    for child in path.iterdir() if path.is_dir() else []:
        remove(child)
    path.rmdir() if path.is_dir() else path.unlink()


def empty_root(root: Path) -> None:
    for child in list(root.iterdir()):
        remove(child)


def flatten_val(root: Path) -> None:
    for i, path in enumerate(list((root / "val").glob("*/*.jpg"))):
        path.rename(root / "val" / f"{i}.jpg")
    for name in ("cat", "dog"):
        (root / "val" / name).rmdir()


def one_more_level(root: Path) -> None:
    (root / "val/images").mkdir()
    for name in ("cat", "dog"):
        (root / "val" / name).rename(root / "val/images" / name)


def one_class(root: Path) -> None:
    remove(root / "val/dog")


def empty_val(root: Path) -> None:
    for name in ("cat", "dog"):
        remove(root / "val" / name)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(remove, "does not exist", id="no folder"),
        pytest.param(empty_root, "is empty", id="empty folder"),
        pytest.param(lambda root: remove(root / "val"), "has no folder 'val'", id="no val"),
        pytest.param(lambda root: remove(root / "train"), "has no folder 'train'", id="no train"),
        pytest.param(empty_val, "no image", id="empty val"),
        pytest.param(flatten_val, "does not lie in a class folder", id="flat val"),
        pytest.param(lambda root: jpeg(root / "val/stray.jpg"), "stray.jpg does not lie", id="one stray image"),
        pytest.param(one_more_level, "does not lie in a class folder", id="classes one level deeper"),
        pytest.param(one_class, "one class 'cat'", id="one class"),
        pytest.param(
            lambda root: (root / "val/dog").rename(root / "val/wolf"),
            "only in train: dog; only in val: wolf",
            id="other classes",
        ),
        pytest.param(lambda root: jpeg(root / "train/eel/0.jpg"), "only in train: eel; only in val: none", id="more"),
    ],
)
def test_misread_layouts_are_refused_in_one_line(folder: Path, damage: Paint, message: str) -> None:
    damage(folder)
    with pytest.raises(ValueError, match=message) as error:
        DataSource.folder(folder).check(num_classes=2)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_as_many_classes_as_the_model(folder: Path) -> None:
    with pytest.raises(ValueError, match="2 classes, the model 10: --set num_classes=2"):
        open_splits(DataSource.folder(folder), num_classes=10)
    with pytest.raises(ValueError, match="10 classes, the model 1000"):
        open_splits(EMBEDDED, num_classes=1000)


def test_more_images_than_a_batch() -> None:
    with pytest.raises(ValueError, match="a batch of 64 needs as many training images, there are 60"):
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
def test_workers_change_nothing(folder: Path, augmentation: str) -> None:
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


def test_seeds_of_neighbours_differ() -> None:
    keys = [(seed, epoch, index) for seed in range(4) for epoch in range(4) for index in range(100)]
    assert len({seed_of(*key) for key in keys}) == len(keys)
    assert seed_of(1, 23) != seed_of(12, 3)


def test_list_hash_knows_images_and_not_where_they_lie(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    def hash_of(root: Path) -> str:
        return list_hash(open_splits(DataSource.folder(root), 2).val)

    here = hash_of(folder)
    moved = folder.rename(tmp_path_factory.mktemp("elsewhere") / "moved")
    assert hash_of(moved) == here
    (moved / "val/dog/2.jpg").rename(moved / "val/dog/9.jpg")
    assert hash_of(moved) != here
