"""Every golden model: keys and shapes match strictly, parameters exactly, and logits are the official code's."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import backbones
from tests.golden.fill import fill_array, make_input

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json") if path.stem != "focused_attention_op")


def golden(name: str) -> dict:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def official_state(reference: dict) -> dict[str, torch.Tensor]:
    """Fill a state by the rule of the golden files; buffers that the rule skips are zeros here, and must be dropped."""
    state = {}
    for key, shape, *buffer in reference["state_dict"]:
        values = None if buffer else fill_array(key, shape)
        state[key] = torch.zeros(shape) if values is None else torch.from_numpy(values)
    return state


def first_logits(values: torch.Tensor) -> torch.Tensor:
    return values[:, :16].double()


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("name", NAMES)
def test_logits_equal_the_official_ones(name):
    reference = golden(name)
    spec = backbones.preset(name)
    model = backbones.build(spec).eval()
    model.load_state_dict(backbones.from_official(official_state(reference), spec), strict=True)
    assert sum(parameter.numel() for parameter in model.parameters()) == reference["n_params"]
    seed, batch = reference["input"]["seed"], reference["input"]["batch"]
    images = torch.from_numpy(make_input(seed, batch, reference["img_size"]))
    wanted = torch.tensor(reference["logits_f64"]["first16"], dtype=torch.float64)
    with torch.no_grad():
        single = model(images)
        double = model.double()(images.double())
    assert relative(first_logits(double), wanted) < 1e-9
    assert relative(first_logits(single), wanted) < 1e-5
    lengths = torch.tensor(reference["logits_f64"]["l2"], dtype=torch.float64)
    assert relative(double.norm(dim=1), lengths) < 1e-9
    assert double.argmax(dim=1).tolist() == np.atleast_1d(reference["logits_f64"]["argmax"]).tolist()


@pytest.mark.parametrize("name", NAMES)
def test_official_names_come_back(name):
    reference = golden(name)
    spec = backbones.preset(name)
    state = official_state(reference)
    ours = backbones.from_official(state, spec)
    back = backbones.to_official(ours, spec)
    parameters = {key for key, _, *buffer in reference["state_dict"] if not buffer}
    assert set(back) == parameters
    assert all(torch.equal(back[key], state[key]) for key in parameters)


@pytest.mark.parametrize("name", NAMES)
def test_the_closed_formula_counts_what_the_official_code_does(name):
    counts = golden(name)["flops"]
    assert backbones.macs(backbones.preset(name)).total == counts["torch_flop_counter_macs"]["total"]
    layer_norm = counts["fvcore"]["by_operator"]["layer_norm"]
    assert backbones.macs(backbones.preset(name)).norms == layer_norm


def test_an_unused_norm_is_declared():
    model: Any = backbones.build(backbones.preset("flatten_pvt_t"))
    assert sum(dict(model.named_parameters())[name].numel() for name in model.never_used) == 1024
    assert golden("flatten_pvt_t")["n_params_unused"] == 1024
