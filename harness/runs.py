"""Weights that a training cell leaves: known before it has run, so that other cells can be made to follow it.

    training = Cell(preset("swin_t"), Train(recipe, data))
    training.weights()                       # RunWeights: the last weights as trained
    training.weights(which="best", ema=True)

The training lies beside the cell that needs it, in the same folder of records: `<key>.json`, and the run folder
`<key>/`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import results
from harness import checkpoints
from harness.weights import Weights

Which = Literal["last", "best"]


@dataclass(frozen=True)
class RunWeights:
    """The weights that a training cell will leave, known by its key: the same cell ends with the same weights.

    which: those of the last epoch, or of the epoch with the largest top-1 on the val images (flattered by the choice).
    ema: take their moving average instead of the weights as trained.
    strict: refuse weights that do not fit tensor by tensor; otherwise what does not fit is left as initialised, and
        reported.
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

    def path(self, out: Path) -> Path:
        """The file of the weights below `out`, the folder in which the training is recorded.

        Raises ValueError, in one line that names the training and its state, unless it is recorded as done.
        """
        needed = f"needs the training {self.label} ({self.run}), which"
        folder = out / self.run
        if not (out / f"{self.run}.json").exists():
            begun = "has begun and is not done yet" if checkpoints.all_of(folder) else "is not recorded"
            raise ValueError(f"{needed} {begun} in {out}")
        try:
            record = results.read(out / f"{self.run}.json")
        except ValueError as problem:
            raise ValueError(f"{needed} has no whole record: {problem}") from problem
        if record.status != "done":
            how = {"failed": "failed", "oom": "ran out of memory"}[record.status]
            raise ValueError(f"{needed} {how}: {record.reason or 'no error was recorded'}")
        found = [folder / checkpoints.BEST] if self.which == "best" else checkpoints.all_of(folder)[:1]
        if not found or not found[0].exists():
            raise ValueError(f"{needed} is done, and whose {self.which} weights are no longer in {folder}")
        return found[0]


def located(weights: Weights | RunWeights, out: Path) -> Weights:
    """The file of the weights; that of a run lies below `out`. Raises ValueError as `RunWeights.path` does."""
    if isinstance(weights, Weights):
        return weights
    return Weights.of(weights.path(out), ema=weights.ema, strict=weights.strict)
