"""Estimates: images over rates, with evaluations, reading and disk; what cannot be known is said to be unknown."""

from dataclasses import replace
from pathlib import Path

import pytest

from backbones import preset
from harness.cells import MICRO, Cell, Costs, DataSource, Evaluate, Runtime, Speed, Train, Weights
from harness.estimates import rates
from harness.estimates.estimate import (
    ARRAYS_PER_S,
    COMPILING,
    COUNTING,
    EXPORTING,
    FILES_PER_S,
    Estimate,
    Estimator,
)
from harness.measures.speed import MIN_SAMPLES
from harness.training.room import RECORD_BYTES, run_bytes
from results import Record
from tests.harness.image_sets import coloured
from tests.harness.planted import FASHION, speed, trained

SPEC = preset("deit_micro")
TRAIN = Train(MICRO, FASHION)
UPDATES = 12_000 // MICRO.batch * MICRO.epochs  # of the embedded set's 12,000 training images
VAL = 2_000
PHOTOS = Train(replace(MICRO, augmentation="imagenet"), DataSource("imagenet", root="/nowhere"))


def estimated(task: object, *records: Record, processes: int = 1) -> Estimate:
    return Estimator(records, cores=2).estimate(Cell(SPEC, task), processes)  # type: ignore[arg-type]


def seconds(task: object, *records: Record, processes: int = 1) -> float:
    found = estimated(task, *records, processes=processes).seconds
    assert found is not None
    return found


def test_a_training_takes_its_updates_and_evaluations_at_the_recorded_rates():
    found = estimated(replace(TRAIN, seed=1), trained(SPEC, 100.0), speed(SPEC, 50.0))
    evaluations = MICRO.epochs * VAL * (1 / 200 + 1 / ARRAYS_PER_S)
    assert found.seconds == pytest.approx(UPDATES * MICRO.batch / 100 + evaluations)
    assert (found.basis, found.device, found.processes) == ("recorded", "cpu", 1)


def test_processes_share_the_work():
    alone, together = (estimated(TRAIN, speed(SPEC, 100.0), processes=n) for n in (1, 4))
    assert alone.seconds == pytest.approx(4 * (together.seconds or 0))
    assert together.processes == 4


def test_a_moving_average_is_evaluated_too():
    averaged = replace(TRAIN, recipe=replace(MICRO, ema_decay=0.9))
    more = seconds(averaged, trained(SPEC, 100.0)) - seconds(TRAIN, trained(SPEC, 100.0))
    assert more == pytest.approx(MICRO.epochs * VAL * (1 / 300 + 1 / ARRAYS_PER_S))


def test_reading_images_bounds_a_rate_that_was_measured_without():
    fast = speed(SPEC, 1e9)
    images = 1_281_167 // MICRO.batch * MICRO.batch + 50_000
    for workers in (1, 4):
        found = estimated(replace(PHOTOS, workers=workers), fast)
        assert found.seconds == pytest.approx(MICRO.epochs * images / FILES_PER_S / workers)
        assert "mostly for reading images" in found.note
    assert "reading" not in estimated(PHOTOS, speed(SPEC, 10.0)).note


def test_a_training_on_the_same_images_tells_the_time_to_read_them():
    done = trained(SPEC, 1e9, task=PHOTOS)
    assert seconds(replace(PHOTOS, seed=1), done) == pytest.approx(MICRO.epochs * 50_000 / FILES_PER_S, rel=0.01)


def test_kept_crops_are_read_once():
    fast = trained(SPEC, 1e9, task=PHOTOS)
    assert seconds(replace(PHOTOS, cache="crops"), fast) == pytest.approx(50_000 / FILES_PER_S, rel=0.01)


def test_an_evaluation_takes_the_val_images_at_the_rate_of_inference():
    found = estimated(Evaluate(Weights(digest="0" * 16, path="w.pt"), FASHION, cache="crops"), speed(SPEC, 100.0))
    assert found.seconds == pytest.approx(VAL / 400 + VAL / ARRAYS_PER_S)
    assert found.disk_bytes == RECORD_BYTES + VAL // 8
    assert found.crops is not None
    assert found.crops.bytes == VAL * 3 * 32 * 32


def test_a_measurement_of_speed_takes_the_seconds_it_is_given():
    assert seconds(Speed(min_seconds=2.0), speed(SPEC, 1e9)) == pytest.approx(2 * (2.0 + 2.0 / 4))


def test_a_slow_model_takes_the_fewest_samples():
    slow, runtime = speed(SPEC, 1.0, batch=8), Runtime(batch=8)
    assert seconds(Speed(runtime, 0.1), slow) == pytest.approx((4 + MIN_SAMPLES) * (8 + 8 / 4))


def test_compiling_takes_its_time():
    compiled, fast = Runtime(mode="compiled"), speed(SPEC, 1e9)
    assert seconds(Speed(compiled), fast) - seconds(Speed(), fast) == pytest.approx(COMPILING)
    assert seconds(replace(TRAIN, mode="compiled"), fast) - seconds(TRAIN, fast) == pytest.approx(COMPILING)


def test_in_another_runtime_inference_alone_is_measured_after_an_export():
    found = estimated(Speed(Runtime(runtime="onnxruntime"), min_seconds=2.0), speed(SPEC, 1e9))
    assert found.seconds == pytest.approx(EXPORTING + 2.0 + 2.0 / 4)
    assert found.note.endswith("; as if torch ran it")


def test_what_another_runtime_has_measured_says_nothing_of_torch():
    other = speed(SPEC, 1e-3, runtime="onnxruntime")
    assert estimated(Speed(), other).basis == "GMACs"


def test_counting_takes_longer_for_a_larger_model():
    small, large = (Estimator([]).estimate(Cell(preset(name), Costs())) for name in ("deit_micro", "flatten_cswin_b"))
    assert small.basis == "size"
    assert (small.seconds or 0) < 100 * COUNTING < (large.seconds or 0)


def test_a_speed_is_never_probed_and_a_training_is_if_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rates, "_probed", lambda load: rates.Rate(10.0, "probe", "a probe on this machine"))
    estimator = Estimator([], probe=True)
    assert estimator.estimate(Cell(SPEC, Speed())).basis == "GMACs"
    assert estimator.estimate(Cell(SPEC, TRAIN)).basis == "probe"


def test_a_task_of_a_user_is_unknown(counting):
    found = Estimator([]).estimate(counting())
    assert (found.seconds, found.basis) == (None, "unknown")
    assert "Counting" in found.note


def test_images_that_are_not_here_are_not_counted_and_the_disk_is_known(tmp_path: Path):
    source = DataSource.folder(tmp_path / "elsewhere")
    found = estimated(replace(TRAIN, data=source), speed(SPEC, 100.0))
    assert (found.seconds, found.basis) == (None, "unknown")
    assert str(tmp_path / "elsewhere") in found.note
    assert found.disk_bytes == run_bytes(SPEC, TRAIN)


def test_images_that_are_here_are_counted(tmp_path: Path):
    source = DataSource.folder(coloured(tmp_path / "images", train=24, val=5))
    task = Train(replace(MICRO, batch=8, augmentation="imagenet"), source)
    spec = replace(SPEC, num_classes=3)
    found = Estimator([trained(spec, 1.0, task=task)]).estimate(Cell(spec, task))
    assert found.seconds == pytest.approx(MICRO.epochs * (72 + 15 / 3 + 15 / FILES_PER_S))


def test_val_images_alone_are_enough_for_an_evaluation(tmp_path: Path):
    root = coloured(tmp_path / "images", train=1, val=5)
    (root / "train").rename(tmp_path / "train")
    task = Evaluate(Weights(digest="0" * 16, path="w.pt"), DataSource.folder(root))
    spec = replace(SPEC, num_classes=3)
    assert Estimator([speed(spec, 1.0)]).estimate(Cell(spec, task)).seconds == pytest.approx(15 / 4 + 15 / FILES_PER_S)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="cannot be split evenly among 3 processes"):
        estimated(TRAIN, processes=3)


def test_cores_make_a_rough_estimate_shorter():
    one, four = (Estimator([], cores=cores).estimate(Cell(SPEC, TRAIN)).seconds or 0 for cores in (1, 4))
    assert one == pytest.approx(4 * four, rel=0.1)
