"""Requests to stop: what hears them, what a training run does then, and that it goes on as if it had not stopped."""

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from harness.process.ranks import Ranks
from harness.process.stopping import SIGNALS, Stopped, StopRequest
from harness.training import checkpoints
from tests.harness.training.test_resume import UPDATES, Attempt, digest, images, metrics
from tests.nightly import LONG

__all__ = ["images"]  # the fixture

NAMES = [number.name for number in SIGNALS]


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in SIGNALS]


def test_what_schedulers_send_and_ctrl_c() -> None:
    assert sorted(NAMES) == ["SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"]


@pytest.mark.parametrize("number", SIGNALS, ids=NAMES)
def test_each_sets_the_flag(number: signal.Signals) -> None:
    before = handlers()
    with StopRequest() as stop:
        assert not stop.asked
        assert handlers() != before
        os.kill(os.getpid(), number)
        assert stop.asked
        assert stop.signal == number
        stopped = stop.stopped("after 3 of 9 updates", Ranks())
    assert handlers() == before
    assert isinstance(stopped, Stopped)
    assert stopped.status == 128 + number
    assert str(stopped).startswith(f"stopped on {number.name} after 3 of 9 updates; the same command")


def test_handlers_come_back_after_an_error() -> None:
    before = handlers()
    with pytest.raises(ZeroDivisionError), StopRequest():
        raise ZeroDivisionError
    assert handlers() == before


def test_a_handler_of_someone_else_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    try:
        with StopRequest():
            os.kill(os.getpid(), signal.SIGUSR1)
        assert heard == []
        os.kill(os.getpid(), signal.SIGUSR1)
        assert heard == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_one_that_was_not_asked_stops_as_on_sigterm() -> None:
    """Another process of the job was."""
    with StopRequest() as stop:
        assert stop.stopped("at once", Ranks()).status == 143


@pytest.mark.parametrize("first", SIGNALS, ids=NAMES)
def test_ctrl_c_after_a_request_interrupts(first: signal.Signals) -> None:
    def twice() -> None:
        with StopRequest() as stop:
            os.kill(os.getpid(), first)
            assert stop.asked
            os.kill(os.getpid(), signal.SIGINT)

    before = handlers()
    with pytest.raises(KeyboardInterrupt):
        twice()
    assert handlers() == before


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGUSR1])
def test_another_request_of_a_scheduler_does_not_interrupt(second: signal.Signals) -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), second)
        assert stop.asked


def test_outside_the_main_thread_it_hears_nothing_and_is_no_error() -> None:
    seen: list[object] = []

    def listen() -> None:
        try:
            with StopRequest() as stop:
                seen.append(handlers() == before)
                seen.append(stop.asked)
        except Exception as problem:
            seen.append(problem)

    before = handlers()
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == [True, False]
    assert handlers() == before


# A training run


@pytest.fixture(scope="module")
def whole(images: str, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Run folders that nothing stopped, by the number of processes."""
    folders = {world: tmp_path_factory.mktemp("whole") / str(world) for world in (1, 2)}
    for world, folder in folders.items():
        assert Attempt(images, str(folder), world=world, checkpoint_minutes=10.0).start() == [0] * world
    return folders


@pytest.mark.parametrize(
    ("number", "step", "rank"),
    [
        (signal.SIGTERM, 4, 1),
        (signal.SIGUSR1, UPDATES - 1, 0),  # the last of an epoch
        (signal.SIGUSR2, UPDATES + 7, 1),
        (signal.SIGINT, 0, 0),
    ],
)
@pytest.mark.parametrize("world", [pytest.param(1, marks=LONG), 2])
def test_a_stopped_run_ends_like_a_whole_one(
    images: str, whole: dict[int, Path], tmp_path: Path, world: int, number: signal.Signals, step: int, rank: int
) -> None:
    rank = min(rank, world - 1)  # the only one that is asked
    run = Attempt(images, str(tmp_path), world=world, checkpoint_minutes=10.0)
    codes = replace(run, kill_at=step, kill_rank=rank, with_signal=number).start()
    wanted = [128 + signal.SIGTERM] * world
    wanted[rank] = 128 + number
    assert codes == wanted
    newest = checkpoints.all_of(tmp_path)[0]
    assert checkpoints.read(newest)["progress"]["step"] == step + 1, "the update under way is finished and saved"
    assert run.start() == [0] * world
    assert digest(tmp_path) == digest(whole[world])
    assert metrics(tmp_path) == metrics(whole[world])
    for name in ("correct.npy", "correct_ema.npy"):
        assert (tmp_path / name).read_bytes() == (whole[world] / name).read_bytes()
