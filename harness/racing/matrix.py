"""Attentions in a backbone in several runtimes: one race, and the ratios of each to torch and to softmax there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from attentions import AttentionSpec
from harness.measures.comparison import Ratio
from harness.measures.quiet import Watch
from harness.racing.candidates import Candidate, in_model
from harness.racing.entries import entered
from harness.racing.race import Measured, Result, Setup, race
from harness.runtimes.bisection import said_of_first_wrong
from harness.runtimes.exports import Exportable
from harness.runtimes.formats import RUNTIMES


@dataclass(frozen=True)
class Row:
    """An attention in a backbone, as a runtime runs it: its result, and its time over two others of the same race.

    over_torch: over the same model in eager torch; over_softmax: over the backbone with softmax in the same runtime.
    None where one of the two has no time, or it is itself. first_wrong: where the runtime is wrong, a sentence on the
    first part of the model that differs.
    """

    backbone: str
    attention: str
    runtime: str
    result: Result
    over_torch: Ratio | None
    over_softmax: Ratio | None
    first_wrong: str | None = None


def matrix(
    backbone: str,
    attentions: Sequence[Candidate],
    runtimes: Sequence[str],
    setup: Setup,
    report: Callable[[str], None],
    *,
    watching: Watch | None = None,
) -> list[Row]:
    """Race a backbone with each of the attentions, in eager torch and in each of the runtimes; rows in this order.

    Raises:
        ValueError: as `in_model` and `race` do.
    """
    candidates: list[Candidate] = []
    keys: list[tuple[str, str]] = []
    for each in attentions:
        model = in_model(each, backbone)
        for runtime in ("torch", *runtimes):
            keys.append((each.label, runtime))
            label = each.label if runtime == "torch" else f"{each.label}@{runtime}"
            candidates.append(replace(model, label=label, runtime=runtime))
    measured = race(candidates, None, setup, lambda line: report(f"{backbone} {line}"), watching=watching)
    at: dict[tuple[str | None, str], int] = {key: number for number, key in enumerate(keys)}
    softmax = next((each.label for each in attentions if each.what == AttentionSpec.of("softmax")), None)
    rows = []
    for (attention, runtime), result in zip(keys, measured.results, strict=True):
        own, others = at[attention, runtime], [(attention, "torch"), (softmax, runtime)]
        over_torch, over_softmax = (_ratio(measured, own, at.get(other)) for other in others)
        first = None
        if runtime != "torch" and (result.problem or "").startswith("wrong: "):
            report(f"{backbone} {candidates[own].label}: looking for the first part that differs")
            first = _first_wrong(candidates[own], setup)
        rows.append(Row(backbone, attention, runtime, result, over_torch, over_softmax, first))
    return rows


def _first_wrong(candidate: Candidate, setup: Setup) -> str:
    """Return one line on the first part of a raced model that its runtime computes wrongly."""
    eager = entered(replace(candidate, runtime="torch"), None, setup.work, setup.runtime)
    subject = Exportable(eager.module, eager.args, candidate.reference, eager.kwargs)
    return said_of_first_wrong(subject, RUNTIMES[candidate.runtime])


def _ratio(measured: Measured, own: int, other: int | None) -> Ratio | None:
    """Return the ratio of two candidates by their numbers, if both were timed and they are two."""
    if other is None or own == other or not {own, other} <= set(measured.ran) or measured.rounds is None:
        return None
    return measured.rounds.ratio(measured.ran.index(own), measured.ran.index(other))
