"""How a model is run, as a value: device, precision, mode, batch, and which runtime runs it."""

from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, get_args

import torch

Device = Literal["cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16"]
Mode = Literal["eager", "compiled"]
Workload = Literal["infer", "train"]
RuntimeName = Literal["torch", "onnxruntime", "openvino"]

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
AUTOCAST: dict[str, torch.dtype | None] = {"fp32": None, **DTYPES}

LATER = "later"
"""In the metadata of a field that came after the first records: while it has its default it is in no JSON, and so in no
key."""


@dataclass(frozen=True)
class Runtime:
    """How a model is run: what changes a measurement and not the model.

    `precision` is that of autocast over float32 weights (fp32: no autocast and no TF32); `batch` is in images. Another
    `runtime` than torch runs the model as an exported graph, in float32 on the CPU; `version` is that of its package,
    as it is installed where the value is made. Of torch it is None: a record's environment has it.

    Raises ValueError for a value that is not allowed, and a runtime that is not installed; whether the machine has the
    device is checked on use.
    """

    device: Device = "cpu"
    precision: Precision = "fp32"
    mode: Mode = "eager"
    channels_last: bool = False
    batch: int = 64
    runtime: RuntimeName = field(default="torch", metadata={LATER: True})
    version: str | None = field(default=None, init=False, metadata={LATER: True})

    def __post_init__(self) -> None:
        allowed: tuple[tuple[str, Any], ...] = (
            ("device", Device), ("precision", Precision), ("mode", Mode), ("runtime", RuntimeName),
        )  # fmt: skip
        for name, values in allowed:
            value = getattr(self, name)
            if value not in get_args(values):
                raise ValueError(f"unknown {name} {value!r}; allowed are {', '.join(get_args(values))}")
        if not isinstance(self.channels_last, bool):
            raise ValueError(f"channels_last is {self.channels_last!r}; allowed are True, False")
        if isinstance(self.batch, bool) or not isinstance(self.batch, int) or self.batch < 1:
            raise ValueError(f"batch is {self.batch!r}; allowed are whole numbers from 1 up")
        if self.runtime != "torch":
            for name in ("device", "precision", "mode", "channels_last"):
                value, only = getattr(self, name), type(self).__dataclass_fields__[name].default
                if value != only:
                    raise ValueError(f"{self.runtime} is measured with {name} {only}, not {value}")
            object.__setattr__(self, "version", version_of(self.runtime))


def version_of(runtime: str) -> str:
    """Return the version of another runtime than torch. Raises ValueError, in one line, if it is not installed."""
    try:
        return version(runtime)
    except PackageNotFoundError:
        raise ValueError(f"{runtime} is not installed: pip install -e '.[{runtime}]'") from None


def check_runtime(device: str, precision: str) -> None:
    """Raise ValueError for an unknown device or number format."""
    if device not in ("cpu", "cuda"):
        raise ValueError(f"unknown device {device!r}; allowed: cpu, cuda")
    if precision not in AUTOCAST:
        raise ValueError(f"unknown precision {precision!r}; allowed: {', '.join(AUTOCAST)}")
