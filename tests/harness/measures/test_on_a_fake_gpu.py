"""What `Speed` does with a GPU, up to its kernels and their times: events, layout, precision, nothing that waits."""

from typing import Any

import pytest
import torch

from attentions import AttentionSpec
from harness.cells import Runtime, Speed
from harness.cells.runtime import Precision
from harness.estimates.rates import Load, Rates
from harness.measures import speed
from harness.measures.comparison import PARTS, compare
from harness.measures.speed import measure_backbone, prepare, timer
from tests.fake_gpu import fake_gpu
from tests.harness.small_training import deit

SPEC = deit(depth=1, attention=AttentionSpec("focused"))


@pytest.fixture(autouse=True)
def _few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "MIN_SAMPLES", 2)


@pytest.mark.parametrize(("precision", "channels_last"), [("fp32", True), ("fp16", False)])
def test_nothing_waits_while_it_is_timed(precision: Precision, channels_last: bool) -> None:
    task = Speed(Runtime("cuda", precision, channels_last=channels_last, batch=2), min_seconds=1e-6)
    with fake_gpu() as gpu:
        metrics: dict[str, Any] = measure_backbone(SPEC, task, lambda line: None)
    assert gpu.waits, "it waits for its events"
    assert not gpu.timed_waits, gpu.timed_waits
    assert not gpu.uploads, "a batch is made on the GPU"
    assert not gpu.doubles
    assert metrics["latency_samples"] >= 2
    assert metrics["sm_clock_mhz_before"] == metrics["sm_clock_mhz_after"] == 1000
    for work in ("infer", "train"):
        assert metrics[f"{work}_peak_allocated_mib"] == 1
        assert metrics[f"{work}_peak_reserved_mib"] == 2
        assert metrics[f"{work}_peak_rss_mib"] is None


def test_what_waits_while_it_is_timed_is_found() -> None:
    runtime = Runtime("cuda", batch=2)
    with fake_gpu() as gpu:
        step = prepare(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)), (3, 2, 2), 3, runtime, "train")
        timer("cuda")(step)
        assert not gpu.timed_waits
        timer("cuda")(lambda: step().item())
    assert gpu.timed_waits.total() == 1


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_layout_reaches_the_gpu(channels_last: bool) -> None:
    seen = []

    class Look(torch.nn.Conv2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            seen.append([x.is_contiguous(memory_format=torch.channels_last) for x in (input, self.weight)])
            return super().forward(input).mean((2, 3))

    with fake_gpu():
        prepare(Look(3, 4, 3), (3, 6, 5), 4, Runtime("cuda", channels_last=channels_last, batch=2), "infer")()
    assert seen == [[channels_last, channels_last]]


def test_two_are_compared_and_a_rate_is_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.estimates.rates.PROBE_SECONDS", 1e-6)
    with fake_gpu() as gpu:
        assert compare(SPEC, SPEC, Runtime("cuda", "fp16", batch=2), "infer", min_seconds=1e-6).blocks == PARTS
        assert Rates((), 1).of(Load(SPEC, "infer", "cuda", "bf16", batch=2), probe=True).basis == "probe"
    assert not gpu.timed_waits
