"""Records as runs would have left them, with the speeds that a test needs."""

from typing import Any

from backbones import BackboneSpec
from harness.cells import MICRO, Cell, DataSource, Runtime, Speed, Task, Train
from results import Record

FASHION = DataSource("fashion_mnist_14k")


def record(cell: Cell, metrics: dict[str, Any], status: str = "done", created: str = "2026-01-01") -> Record:
    """A record of a cell; `created` is a date."""
    environment = {"device_name": "a planted machine"}
    return Record(cell.key, cell.to_json(), status, metrics, environment, created=f"{created}T00:00:00+00:00")


def speed(spec: BackboneSpec, per_s: float, created: str = "2026-01-01", **runtime: Any) -> Record:
    """Of `per_s` images a second in training, and four times as many in inference."""
    metrics = {"images_per_s": 4 * per_s, "train_images_per_s": per_s}
    return record(Cell(spec, Speed(Runtime(**runtime))), metrics, created=created)


def trained(spec: BackboneSpec, per_s: float, ranks: int = 1, task: Task | None = None) -> Record:
    """Of a training at `per_s` images a second on all ranks together."""
    metrics = {"loop_images_per_s": per_s, "ranks": ranks, "device_batch": MICRO.batch // ranks}
    return record(Cell(spec, task or Train(MICRO, FASHION)), metrics)
