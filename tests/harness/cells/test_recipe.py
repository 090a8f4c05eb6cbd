"""Recipes: values that are out of range or contradict each other are refused, each in one line."""

import math
import re
from dataclasses import replace
from typing import Any

import pytest

from harness.cells import FOLDER, MICRO

MIXED = replace(FOLDER, batch=64, mixup=0.8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": -1e-3}, "lr is -0.001; allowed are numbers above 0"),
        ({"lr": 0.0}, "lr is 0.0; allowed are numbers above 0"),
        ({"lr": math.nan}, "lr is nan; allowed are numbers above 0"),
        ({"lr": math.inf}, "lr is inf; allowed are numbers above 0"),
        ({"warmup_lr": -1e-6}, "warmup_lr is -1e-06; allowed are numbers from 0 up"),
        ({"min_lr": -1e-6}, "min_lr is -1e-06; allowed are numbers from 0 up"),
        ({"min_lr": 1.0}, "min_lr 1.0 is above lr 0.024: the cosine descends from lr to min_lr"),
        ({"warmup_epochs": -1}, "warmup_epochs is -1; allowed are numbers from 0 to below epochs, 3"),
        ({"warmup_epochs": math.nan}, "warmup_epochs is nan; allowed are numbers from 0 to below epochs, 3"),
        ({"cooldown_epochs": -1}, "cooldown_epochs is -1; allowed are numbers from 0 up"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1; allowed are numbers from 0 up"),
        ({"betas": (0.9, 1.0)}, "betas is (0.9, 1.0); allowed are two numbers from 0 to below 1"),
        ({"betas": (0.9,)}, "betas is (0.9,); allowed are two numbers from 0 to below 1"),
        ({"eps": 0.0}, "eps is 0.0; allowed are numbers above 0"),
        ({"clip_grad": 0.0}, "clip_grad is 0.0; allowed are None (no clipping) and numbers above 0"),
        ({"drop_path": 1.0}, "drop_path is 1.0; allowed are numbers from 0 to below 1"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0; allowed are numbers from 0 to below 1"),
        ({"label_smoothing": -0.1}, "label_smoothing is -0.1; allowed are numbers from 0 to below 1"),
        ({"mixup": -0.8}, "mixup is -0.8; allowed are numbers from 0 up"),
        ({"cutmix": -1.0}, "cutmix is -1.0; allowed are numbers from 0 up"),
        ({"mixup": 0.8, "mixup_prob": 1.1}, "mixup_prob is 1.1; allowed are numbers from 0 to 1"),
        ({"random_erasing": 1.5}, "random_erasing is 1.5; allowed are numbers from 0 to 1"),
        ({"color_jitter": -0.4}, "color_jitter is -0.4; allowed are numbers from 0 up"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0; allowed are None (no average) and numbers between 0 and 1"),
        ({"ema_decay": 0.0}, "ema_decay is 0.0; allowed are None (no average) and numbers between 0 and 1"),
        ({"repeated_augmentation": 0}, "repeated_augmentation is 0; allowed are numbers from 1 (no repetition) up"),
        ({"mixup_images": 32}, "mixup_images has no effect without mixup or cutmix"),
        ({"input": "jpeg"}, "unknown input 'jpeg'; allowed: pillow, tensor"),
        ({"input": "tensor"}, "input 'tensor' requires augmentation 'imagenet', got 'small'"),
        ({"epochs": 0}, "a recipe needs epochs and batch of at least 1, got 0 and 64"),
        ({"batch": 15, "mixup": 0.8}, "mixup and cutmix mix pairs: the batch must be even, got 15"),
        ({"warmup_epochs": 3.0}, "warmup_epochs is 3.0; allowed are numbers from 0 to below epochs, 3"),
        ({"mixup_prob": 0.5}, "mixup_prob has no effect without mixup or cutmix"),
        (
            {"color_jitter": 0.4, "rand_augment": "rand-m9"},
            "color_jitter has no effect with rand_augment, where timm ignores it: set one of the two",
        ),
        ({"augmentation": "large"}, "unknown augmentation 'large'; allowed: small, imagenet"),
        ({"interpolation": "nearest"}, "unknown interpolation 'nearest'; allowed: bilinear, bicubic, random"),
    ],
)
def test_what_is_not_allowed_is_one_clear_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        replace(MICRO, **changes)
    assert str(error.value) == message


@pytest.mark.parametrize("images", [0, 1, 3, 24, 128])
def test_images_that_share_a_mixing_weight_are_an_even_part_of_the_batch(images: int) -> None:
    with pytest.raises(ValueError, match=f"mixup_images is {images}; allowed are even divisors of the batch, 64"):
        replace(MIXED, mixup_images=images)


def test_edges_of_what_is_allowed() -> None:
    replace(MIXED, mixup_images=2)
    replace(MIXED, mixup_images=64, mixup_prob=0.0, cutmix=1.0)
    replace(FOLDER, input="tensor")
    replace(MICRO, warmup_epochs=0, warmup_lr=0.0, min_lr=0.0, weight_decay=0.0, betas=(0.0, 0.0))
    replace(MICRO, random_erasing=1.0, drop_path=0.0, repeated_augmentation=3, ema_decay=0.9999, clip_grad=5.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"betas": 0.9}, "betas is 0.9; it takes numbers"),
        ({"betas": ("a", "b")}, "betas is ('a', 'b'); it takes numbers"),
        ({"lr": "fast"}, "lr is 'fast'; it takes a number"),
        ({"epochs": 2.5}, "epochs is 2.5; it takes a whole number"),
        ({"epochs": True}, "epochs is True; it takes a whole number"),
        ({"batch": None}, "batch is None; it takes a whole number"),
        ({"clip_grad": "none"}, "clip_grad is 'none'; it takes a number or None"),
        ({"mixup_images": 2.0}, "mixup_images is 2.0; it takes a whole number or None"),
        ({"rand_augment": 9}, "rand_augment is 9; it takes a text or None"),
        ({"evaluation": "squash"}, "evaluation is 'squash'; it takes a Preprocessing"),
    ],
    ids=str,
)
def test_values_of_another_kind_are_refused(change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        replace(MICRO, **change)
