"""The check of a whole image set: what it counts, and that whatever is wrong is listed by name."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.cells import DataSource
from harness.images import check, sources
from harness.images.check import check_images, report_lines
from tests.harness import image_sets
from tests.harness.image_sets import BUILDERS, images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    image_sets.class_folders(tmp_path, "train", images("train"))
    image_sets.class_folders(tmp_path, "val", images("val", per_class=3))
    return tmp_path


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("layout", BUILDERS)
def test_a_sound_set_has_no_problem(tmp_path: Path, layout: str, workers: int) -> None:
    BUILDERS[layout](tmp_path, "train", images("train", per_class=40))
    BUILDERS[layout](tmp_path, "val", images("val", per_class=3))
    calls: list[tuple[str, int, int]] = []
    report = check_images(tmp_path, workers=workers, num_classes=2, progress=lambda *call: calls.append(call))
    assert report.problems == []
    assert report.status == 0
    train, val = report.splits
    assert (train.split, train.images, len(train.classes), train.natural_order) == ("train", 80, 2, True)
    assert (val.split, val.images, val.smallest[1], val.largest[1]) == ("val", 6, 3, 3)
    assert calls == [("train", 64, 80), ("train", 80, 80), ("val", 6, 6)]
    text = "\n".join(report_lines(report))
    for part in ("train: ", "80 images, 0 of them unreadable", "2 classes in natural order", "no problem"):
        assert part in text
    assert (
        "ImageNet-1K by its counts: no; train has 2 classes instead of 1,000; train has 80 images instead of 1,28"
        in text
    )


def test_layouts_counts_and_other_files_are_shown(folder: Path) -> None:
    (folder / "train/cat/5.jpg").unlink()
    (folder / "val/cat/picture.xml").touch()
    text = "\n".join(report_lines(check_images(folder, workers=0, num_classes=None)))
    for part in (
        f"train: class folders, {folder / 'train'}",
        "11 images, 0 of them unreadable",
        "classes in natural order: cat ... dog",
        "smallest class cat (5), largest dog (6)",
        "not read, as the suffix is not that of an image, or the file is not in the map: 1 x .xml",
        "class order: the same in both splits",
        "val images that are also in train, byte for byte: 0",
    ):
        assert part in text


@pytest.mark.parametrize("layout", BUILDERS)
@pytest.mark.parametrize("workers", [0, 2])
def test_every_unreadable_image_is_named(tmp_path: Path, layout: str, workers: int) -> None:
    files = images("train")
    files["cat/1.jpg"] = files["cat/1.jpg"][:-200]
    files["dog/5.jpg"] = b"<html>"
    BUILDERS[layout](tmp_path, "train", files)
    BUILDERS[layout](tmp_path, "val", images("val"))
    report = check_images(tmp_path, workers=workers, num_classes=None)
    assert report.status == 1
    assert len(report.problems) == 2
    assert report.splits[0].unreadable == report.problems
    assert "truncated" in report.problems[0]
    assert report.problems[1].endswith("not an image that Pillow can read")
    text = report_lines(report)
    assert "  12 images, 2 of them unreadable" in text
    assert "2 problems" in text
    assert all(f"  {problem}" in text for problem in report.problems)


def test_pipes_among_the_files_are_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "train/cat/pipe.jpg")
    os.mkfifo(folder / "train/cat/pipe")
    report = check_images(folder, workers=0, num_classes=None)
    assert report.problems == [f"unreadable image {folder}/train/cat/pipe.jpg: not an image that Pillow can read"]


def test_a_split_that_cannot_be_opened_is_a_problem_and_the_other_is_looked_at(folder: Path) -> None:
    image_sets.remove(folder / "val")
    report = check_images(folder, workers=0, num_classes=3)
    assert [split.split for split in report.splits] == ["train"]
    assert ["no folder 'val'" in problem for problem in report.problems] == [False, True]
    assert report.problems[0] == "train has 2 classes, the model 3"
    assert report.imagenet == "only train could be opened"
    assert report_lines(report)[-3] == "2 problems"
    assert check_images(folder / "nowhere", workers=0, num_classes=None).imagenet == "only no split could be opened"


def test_classes_that_differ_and_other_orders_are_problems(tmp_path: Path) -> None:
    image_sets.zip_and_map(tmp_path, "train", images("train"))
    image_sets.zip_and_map(tmp_path, "val", images("val"))
    rows = [f"{label}/{i}.jpg\t{target}\n" for target, label in enumerate(("dog", "cat")) for i in range(3)]
    (tmp_path / "val_map.txt").write_text("".join(rows))
    report = check_images(tmp_path, workers=0, num_classes=None)
    assert report.problems == ["train and val must number classes the same way; class 0 is cat in train, dog in val"]
    text = report_lines(report)
    assert "class order: NOT the same in both splits" in text
    assert "  2 classes NOT in natural order: dog ... cat" in text
    assert any(line.endswith("or the file is not in the map: 6 x .jpg") for line in text)


def test_val_images_that_are_in_train_are_shown(folder: Path) -> None:
    (folder / "val/dog/2.jpg").write_bytes((folder / "train/cat/4.jpg").read_bytes())
    report = check_images(folder, workers=0, num_classes=None)
    assert report.duplicates == [(f"{folder}/val/dog/2.jpg", f"{folder}/train/cat/4.jpg")]
    assert f"  {folder}/val/dog/2.jpg = {folder}/train/cat/4.jpg" in report_lines(report)
    assert report.status == 0


def test_a_class_without_images_is_a_problem(tmp_path: Path) -> None:
    """Only a data set that names its classes apart from the images can have one."""
    pytest.importorskip("pyarrow", reason="needs pyarrow: pip install -e '.[hf]'")
    for split in ("train", "val"):
        image_sets.parquet(tmp_path, split, images(split), labels=["ant", "cat", "dog"])
    report = check_images(tmp_path, workers=0, num_classes=3)
    assert report.problems == ["train: the class ant has no image", "val: the class ant has no image"]


def test_imagenet_is_known_by_its_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "IMAGENET_CLASSES", 2)
    monkeypatch.setattr(sources, "IMAGENET_IMAGES", {"train": 12, "val": 6})
    assert "ImageNet-1K by its counts: yes" in report_lines(check_images(folder, workers=0, num_classes=None))
    (folder / "train/cat/0.jpg").unlink()
    text = report_lines(check_images(folder, workers=0, num_classes=None))
    assert "ImageNet-1K by its counts: no; train has 11 images instead of 12" in text
    assert text[-1] == "no problem"


def test_images_that_a_model_sees_otherwise_than_people_are_counted(folder: Path) -> None:
    """None of these is a reason not to train: timm and torchvision read them in the same way."""
    noise = Image.effect_noise((24, 20), 50)
    frames = [noise, noise.transpose(Image.Transpose.ROTATE_180)]
    frames[0].save(folder / "train/cat/animated.gif", save_all=True, append_images=frames[1:])
    clear = Image.merge("LA", (noise, noise))
    clear.save(folder / "train/cat/clear.png")
    Image.merge("LA", (noise, noise.point(lambda _: 255))).save(folder / "train/cat/opaque.png")
    noise.convert("CMYK").save(folder / "train/cat/print.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    noise.save(folder / "train/cat/turned.jpg", exif=exif)
    (folder / "train/cat/really_a.jpg").write_bytes((folder / "train/cat/opaque.png").read_bytes())
    report = check_images(folder, workers=0, num_classes=None)
    assert (report.problems, report.status) == ([], 0)
    text = "\n".join(report_lines(report))
    for part in ("animated or of several pages: only the first is read; such as {}/animated.gif",
                 "transparent in parts: read without transparency, so that hidden colours show; such as {}/clear.png",
                 "CMYK, made for print: converted to RGB without its colour profile; such as {}/print.jpg",
                 "turned by their EXIF orientation: read as they are stored; such as {}/turned.jpg"):  # fmt: skip
        assert f"  1 image {part.format(folder / 'train/cat')}" in text
    assert report.splits[1].remarks == []


@pytest.mark.parametrize("kind", ["I;16", "I", "F"])
def test_images_that_pillow_would_make_white_are_problems(folder: Path, kind: str) -> None:
    pixels = np.linspace(0, 60_000, 480).reshape(20, 24)
    deep = pixels.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[kind])
    Image.fromarray(deep).save(folder / "train/dog/deep.tif")
    (problem,) = check_images(folder, workers=0, num_classes=None).problems
    assert "train/dog/deep.tif: its values go from 0 to 60000" in problem
    assert problem.endswith("scale them to 8 bits")
    if kind != "F":  # what fits into 8 bits is kept as it is
        Image.fromarray((pixels / 60_000 * 255).astype(deep.dtype)).save(folder / "train/dog/deep.tif")
        assert check_images(folder, workers=0, num_classes=None).problems == []


def test_images_that_are_not_read_and_leftovers_are_told_apart(folder: Path) -> None:
    (folder / "train/cat/9.HEIC").write_bytes(b"x")
    (folder / "train/cat/nameless").write_bytes(image_sets.jpeg_bytes(9))
    (folder / "train/cat/._0.jpg").write_bytes(b"\0\5\x16\7")
    (folder / "train/.ipynb_checkpoints").mkdir()
    (folder / "train/notes.txt").touch()
    report = check_images(folder, workers=0, num_classes=None)
    assert [problem.partition(" not read")[0] for problem in report.problems] == ["train: 2 images"]
    assert "1 x .HEIC, 1 x no suffix; such as" in report.problems[0]
    assert report.splits[0].other_files == "1 x .txt"
    assert report.splits[0].remarks[0].endswith(": 1 x ._*, 1 x .ipynb_checkpoints")
    assert report.splits[0].images == 12


def test_names_that_are_not_utf8_are_said(folder: Path) -> None:
    try:
        (folder / "val/cat/0.jpg").rename(os.fsdecode(os.fsencode(folder) + b"/val/cat/fa\xdfade.jpg"))
    except OSError:
        pytest.skip("needs a file system that takes any bytes as a name")
    report = check_images(folder, workers=0, num_classes=None)
    assert report.splits[1].remarks == [
        f"1 image with a name that is not UTF-8; such as {folder}/val/cat/fa\\xdfade.jpg"
    ]
    assert report.status == 0


def test_ilsvrcs_numbers_are_said_and_are_a_problem_of_imagenet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two classes, 12 training and 6 val images, stand for its numbers."""
    for module in (sources, check):
        monkeypatch.setattr(module, "IMAGENET_IMAGES", {"train": 12, "val": 6})
    monkeypatch.setattr(sources, "IMAGENET_CLASSES", 2)
    for split, per_class in (("train", 6), ("val", 3)):
        image_sets.class_folders(tmp_path, split, images(split, per_class, classes=("1", "2")))
    report = check_images(tmp_path, workers=0, num_classes=None)
    assert [problem.partition(":")[0] for problem in report.problems] == [
        f"{split} has classes called 1 to 2" for split in ("train", "val")
    ]
    assert report.imagenet is not None
    with pytest.raises(ValueError, match=r"is not ImageNet-1K: the classes of val are called 1 to 2: .*wnids"):
        sources.open_val(DataSource("imagenet", root=str(tmp_path)), 2)
    (tmp_path / "val/1/0.jpg").unlink()
    report = check_images(tmp_path, workers=0, num_classes=None)
    assert len(report.problems) == 1
    assert "if they are ImageNet's" in report.splits[1].remarks[-1]
