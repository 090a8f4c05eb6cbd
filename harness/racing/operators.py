"""Which operator makes an attention slow: what each takes in a forward pass of a model, in one of the runtimes.

A model goes through the gate of a race first, and so does the session that is profiled. Passes with a profile and
without one are then timed in turn: what profiling costs is known, and the operators add up to a pass that has it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Protocol

from harness.cells import Runtime
from harness.certificate.subject import Broken, at
from harness.measures.comparison import Ratio, clock_of, interleaved
from harness.measures.parts import OUTSIDE, Profiler
from harness.measures.quiet import PATIENCE, Watch, wait_for_quiet, watch
from harness.measures.speed import warm_up
from harness.process.determinism import numerics
from harness.process.environment import check_device
from harness.process.errors import is_out_of_memory
from harness.racing.candidates import Candidate, check_runtimes
from harness.racing.entries import Entry, entered
from harness.racing.gate import check
from harness.runtimes.profiles import Profile
from harness.runtimes.sessions import Deployed

BOUND = 1.1
"""Up to how much slower a pass may be with its profile, for its operators to be said to be those of a pass without."""


@dataclass(frozen=True)
class Row:
    """An operator in a pass: how often it is called, and the seconds that it takes there itself, both on average.

    part, where: see harness/measures/parts.py; None in other runtimes than torch.
    """

    operator: str
    part: str | None
    where: str | None
    calls: float
    seconds: float


@dataclass(frozen=True)
class Operators:
    """The operators of a model in a runtime, the slowest first, which add up to `profiled`; or why there are none.

    plain, profiled: seconds of a pass without and with its profile: the median, and the mean of those of the operators.
    cost: the time with over that without. runtime: that of an exported graph, and what is known of it.
    """

    attention: str
    runtime: str
    checked: str = ""
    problem: str | None = None
    rows: tuple[Row, ...] = ()
    plain: float = 0.0
    profiled: float = 0.0
    cost: Ratio | None = None
    details: dict[str, Any] | None = None


class _Profiled(Protocol):
    """A call that is profiled whenever it is made; `last` has the seconds of the pass alone."""

    last: float

    def __call__(self) -> None: ...

    def start(self) -> None:
        """Forget all passes."""

    def rows(self) -> tuple[float, list[Row]]:
        """Return the mean seconds of a pass, and the operators in it."""


class _InTorch(Profiler):
    def rows(self) -> tuple[float, list[Row]]:
        seconds, found = self.spent()
        return seconds, [Row(*operator, *spent) for operator, spent in found.items()]


class _InSession:
    def __init__(self, call: Callable[[], object], profile: Profile) -> None:
        self._call, self._profile = call, profile
        self.start()

    def start(self) -> None:
        self._profile.start()
        self._passes, self._seconds, self.last = 0, 0.0, 0.0

    def __call__(self) -> None:
        began = time.perf_counter()
        self._call()
        self.last = time.perf_counter() - began
        self._passes, self._seconds = self._passes + 1, self._seconds + self.last

    def rows(self) -> tuple[float, list[Row]]:
        seconds, found = self._seconds / self._passes, self._profile.spent()
        outside = seconds - sum(took for _, took in found.values())
        return seconds, [
            *(Row(name, None, None, *spent) for name, spent in found.items()),
            Row(OUTSIDE, None, None, 0.0, outside),
        ]


def operators(
    candidate: Candidate,
    runtime: Runtime,
    min_seconds: float,
    report: Callable[[str], None],
    *,
    watching: Watch | None = None,
) -> Operators:
    """Say what the operators of a model take in the runtime of the candidate, in a forward pass of a batch.

    What is wrong there, does not export or does not fit has a `problem`. `min_seconds`: the least time to measure for.

    Raises:
        ValueError: where the device is missing, or the runtime does not do what is asked for.
    """
    check_device(runtime.device)
    check_runtimes([candidate], "forward", runtime.device)
    result = Operators(candidate.label, candidate.runtime)
    with numerics(compiled=False):
        report(f"{candidate.label} in {candidate.runtime}: checking")
        try:
            with at(candidate.label):
                entry = entered(candidate, None, "forward", runtime)
                if isinstance(entry.module, Deployed):
                    result = replace(result, details=entry.module.about)
                result = replace(result, checked=check(entry, "forward"))
                call = entry.call("forward")
                profiled = _profiled(entry, call, runtime)
                warm_up(call, runtime.device, min_seconds / 4)
                profiled()
        except Broken as broken:
            problem = str(broken).removeprefix(f"{candidate.label}: ")
            return replace(result, problem="out of memory" if is_out_of_memory(broken) else problem)
        watching, clock = watching or watch(runtime.device), clock_of(runtime.device)

        def timed(each: Callable[[], object]) -> float:
            if each is not profiled:
                return clock(each)
            # Twice, as the clock of a CPU does.
            profiled()
            profiled()
            return profiled.last

        wait_for_quiet(watching, PATIENCE * min_seconds, report)
        report(f"{candidate.label} in {candidate.runtime}: measuring")
        profiled.start()
        rounds = interleaved((call, profiled), timed, min_seconds, watching, tensors=entry.held)
        seconds, rows = profiled.rows()
    return replace(
        result,
        rows=tuple(sorted(rows, key=lambda row: -row.seconds)),
        plain=median(rounds.times(0)),
        profiled=seconds,
        cost=rounds.ratio(1, 0),
    )


def _profiled(entry: Entry, call: Callable[[], object], runtime: Runtime) -> _Profiled:
    """Return the call with a profile. Raises Broken where a session is wrong once it notes its nodes."""
    if not isinstance(entry.module, Deployed):
        return _InTorch(call, entry.module, runtime.device)
    noting = entry.module.profiled()
    twin = replace(entry, module=noting)
    check(twin, "forward")
    assert noting.session.profile is not None
    return _InSession(twin.call("forward"), noting.session.profile)
