"""The formats of exported graphs, the runtime that runs each, and the packages that both need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from attentions import unknown


@dataclass(frozen=True)
class Int8:
    """How a graph becomes int8: what makes it, with which options, and the further packages that this needs.

    `calibrated`: whether it is made on images, by which the ranges of all inputs are fixed; otherwise those of matrix
    products are found when they come.
    """

    quantiser: str
    options: dict[str, Any]
    calibrated: bool = False
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """How a file ends, which runtime runs it, what exports it, and the opset of its operators (None: it has none).

    `needs`: packages, torch apart, to export and to run it; `extra` installs them.
    """

    ending: str
    runtime: str
    exporter: str
    opset: int | None
    needs: tuple[str, ...] = ()
    extra: str = ""
    int8: Int8 | None = None

    def versions(self, *, int8: bool = False) -> dict[str, str]:
        """Return the versions of torch and of what it needs, in int8 too. Raises ValueError for what is missing."""
        further = self.int8.needs if int8 and self.int8 else ()
        found = {}
        for package in ("torch", *self.needs, *further):
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                raise ValueError(
                    f"{self.runtime} needs {package}, which is not installed: pip install -e '.[{self.extra}]'"
                ) from None
        return found


ONNX = ("onnx", "onnxscript")

# Convolutions stay: ONNX Runtime has none in int8 for a CPU that takes weights with a sign.
DYNAMIC = Int8(
    "onnxruntime.quantization.quantize_dynamic", {"op_types_to_quantize": ["MatMul", "Gemm"], "per_channel": True}
)

# NNCF's choice for models with attentions.
POST_TRAINING = Int8(
    "nncf.quantize", {"preset": "mixed", "model_type": "transformer"}, calibrated=True, needs=("nncf",)
)

FORMATS = {
    "torch-export": Format(".pt2", "torch", "torch.export", None),
    "onnx": Format(".onnx", "onnxruntime", "torch.onnx", 18, ("onnxruntime", *ONNX), "onnxruntime", DYNAMIC),
    # By way of ONNX: it is what users of OpenVINO export.
    "openvino": Format(".xml", "openvino", "torch.onnx", 18, ("openvino", *ONNX), "openvino", POST_TRAINING),
}

INT8 = [name for name, each in FORMATS.items() if each.int8]
"""The formats that graphs in int8 have."""

RUNTIMES = {each.runtime: name for name, each in FORMATS.items()}
"""The format that each runtime runs, by the runtime's name."""


def format_named(name: str) -> Format:
    """Return a format. Raises ValueError, in one line, for an unknown one."""
    if name not in FORMATS:
        raise ValueError(unknown("format", name, FORMATS))
    return FORMATS[name]


def check_installed(runtimes: Iterable[str]) -> None:
    """Raise ValueError, in one line, unless all packages of these runtimes are installed."""
    for runtime in runtimes:
        FORMATS[RUNTIMES[runtime]].versions()
