"""Records survive the disk whole, and a damaged one is named without taking the others along."""

import errno
import json
import math
import os
import re
import stat
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from results import Record, read, read_all, recordable, write, write_text


@pytest.fixture
def record(make: Any) -> Record:
    metrics = {"params_m": 28.288354, "n_images": 2000, "note": "naïve ± 1", "peak_allocated_mib": None}
    return make.record("0123456789abcdef", make.cell("swin_t", "softmax(fused=True)", make.costs), metrics)


def test_a_record_comes_back_equal(tmp_path: Path, record: Record) -> None:
    path = write(tmp_path / "new" / "folder", record)
    assert path == tmp_path / "new" / "folder" / "0123456789abcdef.json"
    assert read(path) == record


def test_an_error_comes_back_with_its_lines_and_odd_characters(tmp_path: Path, record: Record) -> None:
    failed = replace(record, status="failed", metrics={}, error="Traceback:\n  file \udce9.py\nRuntimeError: böse")
    assert read(write(tmp_path, failed)) == failed


def test_the_file_is_stable_and_readable(tmp_path: Path, record: Record) -> None:
    path = write(tmp_path, record)
    text = path.read_text(encoding="utf-8")
    assert text.startswith('{\n  "schema": 1,\n  "key": "0123456789abcdef",\n  "cell": {\n')
    assert list(json.loads(text)) == [
        "schema", "key", "cell", "status", "metrics", "environment", "error", "created",
    ]  # fmt: skip
    write(tmp_path, read(path))
    assert path.read_text(encoding="utf-8") == text


def test_created_is_now_in_utc(record: Record) -> None:
    created = datetime.fromisoformat(record.created)
    assert created.utcoffset() is not None
    assert abs((datetime.now(UTC) - created).total_seconds()) < 600


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_a_diverged_metric_is_kept_in_valid_json(tmp_path: Path, record: Record, value: float) -> None:
    path = write(tmp_path, replace(record, metrics={"train_loss": value}))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads(path.read_text(), parse_constant=refuse)
    assert str(read(path).metrics["train_loss"]) == str(value)
    assert isinstance(read(path).metrics["train_loss"], float)


def test_scalars_of_other_libraries_are_numbers_and_what_is_no_value_is_named() -> None:
    given = {"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True), "d": [np.float64(1)], "e": {"f": (None, "x")}}
    found = recordable({**given, "g": math.nan})
    assert json.dumps(found) == '{"a": 0.5, "b": 3, "c": true, "d": [1.0], "e": {"f": [null, "x"]}, "g": NaN}'
    allowed = "allowed: None, numbers, texts, lists and objects of these"
    for value, said in [
        (np.zeros(2), f"metric top1 is a ndarray; {allowed}"),
        ({"a": object()}, f"metric top1 is a object; {allowed}"),
        ({1: 2}, f"metric top1 is a dict; {allowed}"),
        ([1.0, math.inf], "metric top1 holds inf inside a list or an object; it is allowed as a value of its own"),
    ]:
        with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
            recordable({"top1": value})


@pytest.mark.parametrize("part", ["cell", "environment"])
def test_nan_elsewhere_is_refused_and_leaves_nothing(tmp_path: Path, record: Record, part: str) -> None:
    changes: dict[str, Any] = {part: {"x": math.nan}}
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path, replace(record, **changes))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, record)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match=r"cannot write .*0123456789abcdef\.json: No space left"):
        write(tmp_path, replace(record, metrics={}))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_and_its_name_reach_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file first, then its name, then the folder that holds the name; not every file system can do the last."""
    calls: list[str] = []
    rename = os.replace

    def sync(descriptor: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        if calls[-1] == "folder":
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def replace_file(old: Path, new: Path) -> None:
        calls.append("name")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace_file)
    assert write_text(tmp_path / "text", "x").read_text() == "x"
    assert calls == ["file", "name", "folder"]


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path, record: Record) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"^cannot write .*file/runs/.*json"):
        write(tmp_path / "file" / "runs", record)


def test_readers_see_the_old_text_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    texts = [letter * 200_000 for letter in "ab"]
    write_text(path, texts[0])
    stop = threading.Event()

    def keep_writing() -> None:
        while not stop.is_set():
            for text in texts:
                write_text(path, text)

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        assert all(path.read_text() in texts for _ in range(100))
    finally:
        stop.set()
        writer.join()


def test_files_obey_the_umask(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("x")
    assert write_text(tmp_path / "atomic", "x").stat().st_mode == plain.stat().st_mode


DAMAGES = {
    "empty": (lambda text: "", "not a complete JSON file"),
    "truncated": (lambda text: text[: len(text) // 2], "not a complete JSON file"),
    "not json": (lambda text: "status: done", "not a complete JSON file"),
    "NaN": (lambda text: text.replace("28.288354", "NaN"), "NaN is not JSON"),
    "list": (lambda text: "[1]", "does not hold a JSON object"),
    "other schema": (lambda text: text.replace('"schema": 1', '"schema": 2'), "schema is 2, but this version reads 1"),
    "no schema": (lambda text: text.replace('"schema"', '"shema"'), "schema is None"),
    "missing field": (lambda text: text.replace('"metrics"', '"metric"'), "missing: metrics"),
    "unknown field": (lambda text: text.replace("{", '{"extra": 1,', 1), "unknown: extra"),
    "status": (lambda text: text.replace('"done"', '"fine"'), "status is 'fine', not one of done, oom, failed"),
    "wrong type": (lambda text: text.replace('"error": null', '"error": 3'), "error is neither"),
    "no task": (lambda text: text.replace('"task"', '"tusk"'), "cell.task is not"),
    "no attention": (lambda text: text.replace('"attention"', '"attn"'), "cell.backbone has no attention"),
    "other key": (
        lambda text: text.replace("0123456789abcdef", "f" * 16),
        "key ffffffffffffffff is not the name of the file",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_named_and_the_others_are_read(
    tmp_path: Path, make: Any, record: Record, damage: str
) -> None:
    spoil, message = DAMAGES[damage]
    good = write(tmp_path, make.record("good", make.cell("pvt_t", "softmax", make.costs)))
    path = write(tmp_path, record)
    path.write_text(spoil(path.read_text()))
    with pytest.raises(ValueError, match=r"0123456789abcdef\.json: ") as caught:
        read(path)
    assert message in str(caught.value)
    found, problems = read_all(tmp_path)
    assert [r.key for r in found] == [good.stem]
    assert problems == [str(caught.value)]
    assert "\n" not in problems[0]


def test_bytes_that_are_no_text_are_damage(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00")
    assert len(read_all(tmp_path)[1]) == 1


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.json: cannot be read: No such file"):
        read(tmp_path / "nowhere.json")


def test_half_written_files_of_others_are_no_records(tmp_path: Path) -> None:
    (tmp_path / ".0123456789abcdef.json.1234abcd.tmp").write_text('{"schema"')
    (tmp_path / "notes.txt").write_text("hello")
    assert read_all(tmp_path) == ([], [])


def test_no_folder_has_no_records(tmp_path: Path) -> None:
    assert read_all(tmp_path / "none") == ([], [])
