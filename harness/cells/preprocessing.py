"""What is done to images, as values: how they are augmented in training, and become a model's input in evaluation.

The transforms themselves are in harness/images/transforms.py.
"""

from dataclasses import dataclass
from typing import Literal, get_args

Augmentation = Literal["small", "imagenet"]
EvalTransform = Literal["pad", "short_side", "squash"]
Interpolation = Literal["bilinear", "bicubic"]
TrainInterpolation = Literal["bilinear", "bicubic", "random"]  # random: one of the two per image, as in CSWin
TrainInput = Literal["pillow", "tensor"]

# Of ImageNet's pixels, per channel; timm's default.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a model's input in evaluation; a property of the weights, or of the recipe behind them.

    kind: `pad`, `short_side` or `squash`, see harness/images/transforms.py.
    crop_pct: share of the resized side that the centre crop keeps: 0.875 is 224 of 256. `pad` crops nothing.
    mean, std: per channel, of pixel values from 0 to 1; training normalises with them too.

    Raises ValueError for values that are not allowed.
    """

    kind: EvalTransform = "short_side"
    crop_pct: float = 0.875
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD

    def __post_init__(self) -> None:
        for name, choice in (("kind", EvalTransform), ("interpolation", Interpolation)):
            if getattr(self, name) not in get_args(choice):
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; allowed: {', '.join(get_args(choice))}")
        if not 0 < self.crop_pct <= 1:
            raise ValueError(f"crop_pct is {self.crop_pct}; allowed are numbers above 0 and up to 1")
        if self.kind == "pad" and self.crop_pct != 1:
            raise ValueError("'pad' crops nothing: its crop_pct is 1.0")

    def __str__(self) -> str:
        crop = "" if self.kind == "pad" else f" {self.crop_pct:.4g}"
        return f"{self.kind}{crop} {self.interpolation}"
