"""Bits come back as they were written, or the file and what is wrong with it are named."""

from pathlib import Path

import numpy as np
import pytest

from results import read_correct, write_correct


@pytest.mark.parametrize("images", [1, 7, 8, 9, 39, 50_000])
def test_bits_survive_the_file(tmp_path: Path, images: int) -> None:
    bits = np.random.default_rng(images).random(images) < 0.8
    path = write_correct(tmp_path / "run" / "correct.npy", bits)
    read = read_correct(path, images)
    assert read.dtype == bool
    assert np.array_equal(read, bits)
    assert [each.name for each in path.parent.iterdir()] == ["correct.npy"]


def test_fifty_thousand_images_are_six_kilobytes(tmp_path: Path) -> None:
    assert write_correct(tmp_path / "correct.npy", np.ones(50_000, bool)).stat().st_size == 6250 + 128


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (8, "holds 9 to 16 images, but its record says 8"),
        (9, "holds more than the 9 images that its record says"),
        (17, "holds 9 to 16 images, but its record says 17"),
    ],
)
def test_another_number_of_images_is_refused(tmp_path: Path, images: int, message: str) -> None:
    path = write_correct(tmp_path / "correct.npy", np.ones(10, bool))
    with pytest.raises(ValueError, match=message) as problem:
        read_correct(path, images)
    assert str(problem.value).startswith(f"{path}: ")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"correct\.npy: cannot be read: No such file"):
        read_correct(tmp_path / "correct.npy", 8)


@pytest.mark.parametrize("kept", [0, 3, 20, 100, 130], ids=lambda kept: f"{kept} bytes")
def test_a_torn_file_is_named(tmp_path: Path, kept: int) -> None:
    path = write_correct(tmp_path / "correct.npy", np.ones(64, bool))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"correct\.npy: not a complete file of which images were right"):
        read_correct(path, 64)


@pytest.mark.parametrize("content", [np.ones(8), np.ones((1, 1), np.uint8)], ids=["numbers", "matrix"])
def test_other_arrays_are_refused(tmp_path: Path, content: np.ndarray) -> None:
    np.save(tmp_path / "correct.npy", content)
    with pytest.raises(ValueError, match="must hold packed bits"):
        read_correct(tmp_path / "correct.npy", 8)


def test_text_and_pickles_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "correct.npy"
    path.write_text("not an array at all, whatever its name says")
    with pytest.raises(ValueError, match="not a complete file"):
        read_correct(path, 8)
    with path.open("wb") as stream:
        np.save(stream, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="not a complete file"):
        read_correct(path, 8)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(ValueError, match="cannot write"):
        write_correct(tmp_path / "run" / "correct.npy", np.ones(8, bool))
