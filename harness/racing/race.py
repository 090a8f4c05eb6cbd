"""Candidates measured in turn, once each of them is known to be correct."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median, quantiles
from typing import Any

from torch import Tensor

from attentions import used_paths
from harness.cells import Runtime
from harness.certificate.subject import Broken, at, require
from harness.measures.card import EXPECTED
from harness.measures.comparison import Interleaved, Ratio, clock_of, interleaved, repeated
from harness.measures.memory import peak_above, saved_for_backward
from harness.measures.quiet import PATIENCE, Block, Watch, wait_for_quiet, watch
from harness.measures.roofline import Needed
from harness.measures.sdpa import kernels_of, shown
from harness.measures.speed import Timer, warm_up
from harness.process.determinism import numerics
from harness.process.environment import check_device
from harness.process.errors import is_out_of_memory
from harness.racing.candidates import Candidate, Foreign, Work, check_runtimes
from harness.racing.entries import Entry, check_layers, entered
from harness.racing.gate import check
from harness.racing.places import Place
from harness.runtimes.sessions import Deployed

SAMPLE = 2e-3
"""Seconds that a sample on a CPU takes at least: what is shorter is called several times, or the clock would count."""

OWN = 0.01
"""Share of a time that may be the harness's own, without a mark."""

EMPTY = 20
"""Samples of an empty call, by which the harness's own time is known."""


@dataclass(frozen=True)
class Setup:
    """How a race is run: what is timed, and for how many seconds per candidate; `runtime` has device and batch."""

    work: Work
    runtime: Runtime
    min_seconds: float = 2.0
    layer: bool = False
    gate: bool = True


@dataclass(frozen=True)
class Result:
    """What is known of a candidate at a place: why it has no number, or its numbers.

    seconds: of a call, two per round; what the harness itself takes of them is `own_share`. ratio: its time over the
    baseline's. peak_mib: above parameters and inputs. saved_mib: what forward keeps for backward, parameters apart;
    None without a backward pass. paths: see `attentions.used_paths`. repeats: calls per sample. needed: what it must
    move and do at least. runtime: that of an exported graph, and what is known of the graph.
    """

    candidate: str
    checked: str = ""
    problem: str | None = None
    out_of_memory: bool = False
    seconds: tuple[float, ...] = ()
    ratio: Ratio | None = None
    peak_mib: float | None = None
    saved_mib: float | None = None
    sdpa_kernel: str | None = None
    paths: str | None = None
    repeats: int = 1
    own_share: float = 0.0
    needed: Needed | None = None
    runtime: dict[str, Any] | None = None

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """The lower quartile, the median and the upper quartile of the seconds."""
        low, middle, high = quantiles(self.seconds, n=4, method="inclusive")
        return low, middle, high


@dataclass(frozen=True)
class Measured:
    """The results at one place, in the order of the candidates, and the rounds behind them (None if nothing ran).

    `ran`: the candidates that were timed, in the order of the rounds' calls.
    """

    place: str
    results: tuple[Result, ...]
    ran: tuple[int, ...] = ()
    rounds: Interleaved | None = None

    @property
    def disturbed(self) -> str | None:
        return None if self.rounds is None else self.rounds.quiet.disturbed


def race(
    candidates: Sequence[Candidate],
    place: Place | None,
    setup: Setup,
    report: Callable[[str], None],
    *,
    timed: Timer | None = None,
    watching: Watch | None = None,
) -> Measured:
    """Race candidates at a place, or models (place None); the first one is the baseline.

    A candidate that cannot be built, is wrong or runs out of memory has a `problem` and no number. Tests replace the
    clock and where it is learned what others do.

    Raises:
        ValueError: where the device is missing, or a layer is asked for where there is none.
    """
    device = setup.runtime.device
    check_device(device)
    check_runtimes(candidates, setup.work, device)
    if setup.layer:
        check_layers([] if place is None else [place])
    label = "" if place is None else place.label
    with numerics(compiled=any(each.mode == "compiled" for each in candidates)):
        results: list[Result] = []
        calls: dict[int, Callable[[], Any]] = {}
        tensors: list[Tensor] = []
        for at_, candidate in enumerate(candidates):
            report(f"{label} {candidate.label}: checking".strip())
            result, ready = _prepared(candidate, place, setup)
            results.append(result)
            if ready is not None:
                calls[at_], entry = ready
                tensors += entry.held
        if not calls:
            return Measured(label, tuple(results))
        timed, watching = timed or clock_of(device), watching or watch(device)
        wait_for_quiet(watching, PATIENCE * setup.min_seconds, report)
        report(f"{label} measuring".strip())
        ran = tuple(calls)
        repeats = [results[each].repeats for each in ran]
        in_turn = [calls[each] for each in ran]
        min_seconds = setup.min_seconds * len(ran)
        rounds = interleaved(in_turn, timed, min_seconds, watching, _slowed, repeats, tensors)
        for turn, each in enumerate(ran):
            seconds = tuple(rounds.times(turn))
            empty = median(timed(repeated(_nothing, repeats[turn])) for _ in range(EMPTY)) / repeats[turn]
            results[each] = replace(
                results[each],
                seconds=seconds,
                ratio=rounds.ratio(turn, 0) if ran[0] == 0 and each else None,
                own_share=empty / median(seconds),
            )
        return Measured(label, tuple(results), ran, rounds)


def _prepared(
    candidate: Candidate, place: Place | None, setup: Setup
) -> tuple[Result, tuple[Callable[[], Any], Entry] | None]:
    """Build, check and warm up a candidate, and return its call; without one it has a problem."""
    device, result = setup.runtime.device, Result(candidate.label)
    try:
        with at(candidate.label):
            entry = entered(candidate, place, setup.work, setup.runtime, layer=setup.layer)
            if isinstance(entry.module, Deployed):
                result = replace(result, runtime=entry.module.about)
            if setup.gate:
                result = replace(result, checked=check(entry, setup.work))
            saved = None if setup.work == "forward" else _saved(entry)
            call = entry.call(setup.work)
            warm_up(call, device, setup.min_seconds / 4)
            peak = peak_above(call, device)
            with used_paths() as paths:
                kernel = kernels_of(call)
            forced = candidate.path
            # One that is not ours is always plain: what is forced is how the layer around it is computed.
            own = {"plain"} if isinstance(candidate.what, Foreign) else paths
            require(forced is None or forced in own, candidate.label, f"has no path {forced!r} here")
            repeats = 1 if device == "cuda" else _repeats(call)
    except Broken as broken:
        if is_out_of_memory(broken):
            return replace(result, problem="out of memory", out_of_memory=True), None
        return replace(result, problem=str(broken).removeprefix(f"{candidate.label}: ")), None
    return replace(
        result,
        peak_mib=peak,
        saved_mib=saved,
        sdpa_kernel=kernel,
        paths=shown(paths),
        repeats=repeats,
        needed=entry.needed(setup.work),
    ), (call, entry)


def _saved(entry: Entry) -> float:
    run = entry.run()
    run()  # what is compiled now has no hooks in it
    return saved_for_backward(run, entry.parameters.values())


def _repeats(call: Callable[[], Any]) -> int:
    began = time.perf_counter()
    call()
    return max(1, math.ceil(SAMPLE / max(time.perf_counter() - began, 1e-6)))


def _nothing() -> None:
    """Take no time."""


def _slowed(blocks: Sequence[Block]) -> str | None:
    """Return why a GPU was slowed down beyond its power cap, as a sentence; None if it was not."""
    found = {each for block in blocks for each in block.state.throttles or ()} - EXPECTED
    return f"the GPU was slowed down: {', '.join(sorted(found))}" if found else None


def mean_ratio(ratios: Sequence[Ratio]) -> Ratio:
    """Return the geometric mean of the ratios of one candidate at several places, with its 95 % interval.

    The limits are combined on the scale of logarithms as those of independent estimates (MOVER; Zou and Donner,
    Statistics in Medicine 27, 2008): their distances from the values are added in squares.
    """
    values, lows, highs = ([math.log(getattr(each, name)) for each in ratios] for name in ("value", "low", "high"))
    middle = sum(values) / len(values)
    below = math.sqrt(sum((v - x) ** 2 for v, x in zip(values, lows, strict=True))) / len(values)
    above = math.sqrt(sum((x - v) ** 2 for v, x in zip(values, highs, strict=True))) / len(values)
    disturbed = next((each.disturbed for each in ratios if each.disturbed), None)
    return Ratio(
        math.exp(middle),
        math.exp(middle - below),
        math.exp(middle + above),
        sum(each.blocks for each in ratios),
        disturbed,
    )
