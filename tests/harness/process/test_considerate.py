"""Threads of libgomp make way for others: when they do, that they do, that no bit changes, and what it gains."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from backbones import build, preset
from harness.process import considerate as module
from harness.process.considerate import BUSY, QUIET, Threads, considerate
from harness.process.run_queue import run_queue
from harness.process.waiting import SPINS
from tests.harness.neighbours import neighbours
from tests.nightly import LONG

ROOT = Path(__file__).parents[3]

needs_libgomp = pytest.mark.skipif(
    module._libgomp() is None or len(os.sched_getaffinity(0)) < 2 or os.environ.get("GOMP_SPINCOUNT") != SPINS,
    reason="torch's threads are not libgomp's, there is one core, or the policy is not ours",
)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def threads(two_threads: None) -> Iterator[Threads]:
    made = Threads()
    yield made
    made.spin()


COUNTS = """
import os, resource, time
import torch
from harness.process.considerate import Threads
torch.set_num_threads(2)
values = torch.ones(300_000)
def times_slept():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    for _ in range(100):
        values.add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before
times_slept()  # the team is made
threads, tasks = Threads(), len(os.listdir("/proc/self/task"))
for _ in range(2):
    print(min(times_slept() for _ in range(3)))
    threads.sleep()
    time.sleep(0.1)
    print(min(times_slept() for _ in range(3)))
    threads.spin()
    while len(os.listdir("/proc/self/task")) > tasks:
        time.sleep(0.01)
"""


@needs_libgomp
def test_threads_sleep_at_once_and_spin_again() -> None:
    # Those that spin for ever never sleep, whatever else the machine does; with a limit they do beside other tests.
    environment = os.environ | {"GOMP_SPINCOUNT": "infinity"}
    ran = subprocess.run(
        [sys.executable, "-c", COUNTS], cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    spinning, sleeping, spinning_again, sleeping_again = map(int, ran.stdout.split())
    assert min(sleeping, sleeping_again) > 50 > 20 > max(spinning, spinning_again)


@needs_libgomp
def test_no_thread_is_left_behind(threads: Threads) -> None:
    torch.ones(300_000).add_(1)  # the team is made
    threads.sleep()
    time.sleep(0.1)
    more = len(os.listdir("/proc/self/task"))
    threads.spin()
    deadline = time.monotonic() + 10
    while len(os.listdir("/proc/self/task")) > more - 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@needs_libgomp
def test_the_bits_are_the_same(threads: Threads) -> None:
    spec = preset("pvt_v2_micro")
    model = build(spec)
    images = torch.randn(8, 3, *spec.image_size)

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(images).square().sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    before = gradients()
    threads.sleep()
    time.sleep(0.1)
    for one, other in zip(before, gradients(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


class Counters:
    """Of the kernel: seconds that threads waited and worked, as a test tells them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waited: float | None = 1.0
        self.worked = 1.0
        monkeypatch.setattr(module, "run_queue", lambda: self.waited)
        monkeypatch.setattr(time, "process_time", lambda: self.worked)

    def pass_time(self, waited: float, worked: float) -> None:
        assert self.waited is not None
        self.waited += waited
        self.worked += worked


@needs_libgomp
def test_what_they_do_follows_from_how_long_they_waited(monkeypatch: pytest.MonkeyPatch, two_threads: None) -> None:
    counters = Counters(monkeypatch)
    threads = Threads()

    def after(share: float) -> bool:
        counters.pass_time(share, 1 - share)
        threads.look()
        before = threads.slept
        time.sleep(0.01)
        return threads.slept > before

    shares = [0.0, 0.9 * BUSY, 1.1 * BUSY, 1.1 * QUIET, 0.9 * QUIET, 1.1 * QUIET, 0.8]
    assert [after(share) for share in shares] == [False, False, True, True, False, False, True]
    counters.pass_time(-5.0, 0.5)  # threads that waited long have ended
    assert after(0.0) is False


@needs_libgomp
def test_who_hardly_works_is_not_in_the_way(monkeypatch: pytest.MonkeyPatch, two_threads: None) -> None:
    counters = Counters(monkeypatch)
    threads = Threads()
    counters.pass_time(0.01, 0.0)
    threads.look()
    assert threads.slept == 0


def test_where_waiting_is_not_counted_nothing_is_done(monkeypatch: pytest.MonkeyPatch, two_threads: None) -> None:
    counters = Counters(monkeypatch)
    counters.waited = None
    threads = Threads()
    threads.look()
    counters.worked = 9.0
    threads.look()
    assert threads.slept == 0


@pytest.mark.parametrize("reason", ["no libgomp", "one thread"])
def test_where_threads_do_not_wait_for_each_other_nothing_is_done(
    monkeypatch: pytest.MonkeyPatch, two_threads: None, reason: str
) -> None:
    if reason == "no libgomp":
        monkeypatch.setattr(module, "_libgomp", lambda: None)
    else:
        torch.set_num_threads(1)
    threads = Threads()
    threads.sleep()
    time.sleep(0.01)
    assert threads.slept == 0


def test_a_policy_of_the_users_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.setattr(Threads, "look", lambda threads: pytest.fail("looked"))
    with considerate():
        pass


@pytest.mark.skipif(os.environ.get("GOMP_SPINCOUNT") != SPINS, reason="the policy is not ours")
def test_they_are_looked_after_in_the_block_and_spin_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(Threads, "look", lambda threads: done.append("look"))
    monkeypatch.setattr(Threads, "spin", lambda threads: done.append("spin"))
    monkeypatch.setattr(module, "LOOK", 0.01)
    with considerate():
        while len(done) < 3:
            time.sleep(0.01)
    assert (done[:3], done[-1], done.count("spin")) == (["look"] * 3, "spin", 1)


STEPS = """
import sys, time
from harness.process.waiting import set_wait_policy
set_wait_policy()
import torch
from backbones import build, preset
from harness.process.considerate import considerate
torch.set_num_threads(2)
spec = preset("pvt_v2_micro")
model = build(spec)
images = torch.randn(16, 3, *spec.image_size)
def steps(seconds):
    began, made = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        model(images).sum().backward()
        made += 1
    return made
for line in sys.stdin:
    if line == "spinning\\n":
        steps(1)
        print(steps(3), flush=True)
    else:
        with considerate():
            steps(2)
            print(steps(3), flush=True)
"""


@LONG
@needs_libgomp
@pytest.mark.skipif(run_queue() is None, reason="this kernel does not count how long threads wait for a core")
def test_beside_neighbours_steps_are_made_several_times_as_fast() -> None:
    with (
        subprocess.Popen(
            [sys.executable, "-c", STEPS],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: os.environ[name] for name in set(os.environ) - {"GOMP_SPINCOUNT", "OMP_NUM_THREADS"}},
        ) as process,
        neighbours(6),
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        made = []
        for how in ("spinning", "considerate") * 2:
            process.stdin.write(f"{how}\n")
            process.stdin.flush()
            made.append(int(process.stdout.readline()))
        process.kill()
    assert sum(made[1::2]) > 3 * sum(made[::2]), made
