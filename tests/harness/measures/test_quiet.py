"""What others do is known from counters: made-up ones for what is decided, real neighbours for what is read."""

import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from statistics import median

import pytest
import torch

from harness.measures.card import others_on_card, sm_clock
from harness.measures.comparison import ratio
from harness.measures.quiet import (
    BLOCKS,
    LONGEST,
    UNWATCHED,
    Block,
    Watch,
    disturbance,
    measure_quietly,
    shares,
    unsteadiness,
    wait_for_quiet,
    watch,
)
from harness.measures.speed import MIN_SAMPLES, sample
from harness.process.usage import Usage, usage
from tests.harness.neighbours import neighbours

QUIET = Usage(1.0, 2.0, 2.0, waited=0.02, others=0.02, stolen=0.0, throttled=0.0, switches=5)
BUSY = Usage(1.0, 1.0, 2.0, waited=1.0, others=1.0, stolen=0.0, throttled=0.0, switches=400)


def of(*blocks: Usage) -> Watch:
    """A machine on which a block after the other spends this; the last one again and again."""
    total, position = Usage(0, 0, 0, 0, 0, 0, 0, 0), count()

    def read() -> Usage:
        nonlocal total
        number = next(position)
        total = total + blocks[min(number, len(blocks)) - 1] if number else total
        return total

    return Watch(read, lambda: None, lambda: None)


def ticks(*seconds: float) -> Callable[[], list[float]]:
    """Blocks of one call each, that take so long; the last one again and again."""
    position = count()
    return lambda: [seconds[min(next(position), len(seconds) - 1)]]


def test_a_quiet_machine_is_measured_for_as_long_as_is_asked_and_not_marked() -> None:
    found = measure_quietly(ticks(0.25), of(QUIET), 2.0, 4, unsteadiness)
    assert (found.times, found.disturbed, found.dropped) == ([0.25] * 8, None, 0.0)
    assert found.spent == Usage(8, 16, 16, 0.16, 0.16, 0, 0, 40)


def test_disturbed_blocks_are_dropped_by_what_disturbed_them_and_not_by_their_times() -> None:
    """The calls of the disturbed blocks were the fast ones."""
    found = measure_quietly(ticks(0.5, 0.1, 0.5, 0.1, 0.5), of(QUIET, BUSY, QUIET, BUSY, QUIET), 2.0, 4, unsteadiness)
    assert (found.times, found.disturbed) == ([0.5] * 4, None)
    assert found.dropped == pytest.approx(0.2 / 2.2)


def test_what_stays_disturbed_is_the_quietest_and_says_so() -> None:
    worse = replace(BUSY, waited=3.0)
    found = measure_quietly(ticks(1.0), of(worse, BUSY, worse, BUSY, worse), 2.0, 2, unsteadiness)
    assert len(found.blocks) == 2
    assert {block.spent.waited for block in found.blocks} == {1.0}
    assert found.disturbed == "threads waited 50 % of their time for a core"
    assert found.dropped == pytest.approx(1 - 2 / 6)  # it went on for three times as long


def test_a_slow_beginning_is_left_behind() -> None:
    """The newest blocks count, once they are steady."""
    times = [1.0] * 4 + [0.5] * 100
    found = measure_quietly(ticks(*times), of(QUIET), 4.0, 8, unsteadiness)
    assert (median(found.times), found.disturbed) == (0.5, None)
    assert found.times.count(1.0) < 4
    assert found.dropped > 0


def test_what_does_not_become_steady_is_marked() -> None:
    found = measure_quietly(ticks(*(1 + 0.1 * number for number in range(99))), of(QUIET), 4.0, 8, unsteadiness)
    assert found.disturbed is not None
    assert re.search(r"its times changed by \+\d+ %", found.disturbed)


@pytest.mark.parametrize(
    ("spent", "others", "said"),
    [
        (QUIET, 0.01, None),
        (BUSY, 0.5, "threads waited 50 % of their time for a core"),
        # More threads than cores, or data workers: they wait for each other, and nobody else is there.
        (BUSY, 0.01, None),
        # Neighbours on cores that nobody waits for.
        (QUIET, 0.5, None),
        (replace(BUSY, waited=None), 0.5, "threads had to leave their core 400 times per second"),
        (replace(QUIET, waited=None), 0.5, None),
        (replace(QUIET, stolen=0.4), 0.0, "the hypervisor took 20 % of the cores' time"),
        (replace(QUIET, throttled=0.3), 0.0, "a CPU quota stopped it 30 % of the time"),
        (Usage(1.0, 2.0, 2.0), 1.0, None),
    ],
)
def test_what_disturbs(spent: Usage, others: float, said: str | None) -> None:
    assert disturbance(spent, others) == said


def blocks(*times: float, clocks: tuple[float | None, ...] = (None,)) -> list[Block]:
    return [Block([each], QUIET, clocks[number % len(clocks)]) for number, each in enumerate(times)]


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        (blocks(*[1.0, 1.1] * 10), None),
        (blocks(*[1.0, 1.0, 1.0, 1.0, 9.0] * 4), None),  # a pause now and then does not move a median
        (blocks(*[1.0, 2.0] * 10), "the quartiles of its times are 67 % apart"),
        (blocks(*[1.0] * 10, *[1.25] * 10), "its times changed by +25 %"),
        (blocks(*[1.0] * 10, *[0.8] * 10), "its times changed by -20 %"),
        (blocks(*[1.0] * 10, *[1.02] * 10), None),
        (blocks(*[1.0] * 8, clocks=(1980, 1950)), None),
        (blocks(*[1.0] * 8, clocks=(1980, 1400)), "the clock fell to 71 %"),
    ],
)
def test_what_is_unsteady(measured: list[Block], said: str | None) -> None:
    assert unsteadiness(measured) == said


def test_shares() -> None:
    assert shares(BUSY) == {"cores_used": 1.0, "waited_share": 0.5, "others_share": 0.5, "stolen_share": 0.0}
    assert set(shares(Usage(1, 1, 1)).values()) == {1.0, None}


def test_it_waits_for_quiet_for_a_while() -> None:
    """A look takes a second of the made-up clock."""
    asleep: list[float] = []
    said: list[str] = []
    idle, taken = replace(QUIET, cpu=0.0), replace(QUIET, cpu=0.0, others=1.5)
    wait_for_quiet(of(taken, taken, idle), 10.0, said.append, asleep.append)
    assert len(asleep) == 3
    assert said == ["others use this machine: waiting up to 10 s for quiet"]
    wait_for_quiet(of(idle), 10.0, said.append, asleep.append)
    assert (len(asleep), len(said)) == (4, 1)
    wait_for_quiet(of(taken), 10.0, said.append, asleep.append)
    assert len(asleep) == 14
    wait_for_quiet(Watch(of(idle).usage, lambda: None, lambda: "another process"), 5.0, said.append, asleep.append)
    assert len(asleep) == 19


def test_a_ratio_drops_disturbed_blocks_and_one_that_stays_disturbed_ranks_nothing() -> None:
    seconds = {"A": 3.0, "B": 2.0}

    def timed(call: Callable[[], object]) -> float:
        return seconds[str(call())]

    found = ratio(lambda: "A", lambda: "B", timed, 1.0, of(BUSY, QUIET))
    assert (found.value, found.disturbed, found.decided) == (1.5, None, True)
    found = ratio(lambda: "A", lambda: "B", timed, 1.0, of(BUSY))
    assert (found.value, found.disturbed) == (1.5, "threads waited 50 % of their time for a core")
    assert not found.decided


# A GPU, by the answers of its driver through torch


def asked(monkeypatch: pytest.MonkeyPatch, *processes: int, used: int | Exception = 0) -> str | None:
    lines = [f"process {number:>10d} uses {100:>12.3f} MB GPU memory" for number in processes]
    listed = "\n".join(["GPU:0", *(lines or ["no processes are running"])])

    def utilization() -> int:
        if isinstance(used, Exception):
            raise used
        return used

    monkeypatch.setattr(torch.cuda, "list_gpu_processes", lambda: listed)
    monkeypatch.setattr(torch.cuda, "utilization", utilization)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    return others_on_card()


def test_others_on_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = os.getpid()
    assert asked(monkeypatch) is None
    assert asked(monkeypatch, mine, used=99) is None
    assert asked(monkeypatch, mine, 12, used=0) is None  # it only holds memory
    assert asked(monkeypatch, mine, 12, used=60) == "1 other process on the GPU kept it busy 60 % of the time"
    assert asked(monkeypatch, mine, 12, 13, used=RuntimeError("not supported")) == "2 other processes on the GPU"
    # In a container, one of the host's ids is this process.
    assert asked(monkeypatch, 4711, used=99) is None
    assert asked(monkeypatch, 4711, 4712, used=99) == "1 other process on the GPU kept it busy 99 % of the time"


def test_without_a_driver_or_its_package_nothing_is_known_of_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed")

    monkeypatch.setattr(
        torch.cuda, "list_gpu_processes", lambda: "pynvml module not found, please install nvidia-ml-py"
    )
    monkeypatch.setattr(torch.cuda, "clock_rate", missing)
    assert others_on_card() is None
    assert sm_clock() is None
    monkeypatch.setattr(torch.cuda, "list_gpu_processes", missing)
    assert others_on_card() is None


def test_what_others_do_on_the_card_marks_a_measurement() -> None:
    watching = Watch(of(QUIET).usage, lambda: 1980.0, lambda: "1 other process on the GPU")
    found = measure_quietly(ticks(1.0), watching, 4.0, 4, unsteadiness)
    assert found.disturbed == "1 other process on the GPU"
    assert watch("cuda").card is others_on_card
    assert watch("cpu").card() is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu() -> None:
    watching = watch("cuda")
    clock, card = watching.clock(), watching.card()
    assert clock is None or clock > 0
    assert card is None or "GPU" in card


# Real neighbours


def work() -> None:
    total = 0
    for number in range(20_000):
        total += number


def work_twice() -> None:
    work()
    work()


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


needs_counters = pytest.mark.skipif(
    usage().waited is None or usage().others is None, reason="this kernel does not say how long threads wait for a core"
)


@needs_counters
def test_beside_neighbours_a_measurement_is_marked_and_a_ratio_stays_true() -> None:
    with neighbours(3 * len(os.sched_getaffinity(0))):
        found = sample(work, timed, watch("cpu"), 0.3)
        twice = ratio(work_twice, work, timed, 0.3, watch("cpu"))
    assert found.disturbed is not None
    assert "for a core" in found.disturbed
    assert found.spent.cpu < 0.8 * found.spent.wall
    # Interleaved, it is what it is on a quiet machine, but nothing is ranked by it.
    assert twice.low < 2.2
    assert twice.high > 1.8
    assert twice.disturbed is not None
    assert not twice.decided


@needs_counters
def test_a_quiet_machine_is_not_marked() -> None:
    began = usage()
    time.sleep(0.3)
    found = sample(work, timed, watch("cpu"), 0.3)
    whole = usage() - began
    assert whole.others is not None
    if whole.others > 0.02 * whole.cores or (whole.stolen or 0.0) > 0.02 * whole.cores:
        pytest.skip(f"other processes used {100 * whole.others / whole.cores:.0f} % of this machine meanwhile")
    assert found.disturbed is None
    assert len(found.times) >= MIN_SAMPLES


def test_unwatched_is_never_marked() -> None:
    found = sample(lambda: None, lambda call: 1.0, UNWATCHED, 1.0)
    assert (found.disturbed, found.dropped, len(found.times)) == (None, 0.0, MIN_SAMPLES)
    assert BLOCKS > 1 < LONGEST
