"""A callable in a process of its own: its result, its errors, its death; and jobs on this machine without a Slurm."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import submitit

from slurm import JobDied, Work, call_apart, cancel_local, copy_code, local_job, submit_local
from slurm.local import OneAfterTheOther
from tests.slurm.cluster import PATIENCE, wait_for
from tests.slurm.works import Dies, Steps, Tells, steps

ROOT = Path(__file__).parents[2]


def process_id() -> int:
    return os.getpid()


def fail() -> None:
    raise KeyError("planted")


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_result_comes_from_another_process(tmp_path):
    assert call_apart(process_id, tmp_path) not in (os.getpid(), None)


def test_what_it_raises_is_told(tmp_path):
    with pytest.raises(JobDied, match="KeyError: 'planted'"):
        call_apart(fail, tmp_path)


def test_a_killed_process_is_told_with_its_log(tmp_path, monkeypatch):
    # How long submitit looks for a result after the end: file systems may show it late.
    monkeypatch.setattr(submitit.LocalJob, "_results_timeout_s", 1)
    with pytest.raises(JobDied, match=rf"ended without a result.*log: {tmp_path}"):
        call_apart(be_killed, tmp_path)


def sleep_and_write(path: str) -> None:
    open(path, "w").close()
    time.sleep(60)


def test_an_interrupt_ends_the_process(tmp_path, monkeypatch):
    started = tmp_path / "started"

    def interrupt(job: submitit.LocalJob) -> None:
        while not started.exists():
            time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(submitit.LocalJob, "result", interrupt)
    cancelled = []
    cancel = submitit.LocalJob.cancel

    def noted(job: submitit.LocalJob, check: bool) -> None:
        cancelled.append(job)
        cancel(job, check)

    monkeypatch.setattr(submitit.LocalJob, "cancel", noted)
    with pytest.raises(KeyboardInterrupt):
        call_apart(functools.partial(sleep_and_write, str(started)), tmp_path)
    (job,) = cancelled
    deadline = time.monotonic() + PATIENCE
    while job._process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert job._process.poll() is not None


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_code(ROOT, ["slurm", "tests"], tmp_path_factory.mktemp("code"), {})


def submit(code: Path, folder: Path, *works: Work, **more: Any) -> str:
    return submit_local(works, folder=folder / "jobs", code=code, **{"cpus": 1} | more)


def ended(id: str) -> bool:
    return local_job("", 0, id) is None


def folders(parent: Path, *names: str) -> list[Path]:
    for name in names:
        (parent / name).mkdir()
    return [parent / name for name in names]


def test_a_job_on_this_machine_does_its_works_in_order_from_the_copy_of_the_code(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6,7")
    monkeypatch.setenv("RANK", "5")
    before, hangup = dict(os.environ), signal.getsignal(signal.SIGHUP)
    first, second, third = folders(tmp_path, "first", "second", "third")
    id = submit(
        code,
        tmp_path,
        Steps(first, 3),
        Tells(second, 1),
        Steps(third, 2),
        cpus=3,
        gpus=["6", "GPU-1a2b"],
        variables={"LEVEL": "2"},
    )
    assert dict(os.environ) == before
    assert signal.getsignal(signal.SIGHUP) == hangup
    job = local_job("name", 0, id)
    assert job is not None
    assert (job.id, job.name, job.state, job.alive) == (id, "name", "RUNNING", True)
    wait_for(lambda: ended(id))
    assert (len(steps(first)), len(steps(third))) == (3, 2)
    assert (first / "steps").stat().st_mtime <= (second / "told-0").stat().st_mtime
    assert (second / "told-0").stat().st_mtime <= (third / "steps").stat().st_mtime
    told = json.loads((second / "told-0").read_text())
    assert Path(told["file"]).is_relative_to(code)
    assert told["PYTHONPATH"] == f"{code}:/elsewhere"
    assert told["OMP_NUM_THREADS"] == "3"
    assert told["CUDA_VISIBLE_DEVICES"] == "6,GPU-1a2b"
    assert told["LEVEL"] == "2"
    assert (tmp_path / "jobs" / "logs" / f"{id}_0_log.out").read_text()


def test_without_gpus_a_job_sees_none_and_the_users_threads_stay(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    id = submit(code, tmp_path, Tells(tmp_path, 1))
    wait_for(lambda: ended(id))
    told = json.loads((tmp_path / "told-0").read_text())
    assert (told["CUDA_VISIBLE_DEVICES"], told["OMP_NUM_THREADS"]) == ("", "7")


SUBMITS = """
import sys, time
from pathlib import Path
from slurm import submit_local
from tests.slurm.works import Steps

folder, code = Path(sys.argv[1]), Path(sys.argv[2])
print(submit_local([Steps(folder, 12, 0.1)], folder=folder / "jobs", code=code, cpus=1), flush=True)
time.sleep(60)
"""


def test_a_job_goes_on_when_the_terminal_of_its_shell_is_closed(code: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SUBMITS, str(tmp_path), str(code)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as shell:
        assert shell.stdout is not None
        id = shell.stdout.readline().strip()
        wait_for(lambda: steps(tmp_path))
        os.killpg(shell.pid, signal.SIGHUP)
        assert shell.wait(PATIENCE) == -signal.SIGHUP
        assert len(steps(tmp_path)) < 12
        assert not ended(id)
    wait_for(lambda: ended(id))
    assert len(steps(tmp_path)) == 12


def test_a_cancelled_job_ends_in_order_and_begins_nothing_else(code: Path, tmp_path: Path) -> None:
    first, second = folders(tmp_path, "first", "second")
    id = submit(code, tmp_path, Steps(first, 600, 0.1), Steps(second, 1))
    wait_for(lambda: steps(first))
    cancel_local([id])
    wait_for(lambda: ended(id))
    assert 0 < len(steps(first)) < 600
    assert steps(second) == []
    cancel_local([id])  # which has ended: nothing to do, no error


def test_a_work_that_is_killed_ends_its_job_and_its_words_are_in_the_log(code: Path, tmp_path: Path) -> None:
    first, second = folders(tmp_path, "first", "second")
    id = submit(code, tmp_path, Dies(first, 1), Steps(second, 1))
    wait_for(lambda: ended(id))
    assert steps(second) == []
    assert "the last words" in (tmp_path / "jobs" / "logs" / f"{id}_0_log.out").read_text()


@pytest.mark.parametrize("id", [None, "999999999"], ids=["never-started", "gone"])
def test_what_does_not_run_is_no_job(id: str | None) -> None:
    assert local_job("name", 0, id) is None


def test_a_number_that_was_given_to_another_process_is_no_job_and_is_left_alone() -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        assert local_job("name", 0, str(stranger.pid)) is None
        cancel_local([str(stranger.pid)])
        time.sleep(0.2)
        assert stranger.poll() is None
        stranger.kill()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "jobs").touch()
    with pytest.raises(ValueError, match=rf"^cannot write to {tmp_path}/jobs: "):
        submit_local([], folder=tmp_path / "jobs", code=tmp_path, cpus=1)


def test_works_one_after_the_other_are_one_work(tmp_path: Path) -> None:
    first, second = folders(tmp_path, "first", "second")
    both = OneAfterTheOther((Steps(first, 1), Steps(second, 2)))
    assert both.left() == "1 steps; 2 steps"
    Steps(first, 1)()
    assert both.left() == "2 steps"
    both.gave_up("planted")
    assert [(folder / "gave_up").exists() for folder in (first, second)] == [False, True]
    both()
    assert both.left() is None
    assert (len(steps(first)), len(steps(second))) == (1, 2)
