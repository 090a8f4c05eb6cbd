"""Races on a real GPU: what is raced is correct there, and what does not fit says so."""

import pytest

from harness.cells import Runtime
from harness.cells.runtime import Precision
from harness.racing.candidates import Candidate, Work, read_candidates
from harness.racing.places import read_place
from harness.racing.race import Setup, race

(SMALL,) = read_place("dim=16,heads=2,grid=4x5")

WORKS: tuple[Work, ...] = ("forward", "both", "train")


def named(*texts: str) -> list[Candidate]:
    return read_candidates(texts, "fp32", None)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_attentions_are_raced_on_a_gpu(precision: Precision) -> None:
    candidates = read_candidates(["softmax", "softmax@explicit", "focused", "focused@compiled"], precision, None)
    measured = race(candidates, SMALL, Setup("both", Runtime("cuda", batch=2), 0.05), lambda line: None)
    assert [each.problem for each in measured.results] == [None] * 4
    for each in measured.results:
        assert each.repeats == 1
        assert each.peak_mib is not None
        assert each.peak_mib > 0
        assert each.quartiles[1] > 0
    assert measured.results[0].sdpa_kernel


@pytest.mark.gpu
@pytest.mark.parametrize("work", WORKS)
def test_models_are_raced_on_a_gpu(work: Work) -> None:
    candidates = named("deit_micro", "deit_micro(attention=linear)", "deit_micro@bf16")
    measured = race(candidates, None, Setup(work, Runtime("cuda", batch=2), 0.05), lambda line: None)
    assert [each.problem for each in measured.results] == [None] * 3
    assert all(each.ratio for each in measured.results[1:])


@pytest.mark.gpu
def test_what_does_not_fit_a_gpu_has_no_number() -> None:
    (place,) = read_place("dim=64,heads=2,grid=1024x1024")
    setup = Setup("forward", Runtime("cuda", batch=1), 0.05, gate=False)
    results = race(named("linear", "softmax@explicit"), place, setup, lambda line: None).results
    assert results[0].seconds
    assert results[1].out_of_memory
