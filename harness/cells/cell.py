"""`Cell`: one thing to measure, and the key under which its record is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property, lru_cache
from typing import Any

from backbones import BackboneSpec, preset, presets
from harness.cells.preprocessing import Preprocessing
from harness.cells.runtime import LATER
from harness.cells.tasks import Costs, Evaluate, Imported, Speed, Train
from harness.cells.weights import RunWeights, Which

Task = Costs | Speed | Train | Evaluate | Imported


@dataclass(frozen=True)
class Cell:
    """One task on one backbone. Values are embedded rather than named, so a cell means the same everywhere."""

    backbone: BackboneSpec
    task: Task

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits: the hash of all values that are compared for equality. A label does not change it."""
        return hashlib.sha256(json.dumps(self._compared(self.to_json()), sort_keys=True).encode()).hexdigest()[:16]

    def equals(self, plain: dict[str, Any]) -> bool:
        """Return whether the JSON of a record is that of this cell, in all values that are compared for equality."""
        return self._compared(plain) == self._compared(self.to_json())

    def _compared(self, plain: dict[str, Any]) -> dict[str, Any]:
        return {
            part: _compared_in(value, plain[part]) for part, value in (("backbone", self.backbone), ("task", self.task))
        }

    @property
    def label(self) -> str:
        """For people: backbone, the replaced values of its preset, attention, task and its circumstances."""
        return f"{self._model} {self.task.label}"

    @property
    def _model(self) -> str:
        replaced = "".join(f" {name}={value}" for name, value in _replaced(self.backbone).items())
        return f"{self.backbone.name}{replaced} {self.backbone.attention}"

    @property
    def device(self) -> str:
        """Where it is measured: cpu or cuda."""
        match self.task:
            case Speed(runtime=runtime):
                return runtime.device
            case Train(device=device) | Evaluate(device=device):
                return device
        return "cpu"

    @property
    def takes(self) -> RunWeights | None:
        """The weights of another cell that this one starts from or evaluates; None without."""
        match self.task:
            case Train(weights=RunWeights() as weights) | Evaluate(weights=RunWeights() as weights):
                return weights
        return None

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of the cells that must be done before this one: the training whose weights it takes, if any."""
        return () if self.takes is None else (self.takes.run,)

    def weights(self, which: Which = "last", *, ema: bool = False, strict: bool = True) -> RunWeights:
        """Return the weights that this training will leave, for a cell that evaluates them or starts from them.

        Raises ValueError for a cell that trains nothing, or a moving average that its recipe does not keep.
        """
        task = self.training
        if ema and task.recipe.ema_decay is None:
            raise ValueError(f"{self.label}: its recipe keeps no moving average (ema_decay): leave out ema=True")
        label = f"{self._model} {task.data.name} {task.recipe.total_epochs} epochs seed {task.seed}"
        return RunWeights(run=self.key, label=label, which=which, ema=ema, strict=strict)

    def evaluation(
        self, preprocessing: Preprocessing | None = None, which: Which = "last", *, ema: bool = False
    ) -> Cell:
        """Return the cell that evaluates the weights of this training, on its val images, device and precision.

        `preprocessing`: default: that of the recipe. Raises ValueError as `weights` does.
        """
        task = self.training
        view = preprocessing or task.recipe.evaluation
        weights = self.weights(which, ema=ema)
        return Cell(self.backbone, Evaluate(weights, task.data, view, task.device, task.precision))

    @property
    def training(self) -> Train:
        """The task of a cell that trains. Raises ValueError for any other cell."""
        if not isinstance(self.task, Train):
            raise ValueError(f"{self.label}: a {self.task.name} cell leaves no weights; a train cell does")
        return self.task

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, as they are in the record."""
        plain = {"backbone": self.backbone.to_json(), "task": {"name": self.task.name, **_plain(self.task)}}
        return json.loads(json.dumps(plain))


def distinct(cells: Iterable[Cell]) -> list[Cell]:
    """Return each cell once, in order of first appearance."""
    return list({cell.key: cell for cell in cells}.values())


def in_order(cells: Iterable[Cell]) -> list[Cell]:
    """Return each cell once, after those that it needs; otherwise in their own order."""
    by_key = {cell.key: cell for cell in cells}
    placed: dict[str, Cell] = {}

    # There are no circles: a key is the hash of all that a cell is, including the keys of those that it needs.
    def place(key: str) -> None:
        if key in by_key and key not in placed:
            for needed in by_key[key].needs:
                place(needed)
            placed[key] = by_key[key]

    for key in by_key:
        place(key)
    return list(placed.values())


def _plain(value: Any) -> Any:
    """Return a value as plain JSON; of dataclasses, without the later fields that have their default."""
    if is_dataclass(value):
        told = {f.name: (f, getattr(value, f.name)) for f in fields(value)}
        return {name: _plain(x) for name, (f, x) in told.items() if not (LATER in f.metadata and x == f.default)}
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _compared_in(value: object, plain: Any) -> Any:
    """Return the JSON of a dataclass without the fields that its equality ignores, at any depth."""
    if not is_dataclass(value) or not isinstance(plain, dict):
        return plain
    ignored = {f.name for f in fields(value) if not f.compare}
    return {name: _compared_in(getattr(value, name, None), each) for name, each in plain.items() if name not in ignored}


def _replaced(spec: BackboneSpec) -> dict[str, Any]:
    """Return the values of a spec that differ from the preset it is named after, except the attention."""
    if spec.name not in presets():
        return {}
    own = _plain_preset(spec.name)
    return {name: value for name, value in spec.to_json().items() if name != "attention" and value != own[name]}


@lru_cache
def _plain_preset(name: str) -> dict[str, Any]:
    return preset(name).to_json()
