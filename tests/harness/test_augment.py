"""Image transforms: sizes and pixels of each kind, and RandAugment at the magnitude that Pillow 13 does not accept."""

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import RandAugment

from harness.augment import (
    Normalise,
    Preprocessing,
    RandomErasing,
    Transform,
    eval_transform,
    seed_generators,
    train_transform,
)

CPU = torch.device("cpu")
STANDARD = "rand-m9-mstd0.5-inc1"  # of DeiT, Swin, PVT, CSWin


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def train(
    augmentation: str = "small", size: tuple[int, int] = (32, 32), channels: int = 3, **changes: object
) -> Transform:
    settings: dict = {"rand_augment": None, "color_jitter": 0.0, "interpolation": "bicubic"} | changes
    return train_transform(size, channels, augmentation=augmentation, **settings)


def evaluation(kind: str, size: tuple[int, int], crop_pct: float, channels: int = 3) -> Transform:
    return eval_transform(size, channels, Preprocessing(kind, crop_pct))


def ops(transform: Transform) -> Iterator:
    for stage in transform.transforms:
        for part in getattr(stage, "transforms", []):
            if isinstance(part, RandAugment):
                yield from part.ops


def test_posterize_at_level_10_is_black() -> None:
    (op,) = [op for op in ops(train(rand_augment="rand-m10-inc1")) if op.name == "PosterizeIncreasing"]
    op.prob = 1.0
    assert op.magnitude == 10
    image = op(noise(9, 7))
    assert image.size == (9, 7)
    assert image.getextrema() == ((0, 0),) * 3


def test_posterize_below_level_10_is_timms() -> None:
    (op,) = [op for op in ops(train(rand_augment="rand-m5-inc1")) if op.name == "PosterizeIncreasing"]
    op.prob = 1.0
    assert np.array_equal(op(noise(9, 7)), np.asarray(noise(9, 7)) & 0b11000000)


def test_standard_recipe_survives_thousands_of_images() -> None:
    transform, image, black = train("imagenet", (8, 8), rand_augment=STANDARD), noise(8, 8), 0
    for seed in range(4000):
        seed_generators(seed)
        black += not transform(image).any()
    assert black > 0, "magnitude 10 of posterize was never drawn: these images would not have seen the crash"


@pytest.mark.parametrize("text", ["rand-m9-mstd", "augmix-m3", "m9", "rand-q3", ""])
def test_unknown_rand_augment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="it is written like"):
        train(rand_augment=text)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augmentation", ["small", "imagenet"])
@pytest.mark.parametrize("rand_augment", [None, STANDARD])
def test_train_transforms_give_bytes_of_the_models_size(
    augmentation: str, channels: int, rand_augment: str | None
) -> None:
    transform = train(augmentation, (24, 40), channels, rand_augment=rand_augment)
    for size in ((28, 28), (100, 60)):
        pixels = transform(noise(*size))
        assert pixels.shape == (channels, 24, 40)
        assert pixels.dtype == torch.uint8


def test_color_jitter_acts_without_rand_augment() -> None:
    grey = Image.new("RGB", (32, 32), (100, 100, 100))
    assert len({int(train(color_jitter=0.4)(grey)[0, 16, 16]) for _ in range(20)}) > 1
    assert {int(train()(grey)[0, 16, 16]) for _ in range(20)} == {100}


def test_small_images_are_padded_moved_and_mirrored() -> None:
    image = Image.new("RGB", (28, 28))
    image.putpixel((10, 14), (255, 255, 255))
    seen = set()
    for seed in range(400):
        random.seed(seed)
        (_, row, column), *others = train()(image).nonzero().tolist()
        assert len(others) == 2, "one white pixel, in three channels"
        seen.add((row, column))
    rows, columns = ({place[i] for place in seen} for i in (0, 1))
    assert rows == set(range(16 - 2, 16 + 3)), "2 pixels of padding, and 2 in each direction"
    assert columns == set(range(12 - 2, 12 + 3)) | set(range(19 - 2, 19 + 3))


def test_pad_centres_and_shrinks_only_what_is_larger() -> None:
    pad = evaluation("pad", (32, 32), 1.0)
    image = noise(28, 28)
    pixels = pad(image).permute(1, 2, 0).numpy()
    assert np.array_equal(pixels[2:30, 2:30], np.asarray(image))
    assert pixels.sum() == np.asarray(image).sum(dtype=int), "black around it"
    wide = pad(Image.new("RGB", (128, 64), (255, 255, 255)))
    assert wide[:, 8:24].min() == 255
    assert wide[:, :8].max() == wide[:, 24:].max() == 0


def stripes() -> Image.Image:
    """448 x 224, its left and right quarter white: a centre square has none of them, a squashed image both."""
    pixels = np.zeros((224, 448, 3), np.uint8)
    pixels[:, :112] = pixels[:, 336:] = 255
    return Image.fromarray(pixels)


def test_short_side_keeps_the_aspect_and_squash_does_not() -> None:
    short_side, squash = (evaluation(kind, (224, 224), 0.875)(stripes()) for kind in ("short_side", "squash"))
    assert short_side.shape == squash.shape == (3, 224, 224)
    assert short_side[:, :, 4:-4].max() == 0
    # to 256 x 256: white up to column 64 of 256, which is column 48 of the crop
    assert squash[0, 100, :46].min() == 255
    assert squash[0, 100, 50:174].max() == 0
    assert squash[0, 100, 178:].min() == 255


def test_evaluation_is_pillows_resize_and_crop() -> None:
    image = noise(300, 260)
    squashed = image.resize((256, 256), Image.Resampling.BICUBIC).crop((16, 16, 240, 240))
    assert np.array_equal(evaluation("squash", (224, 224), 0.875)(image).permute(1, 2, 0), squashed)
    whole = image.resize((384, 384), Image.Resampling.BICUBIC)
    assert np.array_equal(evaluation("squash", (384, 384), 1.0)(image).permute(1, 2, 0), whole)
    short = image.resize((int(256 * 300 / 260), 256), Image.Resampling.BICUBIC)
    left = round((short.width - 224) / 2)
    expected = short.crop((left, 16, left + 224, 240))
    assert np.array_equal(evaluation("short_side", (224, 224), 0.875)(image).permute(1, 2, 0), expected)


@pytest.mark.parametrize("kind", ["pad", "short_side", "squash"])
def test_grey_models_get_one_channel(kind: str) -> None:
    assert evaluation(kind, (32, 48), 1.0, channels=1)(noise(40, 40)).shape == (1, 32, 48)


def test_normalise() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 2, 2)
    out = Normalise(Preprocessing(), 3, CPU)(images)
    assert out.dtype == torch.float32
    assert torch.allclose(out[0, :, 0, 0], torch.tensor([-2.1179, -2.0357, -1.8044]), atol=1e-4)
    assert torch.allclose(out[1, :, 0, 0], torch.tensor([2.2489, 2.4286, 2.6400]), atol=1e-4)
    assert Normalise(Preprocessing(), 1, CPU)(images[:, :1]).shape == (2, 1, 2, 2)


def test_erasing_depends_on_the_images_own_seed() -> None:
    erase = RandomErasing(1.0, CPU)
    batch = erase(torch.zeros(3, 3, 16, 16), [1, 2, 3])
    again = erase(torch.zeros(2, 3, 16, 16), [3, 1])
    assert torch.equal(again[0], batch[2])
    assert torch.equal(again[1], batch[0])
    assert (batch != 0).flatten(1).any(1).all(), "noise, not the mean"
    assert (batch == 0).flatten(1).any(1).all(), "only a part"
    assert not RandomErasing(0.0, CPU)(torch.zeros(1, 3, 8, 8), [1]).any()
