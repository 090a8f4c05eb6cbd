"""Several processes: what a launcher must say, and what they tell each other."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist

from harness.cli import main
from harness.process.ranks import Ranks, process_group, ranks
from tests.harness.processes import Raised, together

WHOLE = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def environment(monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> None:
    """A launcher's environment with some values changed, or gone."""
    for name, value in (dict.fromkeys(WHOLE) | changes).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


@pytest.mark.parametrize("world", [None, "1"])
def test_without_a_launcher_there_is_one_process(monkeypatch: pytest.MonkeyPatch, world: str | None) -> None:
    environment(monkeypatch, WORLD_SIZE=world)
    with process_group() as group:
        assert group == Ranks(0, 1, 0) == ranks()
        assert group.first
        assert not dist.is_initialized()


INCOMPLETE: list[tuple[dict[str, str | None], str]] = [
    ({"RANK": None}, "WORLD_SIZE says that there are 2 processes, but RANK is missing: start them with torchrun"),
    ({"RANK": None, "MASTER_PORT": None}, "2 processes, but RANK and MASTER_PORT are missing: "),
    ({"MASTER_ADDR": None}, "but MASTER_ADDR is missing: "),
    ({"RANK": "5"}, "RANK is 5; it must be from 0 to WORLD_SIZE - 1 = 1"),
    ({"RANK": "2"}, "RANK is 2; it must be from 0 to WORLD_SIZE - 1 = 1"),
    ({"RANK": "-1"}, "the environment variable RANK is '-1'; it takes a number"),
    ({"RANK": "one"}, "the environment variable RANK is 'one'; it takes a number"),
    ({"RANK": ""}, "the environment variable RANK is ''; it takes a number"),
    ({"RANK": "²"}, "the environment variable RANK is '²'; it takes a number"),
    ({"WORLD_SIZE": "two"}, "the environment variable WORLD_SIZE is 'two'; it takes a number"),
    ({"WORLD_SIZE": "0"}, "the environment variable WORLD_SIZE is 0; it takes a number of processes"),
    ({"LOCAL_RANK": "gpu0"}, "the environment variable LOCAL_RANK is 'gpu0'; it takes a number"),
    ({"MASTER_PORT": "http"}, "the environment variable MASTER_PORT is 'http'; it takes a number"),
    ({"MASTER_PORT": "99999"}, "MASTER_PORT is 99999; it must be from 1 to 65535"),
]


@pytest.mark.parametrize(("changes", "message"), INCOMPLETE, ids=[message for _, message in INCOMPLETE])
def test_an_environment_that_cannot_be_true(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, changes: dict[str, str | None], message: str
) -> None:
    environment(monkeypatch, **(WHOLE | changes))
    with pytest.raises(ValueError) as error, process_group():
        pass
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert main.main(["list", "attentions"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"attention-bench: {error.value}\n"


def test_a_rank_without_others_is_no_matter(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Some batch systems leave a RANK behind; one process speaks, whatever it says."""
    for rank in ("three", "3"):
        environment(monkeypatch, RANK=rank, WORLD_SIZE="1")
        assert main.main(["list", "attentions"]) == 0
        assert "focused" in capsys.readouterr().out


def _say(group: Ranks, first_fails: bool) -> list[Any]:
    def value() -> str:
        if first_fails:
            raise ValueError("no such folder")
        return f"said by {group.rank}"

    return [group, group.first, group.agreed(value)]


def test_one_process_decides_for_all() -> None:
    said = together(2, _say, False)
    assert [answer[2] for answer in said] == ["said by 0", "said by 0"]
    assert [answer[0] for answer in said] == [Ranks(0, 2, 0), Ranks(1, 2, 1)]
    assert [answer[1] for answer in said] == [True, False]


def test_what_is_wrong_in_one_process_is_raised_in_all() -> None:
    assert together(2, _say, True) == [Raised("ValueError", "no such folder")] * 2


def _agree(group: Ranks) -> dict[str, Any]:
    tensor = torch.tensor([group.rank + 1, 10 * group.rank])
    return {
        "any": [group.any(flag) for flag in (False, group.rank == 0, group.rank == 1, True)],
        "sum": group.sum(tensor).tolist(),
        "in place": tensor.tolist(),
        "gathered": group.gathered(f"from {group.rank}"),
        "again": ranks() == group,
    }


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_agree(world: int) -> None:
    answer = {
        "any": [False, True, world > 1, True],
        "sum": [sum(range(world + 1)), 10 * sum(range(world))],
        "in place": [sum(range(world + 1)), 10 * sum(range(world))],
        "gathered": [f"from {rank}" for rank in range(world)],
        "again": True,
    }
    assert together(world, _agree) == [answer] * world


def _wait(group: Ranks, folder: str) -> bool:
    if group.first:
        time.sleep(0.3)
        Path(folder, "here").touch()
    group.wait()
    return Path(folder, "here").exists()


def test_processes_wait_for_each_other(tmp_path: Path) -> None:
    assert together(2, _wait, str(tmp_path)) == [True, True]
