"""The check of a whole image set: what it counts, and that whatever is wrong is listed by name."""

from pathlib import Path

import pytest

from harness.images import sources
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
