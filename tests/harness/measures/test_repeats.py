"""Counting one block of each kind is counting all of them."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import backbones
from harness.measures.counters import count_with_fvcore, count_with_torch
from harness.measures.repeats import alike, each_kind_once


def model_of(name: str, **changes: object) -> tuple[backbones.Backbone, torch.Tensor]:
    """Return a preset's model on the meta device, and an image for it."""
    spec = backbones.preset(name, **changes)
    with torch.device("meta"):
        return backbones.build(spec).eval(), torch.empty(1, 3, *spec.image_size)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("inline_deit_t", {"attention": "linear(kernel_size=3)"}),
        ("agent_pvt_s", {}),
        ("flatten_pvt_v2_b2", {"stages": "LLMS1"}),
        ("pvt_v2_b2_li", {}),
        ("swin_s", {}),
        ("swin_t", {"attention": "xca", "honour_shift_mask": True}),
        ("flatten_cswin_t", {}),
    ],
)
def test_the_counts_are_those_of_the_whole_model(name, changes):
    model, image = model_of(name, **changes)
    whole = count_with_torch(model, image), count_with_fvcore(model, image)
    with each_kind_once(model, image) as times:
        assert (count_with_torch(model, image, times), count_with_fvcore(model, image, times)) == whole
        blocks = sum(model.spec.depths)
        assert 0 < sum(times.values()) <= blocks
        # All but one of each kind are left out: then a count without the numbers is of less.
        assert count_with_torch(model, image) != whole[0]
    assert (count_with_torch(model, image), count_with_fvcore(model, image)) == whole


def test_blocks_of_a_kind_are_those_that_nothing_tells_apart():
    """In Swin, every second block of a stage is shifted, but for the last stage, where a window is the map."""
    model, image = model_of("swin_t")
    with each_kind_once(model, image) as times:
        assert times == {"layers.2.blocks.0": 3, "layers.2.blocks.1": 3, "layers.3.blocks.0": 2}
    model, image = model_of("deit_t")
    with each_kind_once(model, image) as times:
        assert times == {"blocks.0": 12}


class Told(nn.Module):
    """A block with one thing that another may not have."""

    def __init__(self, told: object) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.told = told


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (1, True),
        ([1, 2], [1]),
        ({"a": 1}, {"b": 1}),
        (nn.Linear(3, 3), nn.Linear(3, 3, bias=False)),
        (nn.Linear(3, 3), nn.Linear(3, 4)),
        (nn.GELU(), nn.ReLU()),
        (torch.zeros(2), torch.ones(2)),
        (torch.zeros(2, 3), torch.zeros(3, 2).T),
        (np.zeros(2), np.zeros(2)),
        (lambda x: x, lambda x: x),
        (object(), object()),
    ],
)
def test_one_thing_that_differs_or_cannot_be_compared_tells_blocks_apart(one, other):
    assert not alike(Told(one), Told(other))


@pytest.mark.parametrize("make", [lambda: (1, "a", None), lambda: nn.Linear(3, 3), partial(torch.zeros, 2), dict])
def test_what_is_equal_tells_nothing_apart(make: Callable[[], object]):
    with torch.device("meta"):
        assert alike(Told(make()), Told(make()))


def test_a_block_that_is_different_by_a_hook_or_a_method_of_its_own_is_of_its_own_kind():
    model, image = model_of("deit_t")
    hooked, patched = (model.get_submodule(f"blocks.{index}") for index in (3, 4))
    hooked.register_forward_hook(lambda *_: None)
    vars(patched)["forward"] = patched.forward
    with each_kind_once(model, image) as times:
        assert times == {"blocks.0": 10}
