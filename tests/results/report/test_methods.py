"""Sentences about how numbers were measured: they say what the records say, and nothing of what was not measured."""

from typing import Any

from results import Record
from results.report.methods import methods
from tests.results.report.pages import quickstart


def of(task: str) -> list[Record]:
    return [record for record in quickstart() if record.cell["task"]["name"] == task]


def test_each_task_has_its_own_sentences() -> None:
    costs, versions = methods(of("costs"))
    assert costs.startswith("Multiply-adds (GMACs)")
    assert versions == "Measured with torch 2.14.1+cu130 and timm 1.0.31, at commit a089b8387e of attention-bench."
    speeds = methods(of("speed"))[0]
    assert "Intel(R) Xeon(R) Processor, 2 threads; batch 64, precision fp32, eager mode" in speeds
    assert "over at least 1 s of work" in speeds
    assert " 1 of 9 measurements was disturbed" in speeds
    training = methods(of("train"))[0]
    assert "fashion_mnist_14k for 3 epochs with AdamW (batch 64, learning rate 0.024 per 512 images" in training
    assert "1 seed (0)" in training
    assert "on 2,000 images" in training
    assert "paired" not in training
    assert "cover both choices, and p-values are corrected" in methods(of("train"), 5)[0]
    assert "of one seed: their 95 % intervals cover the choice of images alone" in methods(of("train"), 1)[0]
    assert methods([]) == []


def test_runtimes_are_named_where_one_is_not_torch(make: Any) -> None:
    tasks = [make.speed(), make.speed(runtime="openvino", version="2.0")]
    records = [make.record(f"k{n}", make.cell("swin_t", "softmax", task)) for n, task in enumerate(tasks)]
    assert "eager mode, runtime torch, openvino 2.0)" in methods(records)[0]
    assert "runtime" not in methods(records[:1])[0]


def test_weights_from_files() -> None:
    cell = {"backbone": {"name": "a", "attention": "b"}, "task": {"name": "evaluate", "data": {"name": "imagenet"}}}
    found = methods([Record("a", cell, "done", {"n_images": 50000}, {"dirty": True, "commit": "c" * 40})])
    assert found == [
        "Given weights were evaluated on 50,000 val images of imagenet.",
        "Measured at commit cccccccccc of attention-bench (1 record with changes that were not committed).",
    ]
