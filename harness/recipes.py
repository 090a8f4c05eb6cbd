"""Recipes: training hyper-parameters as values, and the small ones that come with the project."""

from dataclasses import dataclass, field, replace
from typing import get_args

from harness.augment import Augmentation, Interpolation, Preprocessing

CHOICES = {"augmentation": Augmentation, "interpolation": Interpolation}
LR_BATCH = 512  # images of global batch that the learning rates of a recipe are stated for


@dataclass(frozen=True)
class Recipe:
    """Training hyper-parameters, as values. The optimizer is AdamW, the schedule a cosine per update.

    Raises ValueError for values that contradict each other, so that no field is silently without effect.
    """

    epochs: int  # the cosine, warm-up included
    batch: int  # global: images per update, on however many devices
    lr: float  # this and the next two are stated per LR_BATCH images and scaled linearly with `batch`
    warmup_lr: float = 5e-7
    min_lr: float = 5e-6
    warmup_epochs: float = 0.0
    cooldown_epochs: int = 0  # further epochs at min_lr
    weight_decay: float = 0.05  # not of biases, 1-D parameters, and what the model's no_weight_decay() names
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip_grad: float | None = None  # largest norm of the gradient
    drop_path: float = 0.0
    label_smoothing: float = 0.0
    mixup: float = 0.0  # alpha; with mixup and cutmix both, each batch gets one of them, evens
    cutmix: float = 0.0  # alpha
    mixup_prob: float = 1.0  # of a batch being mixed at all
    augmentation: Augmentation = "imagenet"
    rand_augment: str | None = None
    color_jitter: float = 0.0
    random_erasing: float = 0.0  # probability
    interpolation: Interpolation = "bicubic"  # of training images
    evaluation: Preprocessing = field(default_factory=Preprocessing)
    ema_decay: float | None = None  # of a moving average of the weights, evaluated beside them

    def __post_init__(self) -> None:
        for name, choice in CHOICES.items():
            if getattr(self, name) not in get_args(choice):
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; allowed: {', '.join(get_args(choice))}")
        if self.epochs < 1 or self.batch < 1:
            raise ValueError(f"a recipe needs epochs and batch of at least 1, got {self.epochs} and {self.batch}")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} must lie in the {self.epochs} epochs of the cosine")
        if self.mixes and self.batch % 2:
            raise ValueError(f"mixup and cutmix mix pairs: the batch must be even, got {self.batch}")
        if self.mixup_prob != 1 and not self.mixes:
            raise ValueError("mixup_prob has no effect without mixup or cutmix")
        if self.rand_augment is not None and self.color_jitter:
            raise ValueError("color_jitter has no effect beside rand_augment, where timm drops it: set one of the two")

    @property
    def mixes(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0

    @property
    def total_epochs(self) -> int:
        return self.epochs + self.cooldown_epochs

    def effective(self, lr: float) -> float:
        """A learning rate of this recipe, scaled to its batch."""
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
"""For micro backbones on the embedded set of 28 x 28 images: about half a minute a model on two cores."""

FOLDER = replace(MICRO, augmentation="imagenet", evaluation=Preprocessing())
"""The same for a folder of photographs of any size: random resized crops, and a central crop to evaluate."""
