"""Rates: the nearest record is found and named, then a probe, then multiply-adds."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch

from backbones import macs, preset
from harness.cells import MICRO, Cell, Evaluate, Speed, Train, Weights
from harness.estimates import rates
from harness.estimates.rates import CPU_GMACS_PER_S, GPU_GMACS_PER_S, Load, Rates
from harness.measures.quiet import Watch
from harness.measures.speed import prepare
from harness.process.usage import Usage
from results import Record
from tests.harness.planted import FASHION, record, speed, trained

SPEC = preset("swin_micro", attention="linear")
TRAIN = Load(SPEC, "train", "cpu", "fp32", batch=64, data=FASHION.name)
INFER = TRAIN._replace(work="infer")


def rate_of(load: Load, *records: Record, probe: bool = False) -> rates.Rate:
    return Rates(records, cores=2).of(load, probe)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes that take hardly any time."""
    monkeypatch.setattr(rates, "PROBE_SECONDS", 0.0)
    monkeypatch.setattr(rates, "PROBE_CPU_IMAGES", 2)


def test_a_recorded_speed_is_taken_as_it_is():
    found = rate_of(TRAIN, speed(SPEC, 100.0))
    assert (found.images_per_s, found.basis, found.reads) == (100.0, "recorded", False)
    assert found.note == "recorded speed of swin_micro linear on a planted machine"
    assert rate_of(INFER, speed(SPEC, 100.0)).images_per_s == 400.0


def test_a_disturbed_speed_is_no_rate():
    own = speed(SPEC, 100.0)
    disturbed = replace(own, metrics=own.metrics | {"train_disturbed": "threads waited", "infer_disturbed": None})
    assert rate_of(TRAIN, disturbed).note.endswith("scaled by GMACs")  # from that of inference
    assert rate_of(INFER, disturbed).images_per_s == 400.0
    run = trained(SPEC, 60.0)
    assert rate_of(TRAIN, replace(run, metrics=run.metrics | {"loop_disturbed": "others"})).basis == "GMACs"


def test_a_disturbed_probe_says_so(quick: None, monkeypatch: pytest.MonkeyPatch):
    busy = Usage(1.0, 1.0, 2.0, waited=1.0, others=1.0)
    total = Usage(0.0, 0.0, 0.0, waited=0.0, others=0.0, stolen=0.0, throttled=0.0)

    def read() -> Usage:
        nonlocal total
        total = total + replace(busy, stolen=0.0, throttled=0.0)
        return total

    monkeypatch.setattr(rates, "watch", lambda device: Watch(read, lambda: None, lambda: None))
    found = rate_of(TRAIN, probe=True)
    assert found.note.startswith("a probe on this machine, disturbed: threads waited 50 % of their time for a core")


def test_a_preset_under_another_name_is_the_same_backbone():
    assert rate_of(TRAIN, speed(replace(SPEC, name="mine"), 100.0)).images_per_s == 100.0


def test_a_run_on_the_same_images_is_nearer_than_a_measurement_of_speed_and_knows_the_time_to_read():
    found = rate_of(TRAIN, speed(SPEC, 100.0), trained(SPEC, 60.0))
    assert (found.images_per_s, found.reads) == (60.0, True)


def test_a_run_on_other_images_is_not():
    found = rate_of(TRAIN._replace(data="imagenet"), trained(SPEC, 60.0), speed(SPEC, 100.0))
    assert (found.images_per_s, found.reads) == (100.0, False)


def test_the_speed_of_a_run_is_shared_among_its_ranks():
    assert rate_of(TRAIN, trained(SPEC, 60.0, ranks=2)).images_per_s == 30.0


def test_without_a_speed_of_inference_three_passes_are_a_training_step():
    found = rate_of(INFER, trained(SPEC, 60.0))
    assert found.images_per_s == 180.0
    assert found.note.endswith("scaled by GMACs")


def test_an_evaluation_tells_the_speed_of_inference():
    task = Evaluate(Weights(digest="0" * 16, path="w.pt"), FASHION)
    done = record(Cell(SPEC, task), {"n_images": 2000, "evaluate_seconds": 4.0, "ranks": 2})
    assert rate_of(INFER, done).images_per_s == 250.0


def test_the_nearest_precision_serves_and_is_named():
    load = TRAIN._replace(precision="bf16")
    found = rate_of(load, speed(SPEC, 100.0), speed(SPEC, 150.0, precision="fp16"))
    assert found.images_per_s == 150.0
    assert "in fp16" in found.note


def test_the_nearest_batch_serves():
    records = [speed(SPEC, batch / 10, batch=batch) for batch in (1, 32, 512)]
    assert rate_of(TRAIN, *records).images_per_s == 3.2


def test_another_mode_is_named():
    assert ", compiled" in rate_of(TRAIN, speed(SPEC, 100.0, mode="compiled")).note


@pytest.mark.parametrize("order", [1, -1])
def test_of_equals_the_newest_serves(order):
    old, new = speed(SPEC, 2.0, created="2026-01-02"), speed(SPEC, 3.0, created="2026-01-03")
    assert rate_of(TRAIN, *[old, new][::order]).images_per_s == 3.0


def test_another_attention_of_the_family_is_scaled_by_multiply_adds_and_named():
    softmax = preset("swin_micro")
    found = rate_of(TRAIN, speed(softmax, 100.0))
    assert found.images_per_s == pytest.approx(100.0 * macs(softmax).total / macs(SPEC).total)
    assert found.note == "recorded speed of swin_micro softmax on a planted machine, scaled by GMACs"


@pytest.mark.parametrize(
    "other",
    [
        speed(preset("swin_t"), 7.0),  # of another size altogether
        speed(preset("deit_micro"), 7.0),
        speed(SPEC, 7.0, device="cuda"),
        record(Cell(SPEC, Speed()), {}, status="oom"),
        record(Cell(SPEC, Train(MICRO, FASHION)), {}, status="failed"),
    ],
    ids=["size", "family", "device", "out of memory", "failed"],
)
def test_a_record_that_says_nothing_of_it_is_passed_over(other):
    assert rate_of(TRAIN, other).basis == "GMACs"


def test_records_of_attentions_and_tasks_that_are_not_ours_are_passed_over():
    @dataclass(frozen=True)
    class Theirs:
        name: ClassVar[str] = "speed"
        label: ClassVar[str] = "theirs"

    theirs: Any = Theirs()
    unknown = speed(preset("swin_micro"), 7.0)
    unknown.cell["backbone"]["attention"] = "not_loaded()"
    assert rate_of(TRAIN, record(Cell(SPEC, theirs), {"score": 1.0}), unknown).basis == "GMACs"


@pytest.mark.parametrize(
    ("load", "per_s"),
    [
        (TRAIN._replace(work="infer"), 2 * CPU_GMACS_PER_S),
        (TRAIN, 2 * CPU_GMACS_PER_S / 3),
        (TRAIN._replace(device="cuda", precision="bf16"), GPU_GMACS_PER_S["bf16"] / 3),
    ],
    ids=["inference on two cores", "training on two cores", "training on a GPU"],
)
def test_without_records_multiply_adds_are_divided_by_a_rough_rate(load, per_s):
    found = rate_of(load)
    assert found.images_per_s == pytest.approx(per_s / (macs(SPEC).total / 1e9))
    assert "rough" in found.note


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("load", [TRAIN, INFER], ids=["training", "inference"])
def test_a_probe_runs_the_model_here(load):
    found = rate_of(load, probe=True)
    assert found.basis == "probe"
    assert found.images_per_s > 0


@pytest.mark.usefixtures("quick")
def test_a_probe_is_made_once_for_a_load(monkeypatch):
    made = []

    def noted(*args: Any) -> Callable[[], torch.Tensor]:
        made.append(args)
        return prepare(*args)

    monkeypatch.setattr(rates, "prepare", noted)
    known = Rates([], cores=2)
    assert known.of(TRAIN, probe=True) == known.of(TRAIN, probe=True)
    assert len(made) == 1


@pytest.mark.usefixtures("quick")
def test_a_record_of_the_model_is_nearer_than_a_probe_and_a_probe_than_one_like_it():
    assert rate_of(TRAIN, speed(SPEC, 100.0), probe=True).basis == "recorded"
    assert rate_of(TRAIN, speed(SPEC, 100.0, precision="bf16"), probe=True).basis == "probe"
    assert rate_of(TRAIN, speed(preset("swin_micro"), 100.0), probe=True).basis == "probe"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_probe_without_the_device_is_refused_in_a_line():
    with pytest.raises(ValueError, match=r"^a probe of device cuda [^\n]* torch sees none here[^\n]*$"):
        rate_of(TRAIN._replace(device="cuda"), probe=True)


def test_a_probe_that_runs_out_of_memory_says_so_in_a_line(monkeypatch):
    def prepare(*args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    monkeypatch.setattr(rates, "prepare", prepare)
    with pytest.raises(
        ValueError, match=r"^a probe of swin_micro linear with a batch of 32 [^\n]* out of memory[^\n]*$"
    ):
        rate_of(TRAIN, probe=True)
