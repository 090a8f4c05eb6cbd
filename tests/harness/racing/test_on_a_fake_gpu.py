"""What a race does with a GPU, up to its kernels and their times: nothing waits between its events, and cards tell."""

from typing import Any

import pytest
import torch

from harness.cells import Runtime
from harness.cells.runtime import Precision
from harness.measures import card
from harness.measures.card import CardState, card_state
from harness.racing.candidates import Work, read_candidates
from harness.racing.places import read_place
from harness.racing.race import Setup, race
from tests.fake_gpu import fake_gpu


@pytest.mark.parametrize(("precision", "work"), [("fp32", "both"), ("bf16", "forward")])
def test_nothing_waits_while_it_is_timed(precision: Precision, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    # Numbers are what such a GPU has none of.
    monkeypatch.setattr("harness.racing.race.check", lambda entry, work: "")
    monkeypatch.setattr("harness.racing.race.saved_for_backward", lambda forward, without: 1.0)
    candidates = read_candidates(["softmax", "focused"], precision, None)
    (place,) = read_place("dim=16,heads=2,grid=4x4")
    with fake_gpu() as gpu:
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 0)
        found = race(candidates, place, Setup(work, Runtime("cuda", batch=2), 1e-6), lambda line: None)
    assert [each.problem for each in found.results] == [None, None]
    assert gpu.waits, "it waits for its events"
    assert not gpu.timed_waits, gpu.timed_waits
    assert not gpu.doubles
    assert [each.peak_mib for each in found.results] == [1, 1]
    assert [each.repeats for each in found.results] == [1, 1]


def test_a_card_says_how_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert card_state() == CardState(None, None, None)
    monkeypatch.setattr(torch.cuda, "power_draw", lambda: 312_500)
    monkeypatch.setattr(torch.cuda, "temperature", lambda: 61)
    monkeypatch.setattr(torch.cuda, "_get_pynvml_handler", lambda: "handle")

    class Driver:
        @staticmethod
        def nvmlDeviceGetCurrentClocksThrottleReasons(handle: Any) -> int:
            assert handle == "handle"
            return 0x01 | 0x04 | 0x40  # idle is none of interest

    monkeypatch.setitem(__import__("sys").modules, "pynvml", Driver)
    assert card_state() == CardState(312.5, 61, ("power cap", "heat (hardware)"))
    assert set(card.THROTTLES.values()) > card.EXPECTED
