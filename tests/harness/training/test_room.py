"""Room for a run: refused before its first epoch, with nothing written, and counted without what is there already."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from backbones import preset
from harness.cells import MICRO, DataSource, Train
from harness.training.loop import train
from harness.training.room import check_room, run_bytes
from tests.harness.image_sets import coloured


def test_a_disk_that_is_too_small_is_refused_before_the_first_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = preset("swin_micro", num_classes=3)
    task = Train(replace(MICRO, epochs=1, batch=8), DataSource.folder(coloured(tmp_path / "images", 4, 1)))
    needed = run_bytes(spec, task)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed - 1))
    with pytest.raises(ValueError, match=r"cannot keep checkpoints in .*/run: they take .* more, and .* are free"):
        train(task, spec, tmp_path / "run", lambda text: None)
    assert list((tmp_path / "run").iterdir()) == []
    (tmp_path / "run/checkpoint-00000001.pt").write_bytes(b"xx")
    check_room(tmp_path / "run", spec, task)
