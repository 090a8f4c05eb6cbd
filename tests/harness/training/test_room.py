"""Room for a run: refused before its first epoch, with nothing written, and counted without what is there already."""

import errno
import resource
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from backbones import preset
from harness.cells import MICRO, DataSource, Train
from harness.training import room
from harness.training.loop import train
from harness.training.room import check_room, checkpoint_bytes, run_bytes
from tests.harness.image_sets import coloured


def test_a_disk_that_is_too_small_is_refused_before_the_first_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = preset("swin_micro", num_classes=3)
    task = Train(replace(MICRO, epochs=1, batch=8), DataSource.folder(coloured(tmp_path / "images", 4, 1)))
    # A checkpoint is whole before the oldest one goes.
    needed = run_bytes(spec, task) + checkpoint_bytes(spec, task)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed - 1))
    with pytest.raises(ValueError, match=r"cannot keep checkpoints in .*/run: they take .* more, and .* are free"):
        train(task, spec, tmp_path / "run", lambda text: None)
    assert list((tmp_path / "run").iterdir()) == []
    (tmp_path / "run/checkpoint-00000001.pt").write_bytes(b"xx")
    check_room(tmp_path / "run", spec, task)


def test_a_limit_on_files_is_found_before_the_first_epoch(tmp_path: Path) -> None:
    """Of the process here; a quota is no other matter."""
    spec = preset("swin_micro", num_classes=3)
    task = Train(replace(MICRO, epochs=1, batch=8), DataSource.folder(coloured(tmp_path / "images", 4, 1)))
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (checkpoint_bytes(spec, task) - 1, most))
    try:
        with pytest.raises(ValueError, match=r"cannot keep checkpoints in .*/run: one takes .* GB \(File too large\)"):
            train(task, spec, tmp_path / "run", lambda text: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert list((tmp_path / "run").iterdir()) == []


def test_a_file_system_that_reserves_nothing_is_taken_at_its_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*arguments: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(room, "reserve", unsupported)
    check_room(tmp_path, preset("swin_micro"), Train(MICRO, DataSource("fashion_mnist_14k")))
