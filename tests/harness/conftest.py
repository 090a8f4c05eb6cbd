"""Cells that take no time: a task that counts its runs, for what is about cells and not about measuring."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from attentions import temporary_registry
from attentions._source import USER_PREFIX
from backbones import BackboneSpec, preset
from harness.cells import Cell
from tests.harness.command_line import ask as ask
from tests.harness.on_slurm import place as place
from tests.slurm.cluster import slurm as slurm
from tests.slurm.cluster import slurm_conf as slurm_conf
from tests.slurm.cluster import unaccounted as unaccounted


@dataclass(frozen=True)
class Counting:
    """Writes a line to `folder`/runs each time it is run, and fails as it is told."""

    name: ClassVar[str] = "counting"
    label: ClassVar[str] = "counting"

    log: str
    fails: str = ""

    def run(self, spec: BackboneSpec, folder: Path, report: Callable[[str], None]) -> dict[str, Any]:
        report("counting")
        with open(self.log, "a") as stream:
            stream.write(f"{spec.attention}\n")
        match self.fails:
            case "error":
                raise RuntimeError("planted failure")
            case "memory":
                raise MemoryError("planted shortage")
            case "interrupt":
                raise KeyboardInterrupt
            case "value":
                return {"params_m": 1.0, "model": object()}
        return {"params_m": 1.0}


@pytest.fixture
def users_files() -> Iterator[None]:
    """Of the user's files only those of this test are loaded: a submission copies all of them."""
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith(USER_PREFIX)}
    with temporary_registry():
        yield
    sys.modules.update(before)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def counting(log: Path) -> Callable[..., Cell]:
    """Make a cell of the counting task: counting(attention="linear", fails="")."""

    def make(attention: str = "softmax", fails: str = "") -> Cell:
        return Cell(preset("deit_micro", attention=attention), Counting(str(log), fails))  # type: ignore[arg-type]

    return make
