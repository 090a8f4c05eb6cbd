"""Overhead of the harness: its step costs hardly more than a plain loop, and one that does more work shows."""

from dataclasses import replace

import pytest
import torch

import backbones
from harness.cli.overhead import cpu_time, main, overhead
from harness.measures.comparison import Ratio
from harness.published.recipes import recipe_of
from harness.training.learner import Learner

EVERYTHING = replace(recipe_of("flatten_swin_t"), ema_decay=0.9999)  # it clips, too


def measured(batch: int) -> Ratio:
    """Of PVTv2 micro with all of a recipe, by CPU time: tests run side by side."""
    spec = backbones.preset("pvt_v2_micro", attention="focused")
    return overhead(spec, EVERYTHING, torch.device("cpu"), batch, 1e-3, timed=cpu_time)


def test_a_step_costs_hardly_more_than_a_plain_loop() -> None:
    # Noise widens the interval, so this fails for what is slower beyond the noise.
    assert measured(batch=64).low < 1.05


def test_a_step_that_does_its_work_twice_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Learner.update

    def twice(learner, batches, number):
        step(learner, batches, number)
        step(learner, batches, number)

    monkeypatch.setattr(Learner, "update", twice)
    assert measured(batch=4).low > 1.3


def test_mixing_wants_an_even_batch() -> None:
    with pytest.raises(ValueError, match="the batch must be even, got 3"):
        measured(batch=3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_one_line() -> None:
    with pytest.raises(ValueError, match="device cuda was asked for, but torch finds no CUDA device here"):
        main(("deit_micro",), device="cuda")
