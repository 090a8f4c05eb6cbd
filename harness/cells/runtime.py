"""How a model is run, as a value: device, precision, mode, batch."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch

Device = Literal["cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16"]
Mode = Literal["eager", "compiled"]
Workload = Literal["infer", "train"]

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
AUTOCAST: dict[str, torch.dtype | None] = {"fp32": None, **DTYPES}


@dataclass(frozen=True)
class Runtime:
    """How a model is run: what changes a measurement and not the model.

    `precision` is that of autocast over float32 weights (fp32: no autocast and no TF32); `batch` is in images.
    Raises ValueError for a value that is not allowed; whether the machine has the device is checked on use.
    """

    device: Device = "cpu"
    precision: Precision = "fp32"
    mode: Mode = "eager"
    channels_last: bool = False
    batch: int = 64

    def __post_init__(self) -> None:
        for field, allowed in (("device", Device), ("precision", Precision), ("mode", Mode)):
            value = getattr(self, field)
            if value not in get_args(allowed):
                raise ValueError(f"unknown {field} {value!r}; allowed are {', '.join(get_args(allowed))}")
        if not isinstance(self.channels_last, bool):
            raise ValueError(f"channels_last is {self.channels_last!r}; allowed are True, False")
        if isinstance(self.batch, bool) or not isinstance(self.batch, int) or self.batch < 1:
            raise ValueError(f"batch is {self.batch!r}; allowed are whole numbers from 1 up")


def check_runtime(device: str, precision: str) -> None:
    """Raise ValueError for an unknown device or number format."""
    if device not in ("cpu", "cuda"):
        raise ValueError(f"unknown device {device!r}; allowed: cpu, cuda")
    if precision not in AUTOCAST:
        raise ValueError(f"unknown precision {precision!r}; allowed: {', '.join(AUTOCAST)}")
