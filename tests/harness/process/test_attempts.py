"""One run folder, one writer: attempts are numbered, the newest owns the folder, and an older one notices and stops."""

import json
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import results
from backbones import preset
from harness.cells import Cell
from harness.process import attempts as module
from harness.process.attempts import FOLDER, STALE, Attempt, NoAttempt, Sidecar, attempts, current_attempt, read_attempt
from harness.process.stopping import TakenOver
from harness.runner.run import run

CONTEXT = multiprocessing.get_context("fork")


def alone(folder: Path) -> Sidecar:
    (found,), problems = attempts(folder)
    assert problems == []
    return found


def test_the_sidecar_says_who_runs_since_when_and_how_far(tmp_path: Path) -> None:
    began = time.time()
    with Attempt(tmp_path) as attempt:
        found = alone(tmp_path)
        assert (found.number, found.pid, found.job, found.restarts, found.ended) == (1, os.getpid(), None, 0, None)
        assert began <= found.started <= found.beat <= time.time()
        assert found.alive(time.time())
        assert not found.alive(time.time() + STALE)
        attempt.progress(epoch=2, epochs=3, step=70, steps=90, images_per_s=12.5, left_s=60.0)
        attempt.note("epoch 2")
        attempt.end("done")
    found = alone(tmp_path)
    assert (found.text, found.epoch, found.step, found.images_per_s, found.left_s) == ("epoch 2", 2, 70, 12.5, 60.0)
    assert found.ended == "done"
    assert not found.alive(time.time())


def test_signs_of_life_come_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT", 0.05)
    with Attempt(tmp_path):
        first = alone(tmp_path).beat
        end = time.monotonic() + 20
        while alone(tmp_path).beat == first and time.monotonic() < end:
            time.sleep(0.02)
        assert alone(tmp_path).beat > first


@pytest.mark.parametrize(
    ("error", "how"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (SystemExit(140), "stopped on SIGUSR2"),
        (RuntimeError("one\ntwo"), "one"),
    ],
    ids=["interrupt", "warning", "error"],
)
def test_how_it_ended_is_said(tmp_path: Path, error: BaseException, how: str) -> None:
    with pytest.raises(type(error)), Attempt(tmp_path):
        raise error
    assert alone(tmp_path).ended == how


def test_the_newer_attempt_owns_the_folder_and_the_older_one_notices(tmp_path: Path) -> None:
    with Attempt(tmp_path) as older:
        assert older.check()
        with Attempt(tmp_path) as newer:
            assert not older.check()
            assert older.lost
            assert older.successor is not None
            assert older.successor.number == 2
            assert newer.check()
        assert not older.check(), "it stays lost"
    assert [found.number for found in attempts(tmp_path)[0]] == [1, 2]


def test_the_heart_notices_without_being_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT", 0.05)
    with Attempt(tmp_path) as older, Attempt(tmp_path):
        end = time.monotonic() + 20
        while not older.lost and time.monotonic() < end:
            time.sleep(0.02)
        assert older.lost


def _claim(folder: str, numbers: Any) -> None:
    with Attempt(Path(folder)) as attempt:
        numbers.put(attempt.sidecar.number)


def test_many_at_once_get_a_number_each(tmp_path: Path) -> None:
    numbers = CONTEXT.Queue()
    processes = [CONTEXT.Process(target=_claim, args=(str(tmp_path), numbers)) for _ in range(12)]
    for process in processes:
        process.start()
    assert sorted(numbers.get(timeout=60) for _ in processes) == list(range(1, 13))
    for process in processes:
        process.join(60)
        assert process.exitcode == 0


def test_where_nobody_counts_nothing_is_lost() -> None:
    assert isinstance(current_attempt(), NoAttempt)
    assert current_attempt().check()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not a complete JSON file"),
        ("[1]", "not the file of an attempt"),
        ('{"number": 1}', "not the file of an attempt"),
        ("\x00", "not a complete JSON file"),
    ],
)
def test_a_damaged_sidecar_is_one_line_and_the_others_are_read(tmp_path: Path, text: str, said: str) -> None:
    for _ in range(2):
        with Attempt(tmp_path):
            pass
    (tmp_path / FOLDER / "0001.json").write_text(text)
    (found,), (problem,) = attempts(tmp_path)
    assert found.number == 2
    assert said in problem
    assert str(tmp_path) in problem
    assert "\n" not in problem


def test_a_sidecar_with_times_that_are_none_is_damaged(tmp_path: Path) -> None:
    with Attempt(tmp_path):
        pass
    path = tmp_path / FOLDER / "0001.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"beat": "yesterday"}))
    with pytest.raises(ValueError, match="started and beat must be numbers"):
        read_attempt(path)


def test_a_damaged_sidecar_keeps_its_number(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "0007.json").write_text("{")
    with Attempt(tmp_path) as attempt:
        assert attempt.sidecar.number == 8


def test_a_full_disk_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> Path:
        raise ValueError("no space left on device")

    with Attempt(tmp_path) as attempt:
        monkeypatch.setattr(results, "write_text", full)
        attempt.end("done")
    assert alone(tmp_path).ended is None


def test_a_run_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a file")
    with pytest.raises(ValueError, match="cannot write to the run folder"):
        Attempt(tmp_path / "key").__enter__()


def test_a_cell_leaves_its_attempt_beside_its_record(tmp_path: Path, counting: Callable[..., Cell]) -> None:
    for fails, ended in (("", "done: params_m 1"), ("error", "failed: RuntimeError: planted failure")):
        cell = counting("linear" if fails else "softmax", fails=fails)
        run(cell, tmp_path, lambda line: None)
        assert alone(tmp_path / cell.key).ended == ended
        assert alone(tmp_path / cell.key).text == "counting"


def test_a_record_is_not_written_over_a_newer_attempt(tmp_path: Path, counting: Callable[..., Cell]) -> None:
    cell = counting()
    newer = Attempt(tmp_path / cell.key)

    def overtake(line: str) -> None:
        newer.__enter__()

    try:
        with pytest.raises(TakenOver, match=rf"a newer attempt \(process {os.getpid()} on .*\) at this cell"):
            run(cell, tmp_path, overtake)
    finally:
        newer.__exit__(None, None, None)
    assert not (tmp_path / f"{cell.key}.json").exists()
    assert "has taken over" in str(attempts(tmp_path / cell.key)[0][0].ended)


def test_a_training_that_is_taken_over_stops_between_two_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.cells import MICRO, DataSource, Train
    from tests.harness.image_sets import coloured

    size: dict[str, Any] = {"dim": 16, "depth": 1, "heads": 2, "image_size": (16, 16), "num_classes": 3}
    spec = replace(preset("deit_micro"), **size)
    recipe = replace(MICRO, epochs=2, batch=16)
    cell = Cell(spec, Train(recipe, DataSource.folder(coloured(tmp_path / "images")), checkpoint_minutes=0.0))
    monkeypatch.setattr(module, "BEAT", 0.01)
    newer = Attempt(tmp_path / cell.key)

    def overtake(line: str) -> None:
        if "epoch 1/2" in line and newer.successor is None and not newer._thread.is_alive():
            newer.__enter__()
            time.sleep(0.2)

    with pytest.raises(TakenOver):
        run(cell, tmp_path, overtake)
    after_epoch = sorted(path.name for path in (tmp_path / cell.key).glob("checkpoint-*"))
    newer.__exit__(None, None, None)
    assert not (tmp_path / f"{cell.key}.json").exists()
    assert after_epoch, "what the older one had saved stays for the newer one"
    record = run(cell, tmp_path, lambda line: None)
    assert record.status == "done"
