"""A callable in a process of its own: its result, its errors, its death."""

import functools
import os
import signal
import time

import pytest
import submitit

from slurm import JobDied, call_apart


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


def test_a_killed_process_is_told_with_its_log(tmp_path):
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
    monkeypatch.setattr(submitit.LocalJob, "cancel", lambda job, check: (cancelled.append(job), cancel(job, check)))
    with pytest.raises(KeyboardInterrupt):
        call_apart(functools.partial(sleep_and_write, str(started)), tmp_path)
    (job,) = cancelled
    deadline = time.monotonic() + 20
    while job._process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert job._process.poll() is not None
