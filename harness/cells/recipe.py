"""Recipes: training hyper-parameters as values, and the small ones that come with the project."""

import math
from dataclasses import dataclass, field, replace
from typing import get_args, get_type_hints

from attentions import fits
from harness.cells.preprocessing import Augmentation, Preprocessing, TrainInput, TrainInterpolation

CHOICES = {"augmentation": Augmentation, "interpolation": TrainInterpolation, "input": TrainInput}
FROM_ZERO = ("warmup_lr", "min_lr", "cooldown_epochs", "weight_decay", "mixup", "cutmix", "color_jitter")
SHARES = ("mixup_prob", "random_erasing")  # from 0 to 1
BELOW_ONE = ("drop_path", "label_smoothing")  # from 0; at 1 nothing would remain of a branch, or of the target
KINDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    Preprocessing: "a Preprocessing",
    type(None): "None",
}
LR_BATCH = 512  # the global batch, in images, for which the learning rates of a recipe are stated


@dataclass(frozen=True)
class Recipe:
    """Training hyper-parameters, as values. The optimizer is AdamW, the schedule a cosine per update.

    Raises ValueError for values that contradict each other, so that no field is silently without effect.
    """

    epochs: int  # of the cosine, including warm-up
    batch: int  # global: images per update, on any number of devices
    lr: float  # this and the next two are stated per LR_BATCH images and scale linearly with `batch`
    warmup_lr: float = 5e-7
    min_lr: float = 5e-6
    warmup_epochs: float = 0.0
    cooldown_epochs: int = 0  # further epochs at min_lr
    weight_decay: float = 0.05  # except biases, 1-D parameters, and those in the model's no_weight_decay()
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip_grad: float | None = None  # largest norm of the gradient
    drop_path: float = 0.0
    label_smoothing: float = 0.0
    mixup: float = 0.0  # alpha; with both mixup and cutmix, each batch gets one of them with equal probability
    cutmix: float = 0.0  # alpha
    mixup_prob: float = 1.0  # that a batch is mixed at all
    # Images that share one mixing weight: the papers draw one per GPU. None: the entire batch.
    mixup_images: int | None = None
    repeated_augmentation: int = 1  # copies of an image in a batch, each transformed anew
    augmentation: Augmentation = "imagenet"
    rand_augment: str | None = None
    color_jitter: float = 0.0
    random_erasing: float = 0.0  # probability
    interpolation: TrainInterpolation = "bicubic"  # of training images
    input: TrainInput = "pillow"  # what transforms work on: PIL images, or uint8 tensors (faster; pixels differ)
    evaluation: Preprocessing = field(default_factory=Preprocessing)
    ema_decay: float | None = None  # of a moving average of the weights, which is evaluated too

    def __post_init__(self) -> None:
        self._check_types()
        for name, choice in CHOICES.items():
            if getattr(self, name) not in get_args(choice):
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; allowed: {', '.join(get_args(choice))}")
        if self.epochs < 1 or self.batch < 1:
            raise ValueError(f"a recipe needs epochs and batch of at least 1, got {self.epochs} and {self.batch}")
        self._check_ranges()
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs}; allowed are numbers from 0 to below epochs, {self.epochs}"
            )
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr {self.min_lr} is above lr {self.lr}: the cosine descends from lr to min_lr")
        if self.rand_augment is not None and self.color_jitter:
            raise ValueError("color_jitter has no effect with rand_augment, where timm ignores it: set one of the two")
        for name, value in (("input", "tensor"), ("interpolation", "random")):
            if getattr(self, name) == value and self.augmentation != "imagenet":
                raise ValueError(f"{name} {value!r} requires augmentation 'imagenet', got {self.augmentation!r}")
        self._check_mixing()

    def _check_types(self) -> None:
        for name, annotation in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if name in CHOICES or fits(tuple(value) if isinstance(value, list) else value, annotation):
                continue
            arms = get_args(annotation) if type(None) in get_args(annotation) else (annotation,)
            takes = " or ".join(KINDS.get(arm, "numbers") for arm in arms)
            raise ValueError(f"{name} is {value!r}; it takes {takes}")

    def _check_ranges(self) -> None:
        def check(name: str, holds: bool, allowed: str) -> None:
            if not holds:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed are {allowed}")

        # A comparison with nan is false, so each of these refuses nan.
        check("lr", 0 < self.lr < math.inf, "numbers above 0")
        check("eps", 0 < self.eps < math.inf, "numbers above 0")
        for name in FROM_ZERO:
            check(name, 0 <= getattr(self, name) < math.inf, "numbers from 0 up")
        for name in SHARES:
            check(name, 0 <= getattr(self, name) <= 1, "numbers from 0 to 1")
        for name in BELOW_ONE:
            check(name, 0 <= getattr(self, name) < 1, "numbers from 0 to below 1")
        check("betas", len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "two numbers from 0 to below 1")
        check(
            "clip_grad",
            self.clip_grad is None or 0 < self.clip_grad < math.inf,
            "None (no clipping) and numbers above 0",
        )
        check(
            "ema_decay",
            self.ema_decay is None or 0 < self.ema_decay < 1,
            "None (no average) and numbers between 0 and 1",
        )
        check("repeated_augmentation", self.repeated_augmentation >= 1, "numbers from 1 (no repetition) up")

    def _check_mixing(self) -> None:
        if not self.mixes:
            if self.mixup_prob != 1:
                raise ValueError("mixup_prob has no effect without mixup or cutmix")
            if self.mixup_images is not None:
                raise ValueError("mixup_images has no effect without mixup or cutmix")
            return
        if self.batch % 2:
            raise ValueError(f"mixup and cutmix mix pairs: the batch must be even, got {self.batch}")
        images = self.mixup_images
        if images is not None and (images < 2 or images % 2 or self.batch % images):
            raise ValueError(f"mixup_images is {images}; allowed are even divisors of the batch, {self.batch}")

    @property
    def mixes(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0

    @property
    def total_epochs(self) -> int:
        return self.epochs + self.cooldown_epochs

    def effective(self, lr: float) -> float:
        """Return a learning rate of this recipe, scaled to its batch."""
        return lr * self.batch / LR_BATCH


MICRO = Recipe(
    epochs=3,
    batch=64,
    lr=24e-3,
    warmup_lr=1e-4,
    min_lr=1e-4,
    warmup_epochs=0.3,
    clip_grad=1.0,
    augmentation="small",
    evaluation=Preprocessing("pad", crop_pct=1.0),
)
"""For micro backbones on the embedded set of 28 x 28 images: about half a minute per model on two cores."""

FOLDER = replace(MICRO, augmentation="imagenet", evaluation=Preprocessing())
"""The same for a folder of photographs of any size: random resized crops, and a centre crop to evaluate."""


def split_batch(recipe: Recipe, world: int, device_batch: int | None) -> int:
    """Return the number of micro-batches per step and rank: the fewest of at most `device_batch` images each.

    Raises ValueError where the global batch of the recipe cannot be split evenly, naming the numbers that divide it.
    """
    each, rest = divmod(recipe.batch, world)
    pairs = 2 if recipe.mixes else 1  # mixup mixes the images of a micro-batch in pairs
    if rest or each % pairs:
        counts = [n for n in range(1, recipe.batch // pairs + 1) if recipe.batch % (n * pairs) == 0]
        raise ValueError(
            f"the recipe's global batch of {recipe.batch} cannot be split evenly among {world} processes; "
            f"allowed: {', '.join(map(str, counts))}"
        )
    most = device_batch or each
    for accumulation in range(-(-each // most), each // pairs + 1):
        if each % (accumulation * pairs) == 0:
            return accumulation
    raise ValueError(f"device_batch is {most}; mixup mixes pairs, so it takes 2 or more")
