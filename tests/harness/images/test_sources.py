"""Opening image sets: which layout a split has, what is refused and in which words, and the sets with a name."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.cells import DataSource
from harness.images import idx, sources
from harness.images import make_fashion_mnist_14k as script
from harness.images.layouts import find_split
from harness.images.sources import list_hash, open_splits, open_val
from tests.harness import image_sets
from tests.harness.image_sets import BUILDERS, ImageFiles, images, write_tar

EMBEDDED = DataSource(name="fashion_mnist_14k")
Damage = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Classes cat and dog, 6 training and 3 val images each, in class folders."""
    image_sets.class_folders(tmp_path, "train", images("train"))
    image_sets.class_folders(tmp_path, "val", images("val", per_class=3))
    return tmp_path


# The sets with a name


@pytest.mark.parametrize(("split", "per_class"), [("train", 1200), ("val", 200)])
def test_embedded_set_is_balanced_and_real(split: str, per_class: int) -> None:
    reader = getattr(open_splits(EMBEDDED, num_classes=10), split)
    assert np.bincount(reader.targets).tolist() == [per_class] * 10
    pixels = np.stack([np.asarray(reader.image(i)) for i in range(len(reader.targets))])
    assert pixels.shape == (10 * per_class, 28, 28)
    assert pixels.dtype == np.uint8
    assert len(np.unique(pixels.reshape(len(pixels), -1), axis=0)) > 0.99 * len(pixels)


def idx_bytes(array: np.ndarray) -> bytes:
    return gzip.compress(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


@pytest.fixture
def fashion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twenty and ten images in the files of Debian's package."""
    monkeypatch.setattr(sources, "FASHION_MNIST_IMAGES", {"train": 20, "val": 10})
    for split, count in (("train", 20), ("val", 10)):
        images, labels = idx.idx_files(tmp_path, split)
        images.write_bytes(idx_bytes(np.arange(count * 28 * 28).astype(np.uint8).reshape(count, 28, 28)))
        labels.write_bytes(idx_bytes((np.arange(count) % 10).astype(np.uint8)))
    return tmp_path


def test_fashion_mnist_is_read_as_debian_has_it(fashion: Path) -> None:
    train, val = open_splits(DataSource("fashion_mnist", root=str(fashion)), num_classes=10)
    assert (len(train), len(val)) == (20, 10)
    assert train.targets == [*range(10)] * 2
    assert val.classes == open_val(EMBEDDED, 10).classes
    assert val.classes[9] == "ankle boot"
    assert np.array_equal(np.asarray(train.image(3)), np.arange(3 * 784, 4 * 784).astype(np.uint8).reshape(28, 28))
    assert train.filename(3) == "fashion_mnist/train[3]"
    assert len(train.stamp()) == 16


def test_fashion_mnist_is_checked(fashion: Path) -> None:
    source = DataSource("fashion_mnist", root=str(fashion))
    images, labels = idx.idx_files(fashion, "val")
    whole = images.read_bytes()
    for content, message in (
        (idx_bytes(np.zeros((9, 28, 28), np.uint8)), "t10k-images-idx3-ubyte.gz has 9 images instead of 10"),
        (gzip.compress(b"\0\0\x0d\1" + bytes(8)), "is not an idx file of bytes"),
        (idx_bytes(np.zeros((10, 28, 28), np.uint8))[:-20], "is damaged"),
        (gzip.compress(gzip.decompress(whole)[:-5]), "but its header says"),
    ):
        images.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            open_val(source, 10)
    images.write_bytes(whole)
    labels.write_bytes(idx_bytes(np.zeros(9, np.uint8)))
    with pytest.raises(ValueError, match="has 10 images, but there are 9 labels"):
        open_val(source, 10)
    labels.unlink()
    with pytest.raises(
        ValueError, match=r"t10k-labels.* is missing; install it with: apt-get install dataset-fashion-mnist"
    ):
        open_val(source, 10)


def test_the_whole_of_fashion_mnist() -> None:
    if not idx.DEBIAN_FOLDER.exists():
        pytest.skip("needs Debian's package dataset-fashion-mnist")
    train, val = open_splits(DataSource("fashion_mnist"), num_classes=10)
    assert np.bincount(train.targets).tolist() == [6000] * 10
    assert np.bincount(val.targets).tolist() == [1000] * 10


def test_embedded_set_is_what_the_script_makes_and_it_makes_it_twice_alike(tmp_path: Path) -> None:
    if not idx.DEBIAN_FOLDER.exists():
        pytest.skip("needs Debian's package dataset-fashion-mnist")
    made = tmp_path / "first", tmp_path / "second"
    for destination in made:
        destination.mkdir()
        script.make(idx.DEBIAN_FOLDER, destination)
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


def test_source_without_a_folder_is_a_known_name() -> None:
    with pytest.raises(ValueError, match="unknown image set 'cifar'; allowed: fashion_mnist_14k, fashion_mnist, imag"):
        DataSource("cifar")
    with pytest.raises(ValueError, match="fashion_mnist_14k comes with the project and takes no root, got /here"):
        DataSource("fashion_mnist_14k", root="/here")


def test_source_is_known_by_its_name_and_not_by_where_it_lies() -> None:
    assert DataSource("photos", root="/here") == DataSource("photos", root="/there") != DataSource.folder("/here")


# ImageNet


@pytest.fixture
def small_imagenet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two classes, 12 training and 6 val images, stand for its numbers."""
    monkeypatch.setattr(sources, "IMAGENET_CLASSES", 2)
    monkeypatch.setattr(sources, "IMAGENET_IMAGES", {"train": 12, "val": 6})


def test_imagenet_needs_a_root() -> None:
    with pytest.raises(ValueError, match=r"imagenet does not come with the project; .*--data /path/to/imagenet"):
        open_splits(DataSource("imagenet"), 1000)


def test_imagenet_is_checked_by_its_counts(folder: Path) -> None:
    source = DataSource("imagenet", root=str(folder))
    with pytest.raises(ValueError, match="is not ImageNet-1K") as error:
        open_splits(source, 1000)
    for part in (
        "train has 2 classes instead of 1,000",
        "train has 12 images instead of 1,281,167",
        "val has 6 images instead of",
    ):
        assert part in str(error.value)
    with pytest.raises(
        ValueError, match="is not ImageNet-1K: val has 2 classes instead of 1,000; val has 6 images"
    ) as error:
        open_val(source, 1000)
    assert "train" not in str(error.value)


@pytest.mark.usefixtures("small_imagenet")
def test_imagenet_of_the_right_counts_opens(folder: Path) -> None:
    source = DataSource("imagenet", root=str(folder))
    assert len(open_splits(source, 2).train) == 12
    assert len(open_val(source, 2)) == 6
    with pytest.raises(ValueError, match="imagenet has 2 classes, the model 10"):
        open_val(source, 10)


@pytest.mark.usefixtures("small_imagenet")
def test_imagenet_numbers_its_classes_by_wnid(tmp_path: Path) -> None:
    image_sets.zip_and_map(tmp_path, "val", images("val", 3, ("n00000001", "n00000002")))
    source = DataSource("imagenet", root=str(tmp_path))
    assert len(open_val(source, 2)) == 6
    index = tmp_path / "val_map.txt"
    index.write_text(index.read_text().translate({ord("\t"): "\t1"}).replace("\t11", "\t0").replace("\t10", "\t1"))
    with pytest.raises(ValueError, match="the classes of val are not numbered in the order of their wnids"):
        open_val(source, 2)


# Layouts


@pytest.mark.parametrize("layout", BUILDERS)
def test_every_layout_opens_and_val_does_without_train(tmp_path: Path, layout: str) -> None:
    BUILDERS[layout](tmp_path, "val", images("val", per_class=3))
    source = DataSource.folder(tmp_path)
    assert open_val(source, num_classes=2).targets == [0] * 3 + [1] * 3
    with pytest.raises(ValueError, match="has no folder 'train', nor this split in another layout"):
        open_splits(source, num_classes=2)
    BUILDERS[layout](tmp_path, "train", images("train"))
    splits = open_splits(source, num_classes=2)
    assert (len(splits.train), len(splits.val)) == (12, 6)
    open_splits(source, num_classes=2)


@pytest.mark.parametrize("layout", ["tar of folders", "tar of tars", "class tars", "zip", "parquet"])
def test_val_may_be_class_folders_whatever_train_is(tmp_path: Path, layout: str) -> None:
    BUILDERS[layout](tmp_path, "train", images("train"))
    image_sets.class_folders(tmp_path, "val", images("val"))
    assert open_splits(DataSource.folder(tmp_path), num_classes=2).val.classes == ("cat", "dog")


@pytest.mark.parametrize("layout", ["class folders", "class tars", "tar of folders", "zip", "shards", "parquet"])
@pytest.mark.parametrize("name", ["valid", "validation"])
def test_val_may_be_called_valid_or_validation(tmp_path: Path, layout: str, name: str) -> None:
    BUILDERS[layout](tmp_path, name, images("val"))
    assert len(open_val(DataSource.folder(tmp_path), num_classes=2)) == 12


@pytest.mark.parametrize("layout", ["class folders", "class tars", "zip", "shards", "parquet"])
def test_a_val_split_under_two_names_is_refused(tmp_path: Path, layout: str) -> None:
    for name in ("val", "valid"):
        BUILDERS[layout](tmp_path, name, images("val"))
    with pytest.raises(ValueError, match=r"has the val split as .* and as .*; keep one of them") as error:
        find_split(tmp_path, "val")
    assert "\n" not in str(error.value)


def test_what_the_usual_script_leaves_in_val_is_no_class(folder: Path) -> None:
    write_tar(folder / "val/ILSVRC2012_img_val.tar", {"ILSVRC2012_val_00000001.JPEG": b"x"})
    assert len(open_val(DataSource.folder(folder), 2)) == 6


def test_a_split_that_is_there_twice_is_refused(folder: Path) -> None:
    image_sets.tar_of_tars(folder, "train", images("train"))
    with pytest.raises(
        ValueError, match=r"has the train split as class folders \(train\) and as one tar \(ILSVRC2012_im"
    ):
        open_splits(DataSource.folder(folder), 2)
    assert len(open_val(DataSource.folder(folder), 2)) == 6
    image_sets.class_tars(folder, "val", images("val"))
    with pytest.raises(ValueError, match=r"as class folders \(val\) and as one tar per class \(val\); keep one"):
        open_val(DataSource.folder(folder), 2)


def empty(root: Path) -> None:
    image_sets.remove(root)
    root.mkdir()


def flatten(root: Path) -> None:
    for i, path in enumerate(list((root / "val").glob("*/*.jpg"))):
        path.rename(root / "val" / f"{i}.jpg")
    for name in ("cat", "dog"):
        (root / "val" / name).rmdir()


def one_more_level(root: Path) -> None:
    (root / "val/images").mkdir()
    for name in ("cat", "dog"):
        (root / "val" / name).rename(root / "val/images" / name)


def without_images(root: Path) -> None:
    for name in ("cat", "dog"):
        image_sets.remove(root / "val" / name)


def val_as(layout: str, files: ImageFiles) -> Damage:
    def change(root: Path) -> None:
        image_sets.remove(root / "val")
        BUILDERS[layout](root, "val", files)

    return change


def flat_tar(root: Path) -> None:
    image_sets.remove(root / "val")
    write_tar(root / "ILSVRC2012_img_val.tar", {f"ILSVRC2012_val_{i:08}.JPEG": b"x" for i in range(3)})


def swapped_map(root: Path) -> None:
    for split in ("train", "val"):
        image_sets.remove(root / split)
        image_sets.zip_and_map(root, split, images(split))
    (root / "val_map.txt").write_text(
        "".join(f"{c}/{i}.jpg\t{n}\n" for n, c in enumerate(("dog", "cat")) for i in (0, 1))
    )


def missing_shard(root: Path) -> None:
    val_as("shards", images("val"))(root)
    (root / "set-val-000000.tar").unlink()


def missing_parquet(root: Path) -> None:
    val_as("parquet", images("val"))(root)
    (root / "data/validation-00001-of-00002.parquet").unlink()


def two_sets_of_shards(root: Path) -> None:
    val_as("shards", images("val"))(root)
    (root / "set-val-000001.tar").rename(root / "other-val-000001.tar")


SORT = "sort the images into one folder per class"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(image_sets.remove, "does not exist", id="no folder"),
        pytest.param(empty, "is empty", id="empty folder"),
        pytest.param(
            lambda root: image_sets.remove(root / "val"), "has no folder 'val', .*it has train; expected", id="no val"
        ),
        pytest.param(lambda root: image_sets.remove(root / "train"), "has no folder 'train'", id="no train"),
        pytest.param(without_images, f"no image .*{SORT}", id="empty val"),
        pytest.param(flatten, f"is not in a class folder .*{SORT}", id="flat val"),
        pytest.param(flat_tar, f"is not in a class folder .*{SORT}", id="flat val tar"),
        pytest.param(
            lambda root: (root / "val/stray.jpg").touch(), "stray.jpg is not in a class folder", id="one stray image"
        ),
        pytest.param(one_more_level, "is not in a class folder", id="classes one level deeper"),
        pytest.param(lambda root: image_sets.remove(root / "val/dog"), "only the class 'cat'", id="one class"),
        pytest.param(
            val_as("class tars", images("val", classes=("cat",))),
            f"only the class 'cat'.*{SORT}",
            id="one class in tars",
        ),
        pytest.param(
            lambda root: (root / "val/dog").rename(root / "val/wolf"),
            "only in train: dog; only in val: wolf",
            id="other classes",
        ),
        pytest.param(
            val_as("tar of tars", images("val", classes=("cat", "dog", "eel"))),
            "only in train: none; only in val: eel",
            id="more classes in a tar",
        ),
        pytest.param(
            val_as("shards", images("val")), "only in train: cat, dog; only in val: 0, 1", id="shards for val"
        ),
        pytest.param(swapped_map, "number classes the same way; class 0 is cat in train, dog in val", id="other order"),
        pytest.param(missing_shard, "file number 0, before set-val-000001.tar, is missing", id="missing shard"),
        pytest.param(missing_parquet, "has 1 of the 2 files of validation-00000", id="missing parquet"),
        pytest.param(two_sets_of_shards, "more than one set: other-val-, set-val-; keep one", id="two sets"),
    ],
)
def test_misread_layouts_are_refused_in_one_line(folder: Path, damage: Damage, message: str) -> None:
    damage(folder)
    with pytest.raises(ValueError, match=message) as error:
        open_splits(DataSource.folder(folder), num_classes=2)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_no_layout_names_every_accepted_one(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match="it has images; expected") as error:
        open_val(DataSource.folder(tmp_path), 2)
    for accepted in (
        "val/<class>/*.jpg",
        "train/<class>.tar",
        "ILSVRC2012_img_train.tar",
        "train_map.txt",
        "-000000.tar",
        ".parquet",
    ):
        assert accepted in str(error.value)


def test_as_many_classes_as_the_model(folder: Path) -> None:
    with pytest.raises(ValueError, match="2 classes, the model 10: --set num_classes=2"):
        open_splits(DataSource.folder(folder), num_classes=10)
    with pytest.raises(ValueError, match="10 classes, the model 1000"):
        open_val(EMBEDDED, num_classes=1000)


def test_list_hash_knows_images_and_not_where_they_lie(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    def hash_of(root: Path) -> str:
        return list_hash(open_splits(DataSource.folder(root), 2).val)

    here = hash_of(folder)
    moved = folder.rename(tmp_path_factory.mktemp("elsewhere") / "moved")
    assert hash_of(moved) == here
    (moved / "val/dog/2.jpg").rename(moved / "val/dog/9.jpg")
    assert hash_of(moved) != here


@pytest.mark.parametrize("layout", ["tar of folders", "tar of tars", "class tars", "zip"])
def test_list_hash_does_not_depend_on_the_layout(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, layout: str
) -> None:
    root = tmp_path_factory.mktemp("archive")
    BUILDERS[layout](root, "val", images("val", per_class=3))
    hashes = {list_hash(open_val(DataSource.folder(where), 2)) for where in (folder, root)}
    assert len(hashes) == 1
