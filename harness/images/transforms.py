"""Image transforms: the one place where they are built, for training and for evaluation.

A transform maps an RGB PIL image to a uint8 tensor (C, H, W). What is cheaper or only exact in float32 comes after the
batch has reached its device: `Normalise`, then in training `RandomErasing`. The DataLoader is in between, and so moves
a quarter of the bytes. Pixels come from timm and Pillow: nothing faster is bit-identical to what papers used. The
training input "tensor" is 1.2 to 1.3 times as fast with RandAugment; it draws the same random numbers as "pillow", and
differs from it by the rounding of the resize.

There are two kinds of training augmentation: `small` shifts an image that already has about the model's size by a few
pixels (random crop after padding) and flips it; `imagenet` is timm's recipe, RandomResizedCrop and flip. RandAugment or
colour jitter follows either, if the recipe has it. There are three ways to evaluate: `pad`, the counterpart of `small`;
`short_side`, the resize of Swin, PVT and DeiT; `squash`, the resize to a square of FLatten, Agent Attention, InLine and
PolaFormer.
"""

from __future__ import annotations

import io
import random
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import torch
from PIL import Image
from torch import Tensor

from harness.cells import Preprocessing
from harness.cells.preprocessing import Augmentation, Interpolation, TrainInput, TrainInterpolation
from harness.images.readers import in_rgb
from harness.process.determinism import seed_generators

if TYPE_CHECKING:
    from timm.data.auto_augment import RandAugment
    from timm.data.transforms import RandomResizedCropAndInterpolation
    from torchvision import transforms

Transform = Callable[[Image.Image], Tensor]

SHIFT = 2  # pixels by which a small image is moved at most, in each direction: 28 of 32 pixels then stay in view
RAND_AUGMENT = re.compile(r"rand(-(m|n|p|mstd|mmax|inc)\d+(\.\d+)?)+")


def train_transform(
    image_size: tuple[int, int],
    in_channels: int,
    *,
    augmentation: Augmentation,
    rand_augment: str | None,
    color_jitter: float,
    interpolation: TrainInterpolation,
    input: TrainInput = "pillow",
) -> Transform | TensorTransform:
    """Return the random transform of training images, RGB PIL -> uint8 (in_channels, H, W).

    input: "pillow" is timm's recipe to the bit; "tensor" decodes, crops and flips faster: a `TensorTransform`.

    It draws from the global generators (see `seed_generators`). Raises ValueError for a RandAugment text that timm
    would not understand, and for the input "tensor" or interpolation "random" where images are not cropped at random.
    """
    from timm.data import create_transform
    from timm.data.auto_augment import RandAugment
    from torchvision import transforms

    if input not in get_args(TrainInput):
        raise ValueError(f"unknown training input {input!r}; allowed: {', '.join(get_args(TrainInput))}")
    if input == "tensor" and augmentation == "small":
        raise ValueError("the training input 'tensor' requires the augmentation 'imagenet'; with 'small' use 'pillow'")
    if interpolation == "random" and augmentation == "small":
        raise ValueError(
            "the interpolation 'random' requires the augmentation 'imagenet'; with 'small' use 'bilinear' or 'bicubic'"
        )
    if rand_augment is not None and not RAND_AUGMENT.fullmatch(rand_augment):
        raise ValueError(
            f"cannot parse rand_augment {rand_augment!r}; it is written like 'rand-m9-mstd0.5-inc1', "
            "with m, n, p, mstd, mmax, inc"
        )
    crop_and_flip, colour, _ = create_transform(
        (3, *image_size),
        is_training=True,
        auto_augment=rand_augment,
        color_jitter=color_jitter or None,
        interpolation=interpolation,
        normalize=False,
        separate=True,
    )
    if augmentation == "small":
        assert interpolation != "random"
        crop_and_flip = _ShiftAndFlip(image_size, interpolation)
    for op in colour.transforms:
        if isinstance(op, RandAugment):
            accept_zero_bits(op)
    grey = _to_grey(in_channels)
    if input == "tensor":
        crop, flip = crop_and_flip.transforms
        return TensorTransform(crop, flip, colour, transforms.Compose(grey))
    return transforms.Compose([crop_and_flip, colour, channels_of, *grey])


class TensorTransform:
    """Training images as tensors: decoded, cropped and flipped without Pillow; RandAugment is timm's, on the crop.

    crop, flip, colour: the parts of timm's transform, which still draw the random numbers. The same seed gives the same
    crop, flip and colours as with Pillow; the pixels of the crop differ by at most 2 of 255. grey: what comes last.
    """

    def __init__(
        self,
        crop: RandomResizedCropAndInterpolation,
        flip: transforms.RandomHorizontalFlip,
        colour: transforms.Compose,
        grey: transforms.Compose,
    ) -> None:
        self.crop, self.flip, self.colour, self.grey = crop, flip, colour, grey

    def decode(self, encoded: bytes) -> Tensor:
        """Decode an image file to uint8 (3, H, W), equal to Pillow's. Raises what Pillow raises."""
        from torchvision import io as torchvision_io
        from torchvision.transforms.functional import pil_to_tensor

        if encoded.startswith(b"\xff\xd8"):  # JPEG; Pillow gives other colours for PNGs with 16 bits or a palette
            with suppress(RuntimeError):  # torchvision's error for damaged files; Pillow describes them better
                data = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
                # through the module: torchvision plans to drop its decoders, and "pillow" must then still work
                image = torchvision_io.decode_jpeg(data, torchvision_io.ImageReadMode.UNCHANGED)
                if image.shape[0] in (1, 3):  # 4 is CMYK
                    return image.expand(3, -1, -1)
        return pil_to_tensor(in_rgb(Image.open(io.BytesIO(encoded))))

    def __call__(self, image: Tensor) -> Tensor:
        """uint8 (3, H, W) of any size -> uint8 (C, H, W) of the model's."""
        from torchvision.transforms.functional import to_pil_image
        from torchvision.transforms.v2.functional import resized_crop

        top, left, height, width = self.crop.get_params(image, self.crop.scale, self.crop.ratio)
        size, interpolation = list(self.crop.size), self.crop.interpolation
        if isinstance(interpolation, tuple):
            interpolation = random.choice(interpolation)
        image = resized_crop(image, top, left, height, width, size, interpolation, antialias=True)
        image = self.flip(image)
        if self.colour.transforms:
            image = channels_of(self.colour(to_pil_image(image)))
        return self.grey(image)


def channels_of(image: Image.Image) -> Tensor:
    """Return an RGB image as uint8 (3, H, W), each channel in one piece.

    torchvision's tensor has them interleaved, and a batch of such images is put together at a tenth of the speed.
    """
    channels = bytearray().join(channel.tobytes() for channel in image.split())
    return torch.frombuffer(channels, dtype=torch.uint8).view(3, image.height, image.width)


def eval_transform(
    image_size: tuple[int, int],
    in_channels: int,
    preprocessing: Preprocessing,
) -> Transform:
    """Return the fixed transform of evaluation images, RGB PIL -> uint8 (in_channels, H, W)."""
    from timm.data import create_transform
    from torchvision import transforms
    from torchvision.transforms.functional import pil_to_tensor

    if preprocessing.kind == "pad":
        pad = _Pad(image_size, preprocessing.interpolation)
        return transforms.Compose([pad, pil_to_tensor, *_to_grey(in_channels)])
    resize_and_crop = create_transform(
        (3, *image_size),
        crop_pct=preprocessing.crop_pct,
        crop_mode="squash" if preprocessing.kind == "squash" else "center",
        interpolation=preprocessing.interpolation,
        normalize=False,
    )
    return transforms.Compose([resize_and_crop, *_to_grey(in_channels)])


class Normalise:
    """uint8 (B, C, H, W) -> float32 on `device`, minus mean, over standard deviation (their means if C = 1)."""

    def __init__(self, preprocessing: Preprocessing, in_channels: int, device: torch.device) -> None:
        mean, std = 255 * torch.tensor([preprocessing.mean, preprocessing.std])
        if in_channels == 1:
            mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
        self.mean = mean.view(1, -1, 1, 1).to(device)
        self.std = std.view(1, -1, 1, 1).to(device)

    def __call__(self, images: Tensor) -> Tensor:
        # float32 in every precision of the run: autocast rounds later, and only where it should
        return images.to(self.mean.device, non_blocking=True).float().sub_(self.mean).div_(self.std)


class RandomErasing:
    """Random erasing (arXiv 1708.04896) of normalised images, filled with noise, as in the DeiT recipe.

    It runs on the device, image by image, each from its own seed: the other images of a batch change nothing.
    """

    def __init__(self, probability: float, device: torch.device) -> None:
        from timm.data.random_erasing import RandomErasing as Erasing

        self.erase = Erasing(probability, mode="pixel", device=device)

    def __call__(self, images: Tensor, seeds: list[int]) -> Tensor:
        """Erase in images (B, C, H, W) in place, with B seeds, and return the same tensor."""
        for image, seed in zip(images, seeds, strict=True):
            seed_generators(seed, image.device)
            self.erase(image)
        return images


@dataclass(frozen=True)
class _Pad:
    """Centre an image on a black canvas of `size`; a larger one is first shrunk to fit, with its aspect ratio."""

    size: tuple[int, int]
    interpolation: Interpolation

    def __call__(self, image: Image.Image, shift: tuple[int, int] = (0, 0)) -> Image.Image:
        height, width = self.size
        if image.width > width or image.height > height:
            image = image.copy()
            image.thumbnail((width, height), Image.Resampling[self.interpolation.upper()])
        left, top = (image.width - width) // 2 + shift[0], (image.height - height) // 2 + shift[1]
        # Pillow fills what is outside the image with black
        return image.crop((left, top, left + width, top + height))


@dataclass(frozen=True)
class _ShiftAndFlip:
    """`_Pad`, moved by up to SHIFT pixels, and mirrored with probability 1/2."""

    size: tuple[int, int]
    interpolation: Interpolation

    def __call__(self, image: Image.Image) -> Image.Image:
        shift = random.randint(-SHIFT, SHIFT), random.randint(-SHIFT, SHIFT)
        image = _Pad(self.size, self.interpolation)(image, shift)
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else image


def _to_grey(in_channels: int) -> list[transforms.Grayscale]:
    """Last, since augmentations are written for colour. Raises ValueError for channels that images do not have."""
    from torchvision import transforms

    if in_channels not in (1, 3):
        raise ValueError(f"the model takes {in_channels} channels; images have 3, or 1 in grey")
    return [transforms.Grayscale(1)] if in_channels == 1 else []


def _posterize(image: Image.Image, bits_to_keep: int, **options: object) -> Image.Image:
    """timm's posterize, also for 0 bits: black, as in Pillow before 13; Pillow 13 raises."""
    from timm.data.auto_augment import posterize

    if bits_to_keep == 0:
        return Image.new(image.mode, image.size)
    return posterize(image, bits_to_keep, **options)


def accept_zero_bits(rand_augment: RandAugment) -> None:
    """Let posterize take 0 bits: timm asks for them at magnitude 10, once in 400 images of 'rand-m9-mstd0.5-inc1'."""
    from timm.data.auto_augment import posterize

    for op in rand_augment.ops:
        if op.aug_fn is posterize:
            op.aug_fn = _posterize
