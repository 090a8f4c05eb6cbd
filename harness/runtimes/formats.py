"""The formats of exported graphs, the runtime that runs each, and the packages that both need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from attentions import unknown


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

    def versions(self) -> dict[str, str]:
        """Return the versions of torch and of what it needs. Raises ValueError, in one line, for what is missing."""
        found = {}
        for package in ("torch", *self.needs):
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                raise ValueError(
                    f"{self.runtime} needs {package}, which is not installed: pip install -e '.[{self.extra}]'"
                ) from None
        return found


ONNX = ("onnx", "onnxscript")

FORMATS = {
    "torch-export": Format(".pt2", "torch", "torch.export", None),
    "onnx": Format(".onnx", "onnxruntime", "torch.onnx", 18, ("onnxruntime", *ONNX), "onnxruntime"),
    # By way of ONNX: it is what users of OpenVINO export.
    "openvino": Format(".xml", "openvino", "torch.onnx", 18, ("openvino", *ONNX), "openvino"),
}

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
