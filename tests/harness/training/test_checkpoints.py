"""Checkpoints: the newest two, whole; damaged ones passed over by name; a full disk; a run after all of that."""

import multiprocessing
import os
import resource
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.cells import MICRO, DataSource, Train
from harness.cells.recipe import LR_BATCH
from harness.training import checkpoints
from harness.training.learner import Learner
from harness.training.loop import train
from results import records
from tests.harness.image_sets import coloured
from tests.harness.training.test_resume import digest, metrics, spec

FORK = multiprocessing.get_context("fork")


def state(step: int, numbers: int = 1000) -> dict[str, Any]:
    """The state of a run, with numbers in it that are found again in the file."""
    return {"progress": {"step": step}, "model": {"weight": torch.full((numbers,), float(step))}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder after the updates 10, 20 and 30."""
    for step in (10, 20, 30):
        checkpoints.save(tmp_path, step, state(step))
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def newest(folder: Path) -> tuple[str | None, list[str]]:
    """The file that a run goes on from, and the warnings."""
    lines: list[str] = []
    found = checkpoints.newest(folder, lines.append)
    return (found.name if found else None), lines


def tear(share: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: int(share * len(content))]


def flip(part: bytes, offset: int = 0) -> Callable[[bytes], bytes]:
    """Flips a bit after the first place where `part` is."""

    def flipped(content: bytes) -> bytes:
        place = content.index(part) + offset
        return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]

    return flipped


DAMAGES = {
    **{f"torn at {share:.1%}": tear(share) for share in (0.0, 0.01, 0.5, 0.9, 0.999)},
    "a bit of a tensor": flip(torch.full((9,), 30.0).numpy().tobytes(), 17),
    "a bit of the pickle": flip(b"progress"),
    "a bit of a name": flip(b"PK\x01\x02", 50),
    "the flag of encryption": flip(b"PK\x01\x02", 8),
    "the method of compression": flip(b"PK\x01\x02", 10),
    "the end": flip(b"PK\x05\x06", 1),
    "a text": lambda content: b"no checkpoint",
}


def test_the_newest_two_are_kept(folder: Path) -> None:
    assert names(folder) == ["checkpoint-00000020.pt", "checkpoint-00000030.pt"]
    assert newest(folder) == ("checkpoint-00000030.pt", [])
    found = checkpoints.read(folder / "checkpoint-00000030.pt")
    assert found["progress"] == {"step": 30}
    assert torch.equal(found["model"]["weight"], torch.full((1000,), 30.0))


def test_the_newest_is_that_of_most_updates(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000):
        checkpoints.save(tmp_path, step, state(step))
    (tmp_path / "checkpoint-00000001.pt").touch()
    os.utime(tmp_path / "checkpoint-99999999.pt", (2e9, 2e9))
    assert checkpoints.all_of(tmp_path)[0].name == "checkpoint-100000000.pt"
    assert newest(tmp_path) == ("checkpoint-100000000.pt", [])


def test_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "best.pt").touch()
    (tmp_path / "checkpoint-7.pt").touch()
    assert newest(tmp_path) == (None, [])
    assert newest(tmp_path / "missing") == (None, [])


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_one_is_passed_over(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    path = folder / "checkpoint-00000030.pt"
    content = damage(path.read_bytes())
    path.write_bytes(content)
    found, (warning,) = newest(folder)
    assert found == "checkpoint-00000020.pt"
    assert warning.startswith(f"warning: {path} is damaged (")
    assert warning.endswith("); falling back to the one before it")
    assert "\n" not in warning
    assert names(folder) == ["checkpoint-00000020.pt", "checkpoint-00000030.pt.damaged"]
    assert (folder / "checkpoint-00000030.pt.damaged").read_bytes() == content
    assert newest(folder) == ("checkpoint-00000020.pt", []), "said once"


def test_any_bit_of_it(folder: Path) -> None:
    """Whatever bit is flipped, the file is taken for damaged or read as it was; no error ends the run."""
    path = folder / "checkpoint-00000030.pt"
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    passed_over = 0
    for place in generator.choice(len(whole), 300, replace=False).tolist():
        content = bytearray(whole)
        content[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(content)
        if newest(folder)[0] == path.name:
            found = checkpoints.read(path)
            assert found["progress"] == {"step": 30}
            assert torch.equal(found["model"]["weight"], torch.full((1000,), 30.0)), place
        else:
            passed_over += 1
    assert passed_over > 200


def test_both_damaged(folder: Path) -> None:
    for path in checkpoints.all_of(folder):
        path.write_bytes(path.read_bytes()[:100])
    found, warnings = newest(folder)
    assert found is None
    assert [line.split(" is damaged")[0] for line in warnings] == [
        f"warning: {folder}/checkpoint-00000030.pt",
        f"warning: {folder}/checkpoint-00000020.pt",
    ]
    assert names(folder) == ["checkpoint-00000020.pt.damaged", "checkpoint-00000030.pt.damaged"]


def test_a_whole_file_that_is_no_state_of_a_run(folder: Path) -> None:
    torch.save({"model": {}}, folder / "checkpoint-00000030.pt")
    found, (warning,) = newest(folder)
    assert found == "checkpoint-00000020.pt"
    assert "does not include the progress of the run" in warning


def test_what_a_killed_process_left_does_not_matter(folder: Path) -> None:
    for name in ("checkpoint-00000031.pt.partial", "checkpoint-00000040.pt.partial"):
        (folder / name).write_bytes(b"half of it")
    assert newest(folder) == ("checkpoint-00000030.pt", [])
    checkpoints.save(folder, 40, state(40))
    assert names(folder) == ["checkpoint-00000030.pt", "checkpoint-00000040.pt"]


@pytest.mark.parametrize("damage", [tear(0.5), lambda content: b"text"], ids=["torn", "text"])
def test_reading_a_damaged_one_is_one_line(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    path = folder / "checkpoint-00000030.pt"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"checkpoint-00000030\.pt is damaged or not a checkpoint: ") as error:
        checkpoints.read(path)
    assert "\n" not in str(error.value)


# A disk that is full


def _save_to_a_full_disk(folder: Path, numbers: int, room: int, answer: Any) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    try:
        checkpoints.save(folder, 40, state(40, numbers))
    except ValueError as problem:
        answer.send(str(problem))
    else:
        answer.send("saved")


@pytest.mark.parametrize("room", [0, 700, 5_000, 50_000, 390_000, 399_900, 400_600])
def test_a_full_disk_is_one_clear_error(folder: Path, room: int) -> None:
    """The limit on the size of a file stands for a disk that fills up, early and late in the file."""
    receive, send = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_save_to_a_full_disk, args=(folder, 100_000, room, send))
    process.start()
    send.close()  # so that a process which ends without a word is an error at once
    message = receive.recv()
    process.join()
    assert process.exitcode == 0
    assert message == (
        f"cannot write {folder}/checkpoint-00000040.pt: File too large; "
        "intact: checkpoint-00000030.pt, checkpoint-00000020.pt"
    )
    assert names(folder) == ["checkpoint-00000020.pt", "checkpoint-00000030.pt"]
    assert newest(folder) == ("checkpoint-00000030.pt", [])


def test_a_disk_that_fails_at_the_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        ValueError, match=r"cannot write .*40\.pt: No space left on device; intact: checkpoint-00000030"
    ):
        checkpoints.save(folder, 40, state(40))
    assert names(folder) == ["checkpoint-00000020.pt", "checkpoint-00000030.pt"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot write .*/none/checkpoint-00000001\.pt: No such file or directory$"):
        checkpoints.save(tmp_path / "none", 1, state(1))


def test_a_reader_sees_the_old_one_or_the_new_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until all is written, the name stands for the old file."""
    path, seen = folder / "best.pt", []
    checkpoints.write(path, state(1))

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def look_first(*arguments: Any) -> Any:
            seen.append(checkpoints.read(path)["progress"]["step"])
            return call(*arguments)

        return look_first

    monkeypatch.setattr(os, "fsync", watched(os.fsync))
    monkeypatch.setattr(os, "replace", watched(os.replace))
    checkpoints.write(path, state(2))
    assert seen == [1, 1, 2], "the file reaches the disk, gets its name, and then its folder reaches the disk"


# A run


RECIPE = replace(MICRO, epochs=2, batch=4, warmup_epochs=0.5, lr=2e-3 * LR_BATCH / 4, drop_path=0.2, ema_decay=0.9)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured(tmp_path_factory.mktemp("images"), train=8, val=8)


class Killed(BaseException):
    pass


def trained(images: Path, folder: Path, killed_at: int | None = None) -> list[str]:
    """The run in `folder`, to its end or to an update; what it said."""
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        update = Learner.update

        def update_or_die(self: Learner, batches: Any, step: int) -> None:
            if step == killed_at:
                raise Killed
            update(self, batches, step)

        patch.setattr(Learner, "update", update_or_die)
        task = Train(RECIPE, DataSource.folder(images), checkpoint_minutes=0.0)
        if killed_at is None:
            train(task, spec(), folder, lines.append)
        else:
            with pytest.raises(Killed):
                train(task, spec(), folder, lines.append)
    return lines


@pytest.mark.parametrize("killed_at", [3, 6, 9])
@pytest.mark.parametrize("damaged", [1, 2])
def test_a_run_with_damaged_checkpoints_ends_like_a_whole_one(
    images: Path, tmp_path: Path, killed_at: int, damaged: int
) -> None:
    trained(images, tmp_path / "whole")
    trained(images, tmp_path / "run", killed_at)
    for path in checkpoints.all_of(tmp_path / "run")[:damaged]:
        path.write_bytes(path.read_bytes()[:-100])
    lines = trained(images, tmp_path / "run")
    assert len([line for line in lines if " is damaged (" in line]) == damaged
    resumed = [line for line in lines if line.startswith("resumed after")]
    assert resumed == ([] if damaged == 2 else [f"resumed after {killed_at - 1} of 12 updates"])
    assert digest(tmp_path / "run") == digest(tmp_path / "whole")
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    for name in ("correct.npy", "correct_ema.npy"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_digest_sees_a_difference(images: Path, tmp_path: Path) -> None:
    trained(images, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "other")
    path = checkpoints.all_of(tmp_path / "other")[0]
    found = checkpoints.read(path)
    found["model"]["head.bias"][0] += 1e-7
    checkpoints.write(path, found)
    assert digest(tmp_path / "other") != digest(tmp_path / "whole")


def test_an_interrupt_while_writing_is_an_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's writer, closing what was cut short, raises an error of its own on top of it."""
    path = checkpoints.path_of(tmp_path, 1)

    class Interrupted:
        """A file whose second write is interrupted."""

        def __init__(self, file: object) -> None:
            self.file, self.writes = file, 0

        def __enter__(self) -> "Interrupted":
            return self

        def __exit__(self, *error: object) -> None:
            self.file.close()  # type: ignore[attr-defined]

        def write(self, data: bytes) -> int:
            self.writes += 1
            if self.writes == 2:
                raise KeyboardInterrupt
            return self.file.write(data)  # type: ignore[attr-defined]

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    monkeypatch.setattr(records, "open", lambda *arguments: Interrupted(open(*arguments)), raising=False)  # noqa: SIM115
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(tmp_path, 1, state(1))
    assert not path.exists()
    assert list(tmp_path.iterdir()) == []
