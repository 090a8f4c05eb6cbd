"""What becomes of a job whose processes have ended badly, by a scontrol that only says what it was asked for."""

import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import submitit

from slurm import afterwards as module
from slurm.afterwards import afterwards, last_line
from slurm.inside import Job

MINUTES = 60.0
EARLY, LATE = 600.0, 3500.0
WARNED = 128 + signal.SIGUSR2
KILLED = 128 + signal.SIGKILL


@dataclass(frozen=True)
class Todo:
    """Work of which a file says what is left, a line each; what is given up is struck off, with the reason."""

    folder: Path

    def __call__(self) -> None:
        raise AssertionError

    def left(self) -> str | None:
        return ", ".join((self.folder / "left").read_text().splitlines()) or None

    def gave_up(self, reason: str) -> None:
        first, _, rest = (self.folder / "left").read_text().partition("\n")
        (self.folder / "left").write_text(rest)
        with open(self.folder / "gave_up", "a") as log:
            log.write(f"{first}: {reason}\n")


class Batch:
    """The batch script of a job: its folder, its scontrol, and its end."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys, self.monkeypatch = folder, capsys, monkeypatch
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.left("a", "b")
        work = submitit.core.utils.DelayedSubmission(Job(Todo(folder), folder / "meetings"))
        work.dump(self.logs / "70_3_submitted.pkl")
        for name in os.environ:
            if name.startswith(("SLURM", "SUBMITIT")):
                monkeypatch.delenv(name)
        monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
        monkeypatch.setenv("SUBMITIT_FOLDER", "")  # what is set below is taken back
        self.set(SLURM_JOB_ID="73", SLURM_ARRAY_JOB_ID="70", SLURM_ARRAY_TASK_ID="3", SLURM_RESTART_COUNT="2")
        self.scontrol('echo "JobId=73 ArrayJobId=70 Restarts=2 Reason=None"')
        monkeypatch.setattr(time, "sleep", lambda seconds: self.slept.append(seconds))
        self.slept: list[float] = []

    def set(self, **variables: str) -> None:
        for name, value in variables.items():
            self.monkeypatch.setenv(name, value)

    def left(self, *lines: str) -> None:
        (self.folder / "left").write_text("\n".join(lines))

    def log(self, text: str) -> None:
        (self.logs / "70_3_0_log.out").write_text(text)

    def scontrol(self, show: str, requeue: str = "true") -> None:
        """What it does when it is asked to show a job, and to queue it again: lines of shell."""
        path = self.folder / "bin" / "scontrol"
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            f'#!/bin/sh\necho "$@" >> {self.folder}/asked\ncase $1 in show) {show} ;; requeue) {requeue} ;; esac\n'
        )
        path.chmod(0o755)
        self.set(PATH=f"{path.parent}:/usr/bin:/bin")

    def asked(self) -> list[str]:
        try:
            return (self.folder / "asked").read_text().splitlines()
        except FileNotFoundError:
            return []

    def requeued(self) -> int:
        return self.asked().count("requeue 70_3")

    def gave_up(self) -> list[str]:
        try:
            return (self.folder / "gave_up").read_text().splitlines()
        except FileNotFoundError:
            return []

    def ends(self, status: int = 1, seconds: float = EARLY) -> tuple[int, list[str]]:
        """The exit status of the batch script, and what the log says."""
        found = afterwards(self.logs, status, seconds, MINUTES)
        lines = self.capsys.readouterr().out.splitlines()
        assert all(line.startswith("attention-bench: ") for line in lines)
        return found, [line.removeprefix("attention-bench: ") for line in lines]


@pytest.fixture
def batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Batch:
    return Batch(tmp_path, monkeypatch, capsys)


def test_what_is_left_is_queued_again(batch: Batch) -> None:
    batch.left("a")
    assert batch.ends(7) == (7, ["ended with exit status 7 after 600 s; what is left to do: a", "requeued"])
    assert batch.asked() == ["show job 70_3", "requeue 70_3"]


def test_where_nothing_is_left_the_job_has_ended_well(batch: Batch) -> None:
    """The last process was killed at its very end, say."""
    batch.left()
    assert batch.ends(KILLED) == (0, [])
    assert batch.asked() == []


def test_three_ends_without_progress_give_up_what_it_was_at_and_the_rest_goes_on(batch: Batch) -> None:
    batch.log("epoch 1\nMemoryError: planted\n\nsrun: error: n4: task 0: Killed\nattention-bench: requeued\n")
    for _ in range(2):
        batch.ends(KILLED)
        assert batch.gave_up() == []
    status, said = batch.ends(KILLED)
    assert status == KILLED
    (reason,) = batch.gave_up()
    assert reason == (
        "a: ended 3 times without progress, the last time killed, often for memory; "
        "the log ends with: MemoryError: planted"
    )
    assert said[0] == "given up: ended 3 times without progress, the last time killed, often for memory"
    assert said[1] == f"ended with exit status {KILLED} after 600 s; what is left to do: b"
    assert batch.requeued() == 3
    # What comes next has three ends of its own.
    for count in range(3):
        assert len(batch.gave_up()) == 1
        assert batch.requeued() == 3 + count
        status, _ = batch.ends()
    assert [line.partition(":")[0] for line in batch.gave_up()] == ["a", "b"]
    assert status == 0, "nothing is left"
    assert batch.requeued() == 5


def test_progress_begins_the_count_anew(batch: Batch) -> None:
    for number in range(6):
        batch.left(f"a (checkpoint-{number // 2:08d})")
        batch.ends()
    assert batch.gave_up() == []
    assert batch.requeued() == 6
    batch.ends()
    assert len(batch.gave_up()) == 1


def test_a_warning_long_before_the_limit_does_not_count(batch: Batch) -> None:
    for status in (WARNED, 128 + signal.SIGTERM) * 3:
        found, said = batch.ends(status)
        assert found == status
        assert said[0].startswith("ended after 600 s by a warning from Slurm: preempted")
    assert batch.gave_up() == []
    assert batch.requeued() == 6


def test_nor_does_it_begin_the_count_anew(batch: Batch) -> None:
    for status in (1, WARNED, 1, WARNED, 1):
        batch.ends(status)
    assert len(batch.gave_up()) == 1


def test_a_warning_near_the_limit_counts_and_asks_for_minutes(batch: Batch) -> None:
    for _ in range(3):
        batch.ends(WARNED, LATE)
    (reason,) = batch.gave_up()
    assert reason == (
        "a: ended 3 times without progress, the last time near the time limit of 60 minutes: give it more minutes"
    )


def test_an_exit_status_of_another_kind_is_told(batch: Batch) -> None:
    for _ in range(3):
        batch.ends(9)
    assert batch.gave_up() == ["a: ended 3 times without progress, the last time with exit status 9"]


def test_a_file_of_the_count_that_was_cut_off_counts_as_none(batch: Batch) -> None:
    for _ in range(2):
        batch.ends()
    (batch.logs / "70_3_ends.json").write_text('{"left": ')
    batch.ends()
    assert batch.gave_up() == []


def test_a_copy_that_slurm_has_queued_again_already_does_nothing(batch: Batch) -> None:
    """Its node was lost, and it goes on to its end there: the job is pending, or runs elsewhere."""
    batch.scontrol('echo "JobId=73 ArrayJobId=70 Restarts=3 Reason=BeginTime"')
    status, said = batch.ends()
    assert status == 1
    assert said[-1] == "Slurm has already requeued this job; this copy ends"
    assert batch.requeued() == 0


def test_a_controller_that_comes_back_is_asked_again(batch: Batch) -> None:
    down = f'[ -e {batch.folder}/down ] && rm {batch.folder}/down && echo "slurm_load_jobs error: Unable" >&2 && exit 1'
    batch.scontrol('echo "JobId=73 Restarts=2"', f"{down}; true")
    (batch.folder / "down").touch()
    _, said = batch.ends()
    assert said[-1] == "requeued"
    assert batch.requeued() == 2
    # Python's own waiting for a process sleeps, too, for milliseconds.
    assert [seconds for seconds in batch.slept if seconds >= 1] == [module.PAUSE]


def test_a_controller_that_stays_away_is_said_with_what_to_do(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    away = "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1"
    batch.scontrol(away, away)
    status, said = batch.ends(5)
    assert status == 5
    assert said[-1].startswith("Slurm does not requeue it (")
    assert "Unable to contact slurm controller (connect failure)" in said[-1]
    assert said[-1].endswith("); attention-bench resume submits it again")


def test_without_scontrol_as_in_a_container_it_is_said_too(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    shutil.rmtree(batch.folder / "bin")
    monkeypatch.setenv("PATH", str(batch.folder))
    status, said = batch.ends(5)
    assert status == 5
    assert said[-1].startswith("Slurm does not requeue it (no scontrol on the PATH")


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("", ""),
        ("\n \n", ""),
        ("srun: error: x\nslurmstepd: error: y\nsubmitit ERROR z\nattention-bench: requeued\n", ""),
        ("one\n  two  \n\nsrun: x\n", "two"),
        ("first\n" + "srun: x\n" * 300, ""),
    ],
    ids=["empty", "blank", "echo", "own", "long-ago"],
)
def test_the_last_telling_line_of_a_log(tmp_path: Path, text: str, last: str) -> None:
    (tmp_path / "log").write_text(text)
    assert last_line(tmp_path / "log") == last


def test_a_log_that_is_not_text_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"one\n\xff\xfetwo\n")
    assert last_line(tmp_path / "log").endswith("two")
    assert last_line(tmp_path / "none") == ""
