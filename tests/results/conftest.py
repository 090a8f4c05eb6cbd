"""Cells and records as the harness writes them, without the harness."""

from typing import Any, ClassVar

import pytest

from results import Record

COMMIT = "0123456789" * 4


class Make:
    """Short ways to say a cell or a record; every value that matters to a test is in the test."""

    @staticmethod
    def cell(backbone: str, attention: str, task: dict[str, Any], **model: Any) -> dict[str, Any]:
        return {"backbone": {"name": backbone, "attention": attention, "image_size": [224, 224], **model}, "task": task}

    costs: ClassVar = {"name": "costs"}

    @staticmethod
    def speed(**runtime: Any) -> dict[str, Any]:
        default = {"device": "cpu", "precision": "fp32", "mode": "eager", "channels_last": False, "batch": 64}
        return {"name": "speed", "runtime": {**default, **runtime}, "min_seconds": 2.0}

    @staticmethod
    def train(seed: int = 0, epochs: int = 3, data: str = "fashion_mnist") -> dict[str, Any]:
        return {
            "name": "train",
            "recipe": {"epochs": epochs, "lr": 1e-3},
            "data": {"name": data, "path": None},
            "seed": seed,
        }

    @staticmethod
    def evaluate(file: str = "swin_t.pth", kind: str = "short_side", **changes: Any) -> dict[str, Any]:
        return {
            "name": "evaluate",
            "weights": {"digest": f"digest of {file}", "ema": False, "strict": True, "path": f"/weights/{file}"},
            "data": {"name": "imagenet", "root": "/data/imagenet"},
            "preprocessing": {"kind": kind, "crop_pct": 0.875, "interpolation": "bicubic", "mean": [0.5, 0.5, 0.5]},
            "precision": "fp32",
            **changes,
        }

    @staticmethod
    def evaluate_run(run: str, kind: str = "short_side", **changes: Any) -> dict[str, Any]:
        weights = {"run": run, "label": f"run {run}", "which": "last", "ema": False, "strict": True, **changes}
        return Make.evaluate(kind=kind, weights=weights)

    @staticmethod
    def record(key: str, cell: dict[str, Any], metrics: dict[str, Any] | None = None, **changes: Any) -> Record:
        environment = {"commit": COMMIT, "torch": "2.11.0", "threads": 2, "host": "a", "date": key}
        values = {"status": "done", "environment": environment, **changes}
        return Record(key=key, cell=cell, metrics=metrics or {}, **values)


@pytest.fixture
def make() -> type[Make]:
    return Make
