"""Times of several calls, measured interleaved in one process, and their ratios: how any two things are compared."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from torch import Tensor

from backbones import BackboneSpec, build
from harness.cells import Runtime
from harness.cells.runtime import Device, Workload
from harness.measures.memory import held, move
from harness.measures.quiet import (
    BLOCKS,
    PATIENCE,
    Block,
    Quiet,
    Watch,
    measure_quietly,
    wait_for_quiet,
    watch,
)
from harness.measures.speed import Timer, prepare, timer, warm_up
from harness.process.determinism import numerics

PARTS = 10
"""Parts of its rounds by which the interval of a ratio is found; a ratio has as many rounds at least."""

RANK = 9
"""The limits of the interval are the so many smallest and so many largest mean of two of `PARTS` values: by Wilcoxon's
signed ranks they hold the middle of a symmetric distribution in 95.1 % of all cases (Hollander and Wolfe, Nonparametric
Statistical Methods, 3.3)."""

SEED = 0
"""Of the order of calls in each round."""


@dataclass(frozen=True)
class Ratio:
    """Time of A over time of B: its middle over interleaved rounds and the 95 % interval, see `middle`.

    `blocks`: the number of rounds. `disturbed`: what disturbed the measurement, as a sentence; None where the machine
    was quiet.
    """

    value: float
    low: float
    high: float
    blocks: int
    disturbed: str | None = None

    @property
    def decided(self) -> bool:
        """Whether A and B may be ranked: the measurement was undisturbed, and the interval does not contain 1."""
        return self.disturbed is None and not self.low <= 1 <= self.high


@dataclass(frozen=True)
class Interleaved:
    """The quiet blocks of a measurement in rounds, in which each call has two samples; see `interleaved`.

    Whatever the order in a round was, its times are those of all calls in the first half and those in the second, each
    half in the order of the calls. `repeats`: of each call, how many times it runs in a sample.
    """

    quiet: Quiet
    repeats: tuple[int, ...]

    def times(self, call: int) -> list[float]:
        """Return the seconds of one run of a call, two per round."""
        return [t / self.repeats[call] for t in self.quiet.times[call :: len(self.repeats)]]

    def ratios(self, a: int, b: int, block: Block | None = None) -> list[float]:
        """Return the time of call `a` over that of `b` in each round of all blocks, or of one."""
        times, calls = self.quiet.times if block is None else block.times, len(self.repeats)
        sums = [
            [x + y for x, y in zip(times[c :: 2 * calls], times[c + calls :: 2 * calls], strict=True)] for c in (a, b)
        ]
        return [x / self.repeats[a] / (y / self.repeats[b]) for x, y in zip(*sums, strict=True)]

    def ratio(self, a: int, b: int) -> Ratio:
        """Return the time of call `a` over that of `b`.

        Beside others, ratios are far from symmetric: where the machine was disturbed, the interval also encloses that
        of their median by signs, which assumes no distribution.
        """
        ratios = self.ratios(a, b)
        value, low, high = middle(ratios)
        if self.quiet.disturbed is not None:
            from scipy.stats import quantile_test

            by_signs = quantile_test(ratios, p=0.5).confidence_interval(0.95)
            low, high = min(low, float(by_signs.low)), max(high, float(by_signs.high))
        return Ratio(value, low, high, len(ratios), self.quiet.disturbed)


def interleaved(
    calls: Sequence[Callable[[], object]],
    timed: Timer,
    min_seconds: float,
    watching: Watch,
    unsteady: Callable[[Sequence[Block]], str | None] = lambda blocks: None,
    repeats: Sequence[int] | None = None,
    tensors: Sequence[Tensor] = (),
) -> Interleaved:
    """Time calls in rounds such as B A C C A B, for at least `min_seconds` in all and `PARTS` rounds.

    In each round the order is drawn anew, and its second half mirrors the first: a steady drift cancels in each, and
    what a turn costs (who ran before) in all. `repeats`: how many times each call runs in a sample (default: once);
    short calls are lost in the clock otherwise. `tensors`: what the calls hold, which is moved in
    memory before each round; see `move`.

    Blocks in which others used the machine are dropped, as far as `watching` knows of them, and those that are
    `unsteady`, see `measure_quietly`. By default none is: times of the calls differ, and what drifts cancels.
    """
    repeats = repeats or (1,) * len(calls)
    samples = [repeated(call, times) for call, times in zip(calls, repeats, strict=True)]
    turns, draws = list(range(len(samples))), random.Random(SEED)

    def some() -> list[float]:
        times: list[float] = []
        while not times or sum(times) < min_seconds / BLOCKS:
            move(tensors, draws)
            draws.shuffle(turns)
            for half in (turns, turns[::-1]):
                in_turn = {call: timed(samples[call]) for call in half}
                times += [in_turn[call] for call in range(len(samples))]
        return times

    found = measure_quietly(some, watching, min_seconds, 2 * len(samples) * PARTS, unsteady)
    return Interleaved(found, tuple(repeats))


def clock_of(device: Device) -> Timer:
    """Return the clock of a device for calls in turn. On a CPU it times the second of two, so that each follows itself.

    Caches would otherwise hold what another call has left there, which is not the same for all: of 26 races of
    softmax with itself, 11 found a difference, and 2 with this. A GPU's cache is overwritten before each sample.
    """
    clock = timer(device)
    if device == "cuda":
        return clock

    def second(call: Callable[[], object]) -> float:
        call()
        return clock(call)

    return second


def repeated(call: Callable[[], object], times: int) -> Callable[[], object]:
    """Return a call that runs `call` so many times."""
    if times == 1:
        return call

    def several() -> None:
        for _ in range(times):
            call()

    return several


def compare(
    a: BackboneSpec, b: BackboneSpec, runtime: Runtime, work: Workload = "infer", min_seconds: float = 2.0
) -> Ratio:
    """Return the time of a batch of `a` over that of `b`, measured in turn here; raises as `measure_speed`."""
    with numerics(compiled=runtime.mode == "compiled"):
        models = [build(spec) for spec in (a, b)]
        call_a, call_b = (
            prepare(model, (spec.in_channels, *spec.image_size), spec.num_classes, runtime, work)
            for model, spec in zip(models, (a, b), strict=True)
        )
        warm_up(call_a, runtime.device, min_seconds / 4)
        warm_up(call_b, runtime.device, min_seconds / 4)
        watching = watch(runtime.device)
        wait_for_quiet(watching, PATIENCE * min_seconds, lambda text: None)
        return ratio(call_a, call_b, clock_of(runtime.device), min_seconds, watching, held(*models))


def ratio(
    a: Callable[[], object],
    b: Callable[[], object],
    timed: Timer,
    min_seconds: float,
    watching: Watch,
    tensors: Sequence[Tensor] = (),
) -> Ratio:
    """Return the time of `a` over that of `b`, from rounds A B B A or B A A B; see `interleaved`."""
    return interleaved((a, b), timed, min_seconds, watching, tensors=tensors).ratio(0, 1)


def middle(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Return the middle of ratios, in the order of their time, and its 95 % interval.

    The ratios are split into `PARTS` parts, each of which counts as its median. The middle is the median of the
    geometric means of two parts (Hodges and Lehmann, Annals of Mathematical Statistics 34, 1963), and the limits are
    among these means (`RANK`). It assumes that the medians of parts are independent, and symmetric about the middle;
    within a part, ratios may depend on each other, as they do where a machine changes its pace.

    Raises ValueError for fewer than `PARTS` ratios.
    """
    n = len(ratios)
    if n < PARTS:
        raise ValueError(f"{n} rounds have no interval of 95 %; {PARTS} is the least")
    parts = [median(ratios[n * part // PARTS : n * (part + 1) // PARTS]) for part in range(PARTS)]
    means = sorted(math.sqrt(x * y) for at, x in enumerate(parts) for y in parts[at:])
    return median(means), means[RANK - 1], means[-RANK]
