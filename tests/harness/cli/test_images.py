"""data check: what is there, and what is wrong."""

from pathlib import Path

from tests.harness.command_line import Ask, photos


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
    assert "data folder nowhere does not exist" in answer.out
