"""What a process of a job does first: who it is, where its peers are, what a warning does to it and its children."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from slurm import inside, this_job
from slurm.inside import Job, free_port, join
from tests.slurm.cluster import wait_for

ROOT = Path(__file__).parents[2]
TORCHS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
Become = Callable[..., None]


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Become:
    """Make this process one of a job, as sbatch and srun do; without values it is of none."""
    for name in list(os.environ):
        if name.startswith(("SLURM", "SUBMITIT")):
            monkeypatch.delenv(name)
    for name in TORCHS:
        # What the code under test sets is taken back as well.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    def set_variables(**variables: object) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))

    return set_variables


def a_process(rank: int = 0, world: int = 1, nodes: int = 1, **more: Any) -> dict[str, object]:
    """The variables of a process of job 70, which has as many on each node."""
    each = world // nodes
    facts = {
        "SLURM_JOB_ID": 70,
        "SLURM_NTASKS": world,
        "SLURM_JOB_NUM_NODES": nodes,
        "SLURM_JOB_NODELIST": "n[4-5]" if nodes == 2 else "n4",
        "SLURM_NODEID": rank // each,
        "SLURM_PROCID": rank,
        "SLURM_LOCALID": rank % each,
        "SLURM_STEP_ID": 0,
        "SUBMITIT_EXECUTOR": "slurm",
    }
    return facts | more


def told() -> list[str | None]:
    return [os.environ.get(name) for name in TORCHS]


def test_the_job_of_this_process(become: Become) -> None:
    assert this_job() == (None, 0, None)
    become(SLURM_JOB_ID="70")
    assert this_job() == ("70", 0, None)
    become(SLURM_RESTART_COUNT="2", SLURMD_NODENAME="n4")
    assert this_job() == ("70", 2, "n4")
    become(SLURM_ARRAY_JOB_ID="69", SLURM_ARRAY_TASK_ID="3")
    assert this_job() == ("69_3", 2, "n4"), "as squeue and a user know it, not by its own number"
    # `--cluster local` within an allocation.
    become(SUBMITIT_LOCAL_JOB_ID="4711")
    assert this_job() == ("4711", 0, None)


def test_one_process_is_told_nothing_and_nothing_of_the_shell_that_submitted(become: Become, tmp_path: Path) -> None:
    become(**a_process(), RANK=1, WORLD_SIZE=2, LOCAL_RANK=0, LOCAL_WORLD_SIZE=1, MASTER_ADDR="pod", MASTER_PORT=1)
    join(tmp_path / "meetings")
    assert told() == [None] * 6
    assert not (tmp_path / "meetings").exists()


def test_the_first_process_finds_a_free_port_and_the_others_read_it(become: Become, tmp_path: Path) -> None:
    become(**a_process(rank=0, world=4, nodes=2))
    join(tmp_path / "meetings")
    port = os.environ["MASTER_PORT"]
    assert told() == ["0", "4", "0", "2", "n4", port]
    with socket.create_server(("", int(port))):
        pass
    assert len(list((tmp_path / "meetings").iterdir())) == 1, "written whole, under its name at once"
    become(**a_process(rank=3, world=4, nodes=2))
    join(tmp_path / "meetings")
    assert told() == ["3", "4", "1", "2", "n4", port]


def test_on_one_node_they_meet_on_the_loopback(become: Become, tmp_path: Path) -> None:
    """The node's name may not resolve on itself."""
    become(**a_process(world=2))
    join(tmp_path)
    assert os.environ["MASTER_ADDR"] == "127.0.0.1"


def test_a_later_process_waits_for_the_first(become: Become, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside, "free_port", lambda: 45678)
    become(**a_process(rank=0, world=2))
    join(tmp_path)
    (meeting,) = tmp_path.iterdir()
    text = meeting.read_text()
    meeting.unlink()
    become(**a_process(rank=1, world=2))
    late = threading.Timer(0.5, lambda: meeting.write_text(text))
    late.start()
    began = time.monotonic()
    join(tmp_path)
    assert time.monotonic() - began >= 0.4
    assert os.environ["MASTER_PORT"] == "45678"
    late.join()


@pytest.mark.parametrize(
    "other",
    [{"SLURM_RESTART_COUNT": 1}, {"SLURM_STEP_ID": 1}, {"SLURM_ARRAY_JOB_ID": 69, "SLURM_ARRAY_TASK_ID": 1}],
    ids=["restart", "step", "task"],
)
def test_a_meeting_of_another_run_is_not_taken_for_this_ones(
    become: Become, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, Any]
) -> None:
    become(**a_process(rank=0, world=2))
    join(tmp_path)
    monkeypatch.setattr(inside, "PATIENCE", 0.3)
    become(**a_process(rank=1, world=2, **other))
    with pytest.raises(RuntimeError):
        join(tmp_path)


def test_a_first_process_that_never_comes_is_a_sentence(
    become: Become, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inside, "PATIENCE", 0.3)
    monkeypatch.setattr(inside, "SILENCE", 0.1)
    become(**a_process(rank=1, world=2))
    with pytest.raises(RuntimeError) as problem:
        join(tmp_path)
    text = str(problem.value)
    assert text.startswith(
        f"process 1 of 2 on {socket.gethostname()} does not see {tmp_path}/meeting-70-0-0, which rank 0 "
    )
    assert text.endswith("is the folder on a file system that all nodes share?")
    assert "\n" not in text
    waits = (
        f"attention-bench: process 1 of 2 on {socket.gethostname()} waits for {tmp_path}/meeting-70-0-0, which rank 0 "
    )
    assert capsys.readouterr().out == waits + "of the job writes\n"


def test_slurms_choice_of_gpus_stays(become: Become, tmp_path: Path) -> None:
    become(**a_process(rank=0, world=2), CUDA_VISIBLE_DEVICES="2,3")
    join(tmp_path)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_a_free_port_is_free_though_others_are_taken() -> None:
    with socket.create_server(("", 0)) as taken:
        ports = {free_port() for _ in range(20)}
        assert taken.getsockname()[1] not in ports
    assert all(1024 <= port < 2**16 for port in ports)


@dataclass(frozen=True)
class Looks:
    """Writes down what it finds when it is called."""

    path: Path

    def __call__(self) -> None:
        self.path.write_text(f"{os.environ.get('RANK')} {signal.getsignal(signal.SIGUSR2)}")

    def left(self) -> str | None:
        return None

    def gave_up(self, reason: str) -> None:
        raise AssertionError


def test_a_job_is_guarded_and_joined_before_its_work(
    become: Become, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a fork does can be registered, and never taken back.
    monkeypatch.setattr(os, "register_at_fork", lambda after_in_child: None)
    before = {number: signal.getsignal(number) for number in inside.WARNINGS}
    become(**a_process(rank=0, world=2))
    try:
        Job(Looks(tmp_path / "looked"), tmp_path / "meetings")()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert (tmp_path / "looked").read_text().startswith("0 <function _leave")


GUARDED = """
import os, time
from slurm.inside import guard

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

guard()
children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        say("child")
        try:
            time.sleep(60)
        finally:
            say("the handler ran in a child")
    children.append(child)
try:
    say("ready", *children)
    time.sleep(60)
finally:
    say("cleaned up")
"""


@pytest.mark.parametrize("number", inside.WARNINGS, ids=lambda number: number.name)
def test_a_warning_ends_the_process_and_its_children_are_deaf_to_it(number: signal.Signals) -> None:
    """To the terminating signal a child is not deaf: a data loader ends its workers so. It must not clean up there."""
    command = [sys.executable, "-c", GUARDED]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            lines = sorted(process.stdout.readline().split() for _ in range(3))
            assert [line[0] for line in lines] == ["child", "child", "ready"]
            deaf, hearing = (int(child) for child in lines[2][1:])
            os.kill(deaf, signal.SIGUSR2)
            os.kill(hearing, signal.SIGTERM)
            wait_for(lambda: state(hearing) in ("Z", ""))
            assert state(deaf) == "S"
            os.kill(process.pid, number)
            assert process.wait(20) == 128 + number
        finally:
            os.killpg(process.pid, signal.SIGKILL)
        assert process.stdout.read() == "cleaned up\n"


def state(pid: int) -> str:
    """Of a process, as the kernel has it: "S" sleeps, "Z" has ended; "" of one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""
