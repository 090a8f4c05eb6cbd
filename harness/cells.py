"""`Cell`: one thing to measure, and the key under which its record is found."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Any

from backbones import BackboneSpec, preset, presets
from harness.costs import Costs
from harness.evaluate import Evaluate
from harness.speed import Speed
from harness.train import Train

Task = Costs | Speed | Train | Evaluate


@dataclass(frozen=True)
class Cell:
    """One task on one backbone. Values are embedded rather than named, so a cell means the same wherever it runs."""

    backbone: BackboneSpec
    task: Task

    @property
    def key(self) -> str:
        """16 hexadecimal digits: the hash of all values that equality looks at. A label does not change it."""
        return hashlib.sha256(json.dumps(self._identity(self.to_json()), sort_keys=True).encode()).hexdigest()[:16]

    def equals(self, plain: dict[str, Any]) -> bool:
        """Whether the JSON of a record is that of this cell, in all values that equality looks at."""
        return self._identity(plain) == self._identity(self.to_json())

    def _identity(self, plain: dict[str, Any]) -> dict[str, Any]:
        return {
            part: _compared(value, plain[part]) for part, value in (("backbone", self.backbone), ("task", self.task))
        }

    @property
    def label(self) -> str:
        """For people: backbone, what of its preset was replaced, attention, task and its circumstances."""
        replaced = "".join(f" {name}={value}" for name, value in _replaced(self.backbone).items())
        return f"{self.backbone.name}{replaced} {self.backbone.attention} {self.task.label}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, as they stand in the record."""
        plain = {"backbone": self.backbone.to_json(), "task": {"name": self.task.name, **asdict(self.task)}}
        return json.loads(json.dumps(plain))


def _compared(value: object, plain: Any) -> Any:
    """The JSON of a dataclass without the fields that its equality ignores, those of its parts included."""
    if not is_dataclass(value) or not isinstance(plain, dict):
        return plain
    ignored = {f.name for f in fields(value) if not f.compare}
    return {name: _compared(getattr(value, name, None), each) for name, each in plain.items() if name not in ignored}


def _replaced(spec: BackboneSpec) -> dict[str, Any]:
    """The values of a spec that are not those of the preset it is named after, but for the attention."""
    if spec.name not in presets():
        return {}
    own = _plain_preset(spec.name)
    return {name: value for name, value in spec.to_json().items() if name != "attention" and value != own[name]}


@lru_cache
def _plain_preset(name: str) -> dict[str, Any]:
    return preset(name).to_json()
