"""Speed: what the model meets while it is measured, and errors."""

import shutil
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import backbones
from harness.cells import Runtime, Speed
from harness.measures import speed
from harness.measures.memory import peak_memory
from harness.measures.quiet import UNWATCHED, Watch
from harness.measures.speed import measure_backbone, measure_speed, prepare, sample
from harness.process.errors import is_out_of_memory
from harness.process.usage import Usage
from tests.on_a_gpu import DEVICES

IMAGE, CLASSES = (3, 6, 5), 4
SEEN: set[tuple[str, object]] = set()


class Probe(nn.Module):
    """A small model that notes in SEEN how it is run."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        SEEN.add(("compiling", torch.compiler.is_compiling()))
        SEEN.add(("batch", len(x)))
        SEEN.add(("channels_last", x.is_contiguous(memory_format=torch.channels_last)))
        SEEN.add(("training", self.training))
        x = self.head(self.conv(x).mean((2, 3)))
        SEEN.add(("dtype", x.dtype))
        return x


@pytest.fixture(autouse=True)
def _forget():
    SEEN.clear()


def seen(what: str) -> set[object]:
    return {value for name, value in SEEN if name == what}


def run(runtime: Runtime, model: Callable[[], nn.Module] = Probe) -> dict:
    return measure_speed(model, IMAGE, CLASSES, runtime, 1e-3, lambda line: None)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_speed_wants_a_time_of_work(seconds):
    with pytest.raises(ValueError, match=f"^min_seconds is {seconds!r}; allowed are numbers above 0$"):
        Speed(min_seconds=seconds)


def test_metrics_fit_together():
    metrics = run(Runtime(batch=3))
    for label, prefix in (("latency", ""), ("train_step", "train_")):
        quartiles = [metrics[f"{label}_ms_p{percent}"] for percent in (25, 50, 75)]
        assert quartiles == sorted(quartiles)
        assert quartiles[0] > 0
        assert metrics[f"{prefix}images_per_s"] == pytest.approx(3 / quartiles[1] * 1e3)
        assert metrics[f"{label}_samples"] >= speed.MIN_SAMPLES
    for work in ("infer", "train"):
        assert metrics[f"{work}_peak_allocated_mib"] is None
        assert metrics[f"{work}_peak_reserved_mib"] is None


def test_what_others_did_is_among_the_metrics():
    """Of inference and training each, from what the kernel would say."""
    total = Usage(0, 0, 0, 0, 0, 0, 0, 0)

    def read() -> Usage:
        nonlocal total
        total += Usage(1.0, 1.0, 2.0, waited=1.0, others=0.5, stolen=0.0, throttled=0.0, switches=9)
        return total

    watching = Watch(read, lambda: None, lambda: None)
    metrics: dict[str, Any] = measure_speed(Probe, IMAGE, CLASSES, Runtime(), 1e-3, lambda line: None, watching)
    for work in ("infer", "train"):
        assert metrics[f"{work}_disturbed"].startswith("threads waited 50 % of their time for a core")
        assert metrics[f"{work}_waited_share"] == 0.5
        assert metrics[f"{work}_others_share"] == 0.25
        assert metrics[f"{work}_stolen_share"] == 0.0
        assert metrics[f"{work}_cores_used"] == 1.0
        assert 0 < metrics[f"{work}_dropped_share"] < 1


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_model_meets_the_whole_batch_in_both_modes(channels_last):
    run(Runtime(batch=5, channels_last=channels_last))
    assert seen("batch") == {5}
    assert seen("channels_last") == {channels_last}
    assert seen("training") == {False, True}
    assert seen("compiling") == {False}


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_precision_is_that_of_autocast(precision, dtype):
    run(Runtime(batch=2, precision=precision))
    assert seen("dtype") == {dtype}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_training_step_trains(precision):
    model = Probe()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    prepare(model, IMAGE, CLASSES, Runtime(batch=2, precision=precision), "train")()
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_inference_keeps_no_graph():
    assert prepare(Probe(), IMAGE, CLASSES, Runtime(batch=2), "infer")().is_inference()


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("device", DEVICES)
def test_compiled(device):
    run(Runtime(device, batch=2, mode="compiled"))
    assert seen("compiling") == {True}


def test_a_task_measures_a_backbone():
    lines: list[str] = []
    spec = backbones.preset("deit_micro", attention="focused", in_channels=1, num_classes=3)
    metrics: dict[str, Any] = measure_backbone(spec, Speed(Runtime(batch=1), min_seconds=1e-3), lines.append)
    assert metrics["images_per_s"] > 0
    assert lines
    assert all("\n" not in line for line in lines)


def test_numerics_are_put_back():
    torch.set_float32_matmul_precision("high")
    try:
        before = torch.backends.cudnn.benchmark
        run(Runtime(batch=1))
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.benchmark == before
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.skipif(sys.platform != "linux", reason="the peak resident set is read from /proc")
def test_peak_resident_set_is_that_of_the_work():
    # What was freed before lies in the heap, below something that is still in use; the work would fit into it.
    freed = [bytearray(100_000) for _ in range(5_000)]
    in_use = bytearray(100_000)
    del freed
    much, little = (peak_memory(partial(torch.ones, mib * 2**18), "cpu")["peak_rss_mib"] for mib in (200, 1))
    if much is None:
        pytest.skip("this system does not reset the peak resident set")
    # The larger came first, so a peak that is not reset would be the same.
    assert in_use
    assert little is not None
    assert 150 < much - little < 250


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_named():
    with pytest.raises(
        ValueError, match="device cuda was asked for, but torch finds no CUDA device here; allowed: cpu"
    ):
        run(Runtime(device="cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_gpu(precision):
    metrics = run(Runtime(device="cuda", precision=precision, batch=8))
    assert metrics["latency_ms_p50"] > 0
    assert metrics["train_step_ms_p50"] > metrics["latency_ms_p50"]
    for work in ("infer", "train"):
        # The buffer that flushes the cache is no memory of the model's.
        assert 0 < metrics[f"{work}_peak_allocated_mib"] < speed.L2_BYTES / 2**20
        assert metrics[f"{work}_peak_reserved_mib"] >= metrics[f"{work}_peak_allocated_mib"]
        assert metrics[f"{work}_peak_rss_mib"] is None


def test_outputs_that_are_not_finite_have_no_speed():
    class Broken(Probe):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) / 0

    with pytest.raises(FloatingPointError, match="not finite"):
        run(Runtime(batch=1), Broken)


@pytest.mark.parametrize("device", DEVICES)
def test_running_out_of_memory_is_recognised(device):
    class Huge(Probe):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.empty(2**48, device=x.device).sum()

    with pytest.raises(RuntimeError) as caught:
        run(Runtime(device, batch=1), Huge)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(("seconds", "samples"), [(0.125, 16), (1.0, 10)], ids=["time", "number"])
def test_samples_until_both_time_and_number_suffice(seconds, samples):
    assert sample(lambda: None, lambda call: seconds, UNWATCHED, min_seconds=2.0).times == [seconds] * samples
