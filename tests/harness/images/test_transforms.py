"""Image transforms: sizes and pixels of each kind, and RandAugment at the magnitude that Pillow 13 does not accept."""

import io
import math
import random
import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from timm.data.auto_augment import RandAugment
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import pil_to_tensor

from harness.cells import Preprocessing
from harness.cells.preprocessing import Augmentation, EvalTransform
from harness.images.transforms import (
    Normalise,
    RandomErasing,
    TensorTransform,
    Transform,
    channels_of,
    eval_transform,
    train_transform,
)
from harness.process.determinism import seed_generators

CPU = torch.device("cpu")
STANDARD = "rand-m9-mstd0.5-inc1"  # of DeiT, Swin, PVT, CSWin


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def train(
    augmentation: Augmentation = "small", size: tuple[int, int] = (32, 32), channels: int = 3, **changes: Any
) -> Any:
    """A transform of training images: a Compose of torchvision, or a TensorTransform where `input` is "tensor"."""
    settings: dict[str, Any] = {"rand_augment": None, "color_jitter": 0.0, "interpolation": "bicubic"} | changes
    return train_transform(size, channels, augmentation=augmentation, **settings)


def evaluation(kind: EvalTransform, size: tuple[int, int], crop_pct: float, channels: int = 3) -> Transform:
    return eval_transform(size, channels, Preprocessing(kind, crop_pct))


def ops(transform: Any) -> Iterator:
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
    augmentation: Augmentation, channels: int, rand_augment: str | None
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
    assert np.array_equal(evaluation("squash", (224, 224), 0.875)(image).permute(1, 2, 0), np.asarray(squashed))
    whole = image.resize((384, 384), Image.Resampling.BICUBIC)
    assert np.array_equal(evaluation("squash", (384, 384), 1.0)(image).permute(1, 2, 0), np.asarray(whole))
    short = image.resize((int(256 * 300 / 260), 256), Image.Resampling.BICUBIC)
    left = round((short.width - 224) / 2)
    expected = short.crop((left, 16, left + 224, 240))
    assert np.array_equal(evaluation("short_side", (224, 224), 0.875)(image).permute(1, 2, 0), np.asarray(expected))


@pytest.mark.parametrize("kind", ["pad", "short_side", "squash"])
def test_grey_models_get_one_channel(kind: EvalTransform) -> None:
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


# The training input "tensor"


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth with some noise: as a photograph it is neither flat nor all edges."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    return Image.fromarray((smooth + generator.integers(-6, 7, smooth.shape)).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def tensor_input(size: tuple[int, int] = (64, 48), channels: int = 3, **changes: Any) -> TensorTransform:
    transform = train("imagenet", size, channels, input="tensor", **changes)
    assert isinstance(transform, TensorTransform)
    return transform


@pytest.mark.parametrize("size", [(64, 48), (224, 224)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_tensor_input_draws_the_same_crop_and_flip_as_pillow(size: tuple[int, int], interpolation: str) -> None:
    fast = tensor_input(size, interpolation=interpolation)
    slow = train("imagenet", size, interpolation=interpolation)
    differing = []
    for seed in range(40):
        data = encoded(photo(*((200, 150), (150, 200), (40, 300))[seed % 3], seed))
        seed_generators(seed)
        ours = fast(fast.decode(data))
        seed_generators(seed)
        theirs = slow(Image.open(io.BytesIO(data)).convert("RGB"))
        assert ours.dtype == theirs.dtype == torch.uint8
        difference = (ours.short() - theirs.short()).abs()
        assert difference.max() <= 2, f"seed {seed}"
        differing.append((difference > 0).float().mean().item())
    assert statistics.mean(differing) < 0.05


def test_tensor_input_keeps_the_recipes_parameters() -> None:
    fast, slow = tensor_input(), train("imagenet", (64, 48), rand_augment=STANDARD)
    crop, flip = slow.transforms[0].transforms
    for name in ("scale", "ratio", "size", "interpolation"):
        assert getattr(fast.crop, name) == getattr(crop, name)
    assert fast.crop.scale == (0.08, 1.0)
    assert fast.crop.ratio == pytest.approx((3 / 4, 4 / 3))
    assert fast.flip.p == flip.p == 0.5


def test_tensor_input_crops_by_the_law_of_torchvisions_random_crop() -> None:
    crop, image = tensor_input().crop, torch.zeros(3, 300, 400)
    seed_generators(0)
    ours = np.array([crop.get_params(image, crop.scale, crop.ratio) for _ in range(3000)])
    theirs = np.array([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)])
    for name, value in {
        "area": lambda box: box[:, 2] * box[:, 3],
        "aspect": lambda box: box[:, 3] / box[:, 2],
        "top": lambda box: box[:, 0],
        "left": lambda box: box[:, 1],
    }.items():
        assert ks_2samp(value(ours), value(theirs)).pvalue > 0.01, name


def test_tensor_input_with_rand_augment_is_a_function_of_the_seed_and_close_to_pillows() -> None:
    fast, slow = tensor_input(rand_augment=STANDARD), train("imagenet", (64, 48), rand_augment=STANDARD)
    distances, others = [], []
    for seed in range(60):
        data = encoded(photo(200, 150, seed))
        seed_generators(seed)
        ours = fast(fast.decode(data))
        torch.rand(3), random.random(), np.random.rand()
        seed_generators(seed)
        assert torch.equal(fast(fast.decode(data)), ours)
        seed_generators(seed)
        theirs = slow(Image.open(io.BytesIO(data)).convert("RGB"))
        distances.append((ours.float() - theirs.float()).abs().mean().item())
        seed_generators(seed + 1000)
        others.append((fast(fast.decode(data)).float() - ours.float()).abs().mean().item())
    assert statistics.median(distances) < 0.5, "another draw is far away:"
    assert statistics.median(others) > 10


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(photo(60, 50)), id="jpeg"),
        pytest.param(encoded(photo(60, 50), subsampling=0, progressive=True), id="progressive"),
        pytest.param(encoded(photo(60, 50).convert("L")), id="grey jpeg"),
        pytest.param(encoded(photo(60, 50).convert("CMYK")), id="cmyk jpeg"),
        pytest.param(encoded(photo(60, 50), "PNG"), id="png"),
        pytest.param(encoded(photo(60, 50).convert("P"), "PNG", transparency=0), id="palette png"),
        pytest.param(encoded(photo(60, 50).convert("RGBA"), "PNG"), id="png with alpha"),
        pytest.param(encoded(photo(60, 50).convert("I;16"), "PNG"), id="16 bit png"),
        pytest.param(encoded(photo(60, 50), "WEBP"), id="webp"),
    ],
)
def test_tensor_input_decodes_to_pillows_pixels(data: bytes) -> None:
    pixels = tensor_input().decode(data)
    assert pixels.dtype == torch.uint8
    assert np.array_equal(pixels.permute(1, 2, 0), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("data", [b"", b"<html>", encoded(photo(60, 50))[:-300]])
def test_tensor_input_refuses_damage_as_pillow_does(data: bytes) -> None:
    with pytest.raises(OSError):
        tensor_input().decode(data)


@pytest.mark.parametrize("channels", [1, 3])
def test_tensor_input_of_grey_models_and_images(channels: int) -> None:
    fast = tensor_input((24, 40), channels, rand_augment=STANDARD)
    pixels = fast(fast.decode(encoded(photo(60, 50).convert("L"))))
    assert (pixels.shape, pixels.dtype) == ((channels, 24, 40), torch.uint8)


def test_tensor_input_is_for_random_crops() -> None:
    with pytest.raises(ValueError, match="'tensor' requires the augmentation 'imagenet'; with 'small' use 'pillow'"):
        train("small", input="tensor")
    with pytest.raises(ValueError, match="unknown training input 'dali'; allowed: pillow, tensor"):
        train("imagenet", input="dali")


def test_tensor_input_is_faster() -> None:
    """Least CPU time of this process, interleaved, as a ratio; on a quiet core it is about 1.3."""
    files = [encoded(photo(500, 375, seed), quality=92) for seed in range(8)]
    fast = tensor_input((224, 224), rand_augment=STANDARD)
    slow = train("imagenet", (224, 224), rand_augment=STANDARD)
    paths = {"tensor": lambda data: fast(fast.decode(data)), "pillow": lambda data: slow(rgb(data))}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    try:
        least = dict.fromkeys(paths, math.inf)
        for turn in range(12):
            for name in sorted(paths, reverse=bool(turn % 2)):
                seed_generators(turn)
                start = time.process_time()
                for data in files:
                    paths[name](data)
                least[name] = min(least[name], time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    assert least["pillow"] > least["tensor"]


def rgb(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


@pytest.mark.parametrize("input", ["pillow", "tensor"])
def test_random_interpolation_is_one_of_two_for_each_image(input: str) -> None:
    stream = io.BytesIO()
    noise(64, 64).save(stream, "JPEG")
    image = Image.open(stream).convert("RGB")

    def pixels(interpolation: str, seed: int) -> torch.Tensor:
        transform = train("imagenet", (16, 16), interpolation=interpolation, input=input)
        seed_generators(seed)
        return transform(transform.decode(stream.getvalue()) if input == "tensor" else image)

    found = set()
    for seed in range(12):
        drawn = pixels("random", seed)
        found |= {name for name in ("bilinear", "bicubic") if torch.equal(pixels(name, seed), drawn)}
    assert found == {"bilinear", "bicubic"}


def test_channels_are_those_of_torchvision_each_in_one_piece() -> None:
    image = photo(7, 5)
    channels = channels_of(image)
    assert torch.equal(channels, pil_to_tensor(image))
    assert channels.shape == (3, 5, 7)
    assert channels.is_contiguous()
    assert not pil_to_tensor(image).is_contiguous()
