"""Inputs of a training raced with timm's loader: the same bits first, then in turn."""

from pathlib import Path

import pytest
import torch

from backbones import preset
from harness.cells import MICRO, Recipe
from harness.images.batches import Images, Key, Sample
from harness.images.layouts import find_split, open_split
from harness.images.readers import Reader
from harness.measures.quiet import UNWATCHED
from harness.published.recipes import recipe_of
from harness.racing.inputs import Reading, check_bits, race_inputs
from tests import photographs

IMAGES = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photographs")
    photographs.write(root, classes=2, each=IMAGES // 2)
    return root / "train"


@pytest.fixture
def reader(folder: Path) -> Reader:
    return open_split(find_split(folder.parent, "train"))


def raced(folder: Path, reader: Reader, recipe: Recipe) -> list[Reading]:
    return race_inputs(
        folder,
        reader,
        preset("deit_micro", in_channels=3),
        recipe,
        batch=4,
        workers=0,
        device=torch.device("cpu"),
        min_seconds=0.01,
        report=print,
        watching=UNWATCHED,
    )


def test_each_input_reads_the_same_number_of_images_in_turn_with_timm(folder: Path, reader: Reader) -> None:
    timm, pillow, tensor = raced(folder, reader, recipe_of("deit_t"))
    assert [timm.reader, pillow.reader, tensor.reader] == ["timm", "pillow", "tensor"]
    assert {each.images for each in (timm, pillow, tensor)} == {4}, "the incomplete batch is left out"
    assert timm.ratio is None
    for each in (pillow, tensor):
        assert each.ratio is not None
        assert each.ratio.low <= each.ratio.value <= each.ratio.high
        # far from both: an input that did nothing, or everything twice, would be outside
        assert 0.2 < each.ratio.value < 2
        low, middle, high = each.images_per_s
        assert 0 < low <= middle <= high


def test_other_bits_have_no_speed(folder: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Images.__getitem__

    def brighter(self: Images, key: Key) -> Sample:
        sample = read(self, key)
        assert isinstance(sample, Sample)
        sample.image[0, 0, 0] ^= 1
        return sample

    monkeypatch.setattr(Images, "__getitem__", brighter)
    with pytest.raises(ValueError, match=r"0.jpg is not the image that timm makes of it"):
        raced(folder, reader, recipe_of("deit_t"))


def test_what_timm_has_no_transform_for_is_refused(folder: Path, reader: Reader) -> None:
    with pytest.raises(ValueError, match="takes a recipe with the augmentation 'imagenet'"):
        raced(folder, reader, MICRO)


def test_an_unreadable_image_is_named(folder: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(reader), "encoded", lambda self, index: b"no image")
    with pytest.raises(ValueError, match=r"unreadable image .*0.jpg"):
        check_bits(Images(reader, lambda image: torch.zeros(3, 1, 1), seed=0), None)
