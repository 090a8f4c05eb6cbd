"""Several processes: what a launcher must say, and what they tell each other."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist

from harness.cli import main
from harness.process import ranks as ranks_module
from harness.process.ranks import Ranks, _met, process_group, ranks
from tests.harness.processes import Raised, free_port, together

WHOLE = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


MEASURE = ["run", "--backbone", "deit_micro", "--attention", "linear", "--task", "costs"]


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
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    changes: dict[str, str | None],
    message: str,
) -> None:
    environment(monkeypatch, **(WHOLE | changes))
    with pytest.raises(ValueError) as error, process_group():
        pass
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert main.main([*MEASURE, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"attention-bench: {error.value}\n"
    # What measures nothing does not look.
    assert main.main(["list", "tasks"]) == 0
    assert "costs" in capsys.readouterr().out


def test_a_rank_without_others_is_no_matter(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Some batch systems leave a RANK behind; one process speaks, whatever it says."""
    for rank in ("three", "3"):
        environment(monkeypatch, RANK=rank, WORLD_SIZE="1")
        assert main.main(["list", "attentions"]) == 0
        assert "focused" in capsys.readouterr().out


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize(
    "line",
    [["list", "tasks"], ["show", "deit_micro"], [*MEASURE, "--dry-run"], ["run", "--help"], ["status"]],
    ids=lambda line: " ".join(line[:1] + line[-1:]),
)
def test_what_measures_nothing_neither_waits_nor_is_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path, rank: str, line: list[str]
) -> None:
    """As in a pod, whose environment says that there are two processes, of which this shell is none."""
    monkeypatch.chdir(tmp_path)
    environment(monkeypatch, **WHOLE | {"RANK": rank})
    monkeypatch.setattr(ranks_module, "TCPStore", None)
    with suppress(SystemExit):
        main.main(line)
    said = capsys.readouterr()
    assert said.out + said.err != ""


def test_who_does_not_come_is_named_and_where_they_would_meet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(ranks_module, "SILENCE", 0.1)
    monkeypatch.setattr(ranks_module, "TIMEOUT", timedelta(seconds=0.4))
    port = str(free_port())
    environment(monkeypatch, **WHOLE | {"WORLD_SIZE": "3", "MASTER_PORT": port})
    assert main.main([*MEASURE, "--out", str(tmp_path)]) == 2
    waits, gives_up = capsys.readouterr().err.splitlines()
    where = f"at 127.0.0.1:{port} for 2 of 3 processes (RANK 1, 2)"
    assert waits.startswith(f"attention-bench: process 0 of 3 waits {where}, as WORLD_SIZE, RANK, MASTER_ADDR and ")
    assert gives_up == f"attention-bench: after 0:00:00.400000 this process (0 of 3) still waits {where}"
    # One that waits for the first is told so, too, though it prints nothing else.
    environment(monkeypatch, **WHOLE | {"RANK": "1", "MASTER_PORT": port})
    assert main.main([*MEASURE, "--out", str(tmp_path)]) == 2
    assert f"process 1 of 2 waits at 127.0.0.1:{port} for process 0, " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_first_process_waits_at_an_address_that_is_not_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """As in a pod whose name is unknown, or that has another's: it says so, and is not silent for half an hour."""
    monkeypatch.setattr(ranks_module, "SILENCE", 0.1)
    monkeypatch.setattr(ranks_module, "TIMEOUT", timedelta(seconds=0.4))
    port = str(free_port())
    environment(monkeypatch, **WHOLE | {"MASTER_ADDR": "nowhere.invalid", "MASTER_PORT": port})
    with (
        pytest.raises(ValueError, match=f"still waits at nowhere.invalid:{port} for 1 of 2 processes"),
        process_group(),
    ):
        pass
    assert "process 0 of 2 waits at nowhere.invalid:" in capsys.readouterr().err


def test_a_port_that_another_program_has(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        environment(monkeypatch, **WHOLE | {"MASTER_PORT": str(port)})
        said = rf"^process 0 cannot listen at 127.0.0.1:{port} .*: another program does$"
        with pytest.raises(ValueError, match=said), process_group():
            pass


def test_those_who_come_late_are_waited_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(ranks_module, "SILENCE", 0.3)
    port = free_port()
    with ThreadPoolExecutor() as pool:
        second = pool.submit(_met, 1, 3, "127.0.0.1", port)
        time.sleep(0.5)
        first = pool.submit(_met, 0, 3, "127.0.0.1", port)
        time.sleep(0.5)
        third = _met(2, 3, "127.0.0.1", port)
        third.set("x", "seen")
        assert {each.result().get("x") for each in (first, second)} == {b"seen"}
    said = sorted(line.partition(", as")[0].removeprefix("attention-bench: ") for line in _lines(capsys))
    where = f"waits at 127.0.0.1:{port} for"
    assert said == [f"process 0 of 3 {where} 1 of 3 processes (RANK 2)", f"process 1 of 3 {where} process 0"]


def _lines(capsys: pytest.CaptureFixture) -> list[str]:
    return capsys.readouterr().err.splitlines()


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
