"""Weights, as values: those in a file, identified by its content, and those that a training will leave.

weights_in("flatten_swin_t.pth")         # Weights, see harness/training/loading.py

training = Cell(preset("swin_t"), Train(recipe, data))
training.weights()                       # RunWeights: the last weights as trained
training.weights(which="best", ema=True)
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

Which = Literal["last", "best"]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A file of weights, identified by its content: its path and name do not matter.

    ema: take the file's moving average of the weights instead of the weights as trained.
    strict: refuse a file unless every tensor fits; otherwise what does not fit stays as initialised, and is reported.
    """

    digest: str  # first 16 hexadecimal digits of the SHA-256 of the file
    ema: bool = False
    strict: bool = True
    path: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """For people."""
        return Path(self.path).name + (" (EMA)" if self.ema else "")


@dataclass(frozen=True, kw_only=True)
class RunWeights:
    """The weights that a training cell will leave, identified by its key: the same cell ends with the same weights.

    which: those of the last epoch, or of the epoch with the largest top-1 on the val images (biased by that choice).
    ema: take their moving average instead of the weights as trained.
    strict: refuse weights unless every tensor fits; otherwise what does not fit stays as initialised, and is reported.
    """

    run: str  # the key of the training cell
    label: str = field(compare=False)  # what is trained, for people
    which: Which = "last"
    ema: bool = False
    strict: bool = True

    def __post_init__(self) -> None:
        if self.which not in get_args(Which):
            raise ValueError(f"unknown weights {self.which!r} of a run; allowed: {', '.join(get_args(Which))}")

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.which}{' (EMA)' if self.ema else ''} of {self.label}"
