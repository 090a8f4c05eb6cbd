"""Kept crops: they change no result, are never those of other images, and leave nothing behind where they fail."""

import errno
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch
from PIL import Image
from torch import Tensor

from harness.images.batches import Images
from harness.images.crops import Crops
from harness.images.transforms import Normalise, eval_transform
from harness.process.ranks import Ranks
from harness.training.evaluation import Inference, evaluate
from tests.harness.evaluations import (
    BATCH,
    CPU,
    IMAGES,
    VIEW,
    Recorded,
    crops_in,
    evaluated,
    fill,
    reader_of,
    unread,
)
from tests.harness.processes import Raised, together


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("images"))


def test_kept_crops_change_nothing_and_are_read_instead(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without, filling, reading = Recorded(), Recorded(), Recorded()
    whole = evaluated(folder, model=without)
    assert evaluated(folder, cache=tmp_path, model=filling) == whole
    unread(monkeypatch)
    with pytest.raises(AssertionError, match="image 0 is read"):
        evaluated(folder)
    assert evaluated(folder, cache=tmp_path, model=reading) == whole
    for one in (filling, reading):
        assert all(map(torch.equal, one.logits, without.logits))
    (path,) = tmp_path.iterdir()
    assert np.load(path).shape == (IMAGES, 3, 16, 16)


def test_one_object_fills_and_then_reads(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in training, where an epoch evaluates two models, one after the other."""
    crops = crops_in(tmp_path, folder)
    images = Images(reader_of(folder), eval_transform((16, 16), 3, VIEW), seed=0)
    inference = Inference(Normalise(VIEW, 3, CPU), batch=BATCH)
    first = evaluate(Recorded(), images, inference, crops=crops)
    unread(monkeypatch)
    second = evaluate(Recorded(), images, inference, crops=crops)
    assert np.array_equal(first.correct1, second.correct1)


def test_nothing_is_written_before_an_evaluation_begins(folder: Path, tmp_path: Path) -> None:
    crops_in(tmp_path / "cache", folder)
    assert list((tmp_path / "cache").iterdir()) == []


def test_mean_and_deviation_share_their_crops(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(VIEW, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))
    one, two = Recorded(), Recorded()
    evaluated(folder, model=one, view=other)
    evaluated(folder, cache=tmp_path)
    unread(monkeypatch)
    evaluated(folder, cache=tmp_path, model=two, view=other)
    assert all(map(torch.equal, one.logits, two.logits))


@pytest.mark.parametrize("view", [{"crop_pct": 0.9}, {"kind": "short_side"}, {"interpolation": "bilinear"}], ids=str)
def test_another_transform_has_other_crops(folder: Path, tmp_path: Path, view: dict) -> None:
    assert crops_in(tmp_path, folder).path != crops_in(tmp_path, folder, view=replace(VIEW, **view)).path


def test_another_size_has_other_crops(folder: Path, tmp_path: Path) -> None:
    reader, sizes = reader_of(folder), [((16, 16), 3), ((32, 16), 3), ((16, 32), 3), ((16, 16), 1)]
    paths = {Crops(tmp_path, reader, size, channels, VIEW, Ranks()).path for size, channels in sizes}
    assert len(paths) == len(sizes)


def test_another_library_has_other_crops(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = crops_in(tmp_path, folder).path
    assert crops_in(tmp_path, folder).path == before
    monkeypatch.setattr(PIL, "__version__", "99")
    assert crops_in(tmp_path, folder).path != before


def touch(root: Path) -> None:
    os.utime(root / "val/class04/13.png", (1e9, 1e9))


def rewrite(root: Path) -> None:
    path = root / "val/class04/13.png"
    about = path.stat()
    Image.new("RGB", (24, 24), "red").save(path)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def rename(root: Path) -> None:
    (root / "val/class04/13.png").rename(root / "val/class04/013.png")


def add(root: Path) -> None:
    Image.new("RGB", (24, 24), "red").save(root / "val/class04/99.png")


@pytest.mark.parametrize("change", [touch, rewrite, rename, add])
def test_changed_images_have_other_crops(tmp_path: Path, change: Callable[[Path], None]) -> None:
    fill(tmp_path / "images")
    before = crops_in(tmp_path, tmp_path / "images").path
    change(tmp_path / "images")
    assert crops_in(tmp_path, tmp_path / "images").path != before


@pytest.mark.parametrize("failure", [FloatingPointError, KeyboardInterrupt, ValueError])
def test_an_evaluation_that_ends_early_leaves_nothing(
    folder: Path, tmp_path: Path, failure: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Recorded):
        def forward(self, images: Tensor) -> Tensor:
            if len(self.logits) == 5:
                assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
                raise failure
            return super().forward(images)

    model = Failing()
    with pytest.raises(failure):
        evaluated(folder, cache=tmp_path, model=model)
    assert list(tmp_path.iterdir()) == []
    assert model.training
    assert evaluated(folder, cache=tmp_path) == evaluated(folder)


def test_a_killed_evaluation_leaves_no_wrong_crops(folder: Path, tmp_path: Path) -> None:
    (answer,) = together(1, _die, str(folder), str(tmp_path))
    assert answer == -signal.SIGKILL
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
    assert evaluated(folder, cache=tmp_path) == evaluated(folder, cache=tmp_path) == evaluated(folder)


def _die(group: Ranks, folder: str, cache: str) -> None:
    class Dying(Recorded):
        def forward(self, images: Tensor) -> Tensor:
            if len(self.logits) == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().forward(images)

    evaluated(Path(folder), group, Path(cache), Dying())


def test_two_evaluations_at_a_time_fill_one_cache(folder: Path, tmp_path: Path) -> None:
    one, other = Recorded(), Recorded()

    class Within(Recorded):
        """Another evaluation runs within this one."""

        def forward(self, images: Tensor) -> Tensor:
            if len(self.logits) == 3:
                evaluated(folder, cache=tmp_path, model=other)
            return super().forward(images)

    outer = Within()
    assert evaluated(folder, cache=tmp_path, model=outer) == evaluated(folder, model=one)
    assert all(map(torch.equal, outer.logits, one.logits))
    assert all(map(torch.equal, other.logits, one.logits))
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]


@pytest.mark.parametrize("content", [b"", b"no array", None], ids=["empty", "text", "torn"])
def test_damaged_crops_are_named(folder: Path, tmp_path: Path, content: bytes | None) -> None:
    evaluated(folder, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:5000] if content is None else content)
    with pytest.raises(ValueError, match=r"crops-\w{16}\.npy is damaged \(.*\): delete it"):
        evaluated(folder, cache=tmp_path)


def test_crops_of_another_shape_are_named(folder: Path, tmp_path: Path) -> None:
    np.save(crops_in(tmp_path, folder).path, np.zeros((IMAGES, 3, 8, 8), np.uint8))
    with pytest.raises(ValueError, match=r"npy is damaged: its content is uint8 of shape \(39, 3, 8, 8\): delete it"):
        evaluated(folder, cache=tmp_path)


def test_a_disk_that_is_too_small_is_said_at_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    evaluated(folder, cache=tmp_path / "kept")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=29_951))
    with pytest.raises(ValueError) as error:
        crops_in(tmp_path / "cache", folder)
    assert str(error.value) == f"cannot keep 3e-05 GB of crops in {tmp_path}/cache: 3e-05 GB are free"
    assert list((tmp_path / "cache").iterdir()) == []
    evaluated(folder, cache=tmp_path / "kept")  # what is there already needs no room
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=29_952))
    crops_in(tmp_path / "cache", folder)


def test_a_disk_that_has_filled_up_meanwhile(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, offset: int, size: int) -> None:
        assert (offset, size) == (0, os.fstat(descriptor).st_size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    model = Recorded()
    with pytest.raises(ValueError) as error:
        evaluated(folder, cache=tmp_path, model=model)
    assert str(error.value) == f"cannot keep 3e-05 GB of crops in {tmp_path}: No space left on device"
    assert list(tmp_path.iterdir()) == []
    assert model.training


def test_a_cache_that_cannot_be_a_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot keep .* of crops in .*/file: File exists"):
        evaluated(folder, cache=tmp_path / "file")


def _without_room(group: Ranks, folder: str, cache: str) -> Any:
    if group.first:
        os.posix_fallocate = _full
    return evaluated(Path(folder), group, Path(cache))


def _full(descriptor: int, offset: int, size: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_every_process_hears_of_it(folder: Path, tmp_path: Path) -> None:
    text = f"cannot keep 3e-05 GB of crops in {tmp_path}: No space left on device"
    assert together(2, _without_room, str(folder), str(tmp_path)) == [Raised("ValueError", text)] * 2
