"""The law of all sites: random ones, of which hypothesis finds the simplest that fails."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

from attentions import Attention, Grid, Site
from harness.certificate.subject import SAME, Broken, Case, Subject, difference
from harness.process.errors import first_line

EXAMPLES, QUICK_EXAMPLES = 60, 8


@st.composite
def cases(draw: st.DrawFn, subject: Subject) -> Case:
    """Draw a site with few tokens; its keys are on the grid of the queries or on a grid of their own."""
    heads, head_dim = draw(st.integers(1, 4)), draw(st.sampled_from((8, 4, 1, 2, 3, 16, 32, 64)))
    prefix = draw(st.integers(0, 2))
    queries = Grid(draw(st.integers(1, 7)), draw(st.integers(1, 7)), prefix)
    keys = draw(st.just(queries) | st.builds(Grid, st.integers(1, 7), st.integers(1, 7), st.just(prefix)))
    regions = draw(st.sampled_from((1, 4))) if subject.attention.takes_regions and keys == queries and not prefix else 1
    return Case("random site", Site(heads * head_dim, heads, queries, keys, regions), draw(st.integers(1, 3)))


def random_sites(subject: Subject) -> str:
    """At any site it is refused in one line, or it is finite and equals its definition."""
    seen: dict[str, int] = {"mounted": 0, "refused": 0}
    failing: list[tuple[Case, str]] = []

    @settings(
        max_examples=QUICK_EXAMPLES if subject.quick else EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )
    @given(cases(subject))
    def every(case: Case) -> None:
        problem = _problem(subject, case, seen)
        if problem is not None:
            failing.append((case, problem))
            raise _Found

    try:
        with _temporary_cache():
            every()
    except _Found:
        # The last one that hypothesis runs is the simplest one found.
        case, problem = failing[-1]
        raise Broken(f"{case}: {problem}") from None
    return f"{seen['mounted']} sites, {seen['refused']} more refused" if seen["refused"] else f"{seen['mounted']} sites"


@contextmanager
def _temporary_cache() -> Iterator[None]:
    """Let hypothesis cache in a temporary folder rather than the user's."""
    with tempfile.TemporaryDirectory() as folder:
        set_hypothesis_home_dir(folder)
        try:
            yield
        finally:
            set_hypothesis_home_dir(None)


class _Found(Exception):
    """The failure that hypothesis finds again while it simplifies."""


def _problem(subject: Subject, case: Case, seen: dict[str, int]) -> str | None:
    """Return what is wrong at a site, or None."""
    try:
        subject.build(case.site)
    except ValueError as refusal:
        seen["refused"] += 1
        return None if "\n" not in str(refusal) else f"the refusal is of several lines: {str(refusal)!r}"
    except Exception as problem:
        return f"{type(problem).__name__} in the constructor: {first_line(problem)}"
    seen["mounted"] += 1
    try:
        module, inputs = subject.randomised(case.site), subject.inputs(case)
        out = module(**inputs)
        if tuple(out.shape) != (case.batch, case.site.queries.tokens, case.site.dim):
            return f"returned {tuple(out.shape)}"
        if not out.isfinite().all():
            return "not finite on standard normal inputs"
        if subject.attention.naive is not Attention.naive:
            gap = difference(out, module.naive(**inputs))
            if gap >= SAME:
                return f"differs from naive() by {gap:.1e} of its norm"
    except Exception as problem:
        return f"{type(problem).__name__}: {first_line(problem)}"
    return None
