"""Small things to export, in modules that the exporting process can import; and what may be wrong with a runtime."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attentions import AttentionSpec, Grid, Site
from backbones import build, preset
from harness.runtimes import formats, sessions
from harness.runtimes.exports import Exportable
from harness.runtimes.sessions import Run

SITE = Site(16, 2, Grid(4, 5), Grid(4, 5))


def attention(text: str = "linear", seed: int = 0) -> Exportable:
    """An attention at a small site, with two entries."""
    spec = AttentionSpec.parse(text)
    torch.manual_seed(seed)
    module = spec.build(SITE).eval()
    return Exportable(module, tuple(torch.randn(2, 20, 16) for _ in range(3)), spec, at="a small site")


def model(name: str, text: str, seed: int = 0) -> Exportable:
    """A preset with an attention, of two images."""
    spec = preset(name, attention=text)
    torch.manual_seed(seed)
    return Exportable(build(spec).eval(), (torch.randn(2, spec.in_channels, *spec.image_size),), spec)


class Scale(nn.Module):
    """Three products with a parameter; where `asks`, of a number that is known only when it runs."""

    def __init__(self, value: float, *, asks: bool = False) -> None:
        super().__init__()
        self.scale, self.asks = nn.Parameter(torch.full((16,), value)), asks

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.asks and float(q.sum()) > 0:
            return v * self.scale
        return q * k * v * self.scale


def scale(value: float, *, asks: bool = False) -> Exportable:
    """What is quick to export."""
    torch.manual_seed(0)
    args = tuple(torch.randn(2, 20, 16) for _ in range(3))
    return Exportable(Scale(value, asks=asks).eval(), args, AttentionSpec.of("softmax"))


def plant_wrong(
    monkeypatch: pytest.MonkeyPatch, runtime: str = "onnxruntime", where: Callable[[Path], bool] = lambda file: True
) -> None:
    """Make the outputs of a runtime wrong by 1 %, for the files of graphs that are chosen."""
    open_right = sessions._OPEN[runtime]

    def open_wrong(file: Path, threads: int) -> tuple[Run, str]:
        run, device = open_right(file, threads)
        factor = 1.01 if where(file) else 1.0

        def wrong(args: tuple[Tensor | None, ...], kwargs: dict[str, Tensor | None]) -> Tensor:
            return factor * run(args, kwargs)

        return wrong, device

    monkeypatch.setitem(sessions._OPEN, runtime, open_wrong)


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Have a package not be installed, as formats see it."""

    def version(name: str) -> str:
        if name == package:
            raise PackageNotFoundError
        return "1.0"

    monkeypatch.setattr(formats, "version", version)
