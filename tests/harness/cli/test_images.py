"""data check: what is there, and what is wrong; data race: how fast it is read."""

import json
from pathlib import Path

import pytest

from tests import photographs
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


def test_data_race_reads_in_turn_with_timm(ask: Ask) -> None:
    photographs.write(Path("photos"), classes=2, each=2)
    answer = ask("data race photos --recipe deit_t --workers 0 --batch 2 --seconds 0.01 -o race.json")
    assert answer.status == 0
    rows = [line.split()[0] for line in answer.out.splitlines() if line]
    assert rows[:4] == ["input", "timm", "pillow", "tensor"]
    found = json.loads(Path("race.json").read_text())
    assert found["command"].startswith("attention-bench data race photos --recipe deit_t --workers 0 --batch 2")
    assert [row["input"] for row in found["results"]] == ["timm", "pillow", "tensor"]
    assert {row["images"] for row in found["results"]} == {4}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("data check photos --recipe swin_t", "--recipe is for data race"),
        ("data race photos --classes 3", "--classes is for data check"),
        ("data race photos --seconds 0", "--seconds 0.0: it takes a number above 0"),
        ("data race photos --batch 1", "--batch 1: it takes a number from 2 up"),
        ("data race photos --device tpu", "cpu"),
        ("data race photos -o race.csv", "its name must end in .json"),
        ("data race photos --recipe swin_micro", "no recipe was published for swin_micro"),
        ("data race nowhere", "data folder nowhere does not exist"),
        ("data race photos --batch 100", "a batch of 100 needs as many training images; there are 66"),
        ("data race photos --batch 3", "mixup and cutmix mix pairs: the batch must be even, got 3"),
    ],
)
def test_what_cannot_be_raced_is_refused(ask: Ask, line: str, said: str) -> None:
    photos()
    assert said in refused(ask, line)
