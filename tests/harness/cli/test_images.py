"""data check: what is there, and what is wrong."""

from pathlib import Path

import pytest

from tests.harness.command_line import Ask, photos, refused


def test_data_check_says_what_is_there_and_what_is_wrong(ask: Ask) -> None:
    photos()
    answer = ask("data check photos --classes 3 --workers 0")
    assert (answer.status, answer.err) == (0, "")
    assert "66 images, 0 of them unreadable" in answer.out
    assert answer.out.endswith("no problem\n")
    path = Path("photos/val/cat/0.jpg")
    path.write_bytes(path.read_bytes()[:200])
    answer = ask("data check photos --classes 4 --workers 1")
    assert answer.status == 1
    assert "unreadable image photos/val/cat/0.jpg" in answer.out
    assert "val has 3 classes, the model 4" in answer.out
    answer = ask("data check nowhere")
    assert answer.status == 1
    assert answer.out.count("data folder nowhere does not exist") == 1
    assert "\n1 problem\n" in answer.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--classes 0", "--classes 0: it takes a number from 1 up"),
        ("--classes -1", "--classes -1: it takes a number from 1 up"),
        ("--workers -1", "--workers -1: it takes a number from 0 up"),
    ],
)
def test_numbers_out_of_range_are_refused(ask: Ask, options: str, said: str) -> None:
    photos()
    assert said in refused(ask, f"data check photos {options}")
