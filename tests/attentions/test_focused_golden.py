"""focused against the operator numbers of the official implementation (float64)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from attentions import AttentionSpec, Grid, Site
from tests.golden.fill import fill_state_dict

CASES = json.loads((Path(__file__).parents[1] / "golden" / "focused_attention_op.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_operator_equals_the_official_one(case):
    batch, n, m, dim = case["B"], case["N_query"], case["N_key"], case["C"]
    side = case["H"] // case["sr_ratio"]
    site = Site(dim, case["heads"], Grid(case["H"], case["W"]), Grid(side, side))
    options = {"focusing_factor": case["focusing_factor"], "kernel_size": case["kernel_size"]}
    module = AttentionSpec("focused", options).build(site)
    assert [[name, list(value.shape)] for name, value in module.state_dict().items()] == case["params"]
    fill_state_dict(module.state_dict())
    generator = np.random.Generator(np.random.PCG64(case["seed"]))
    q, k, v = (torch.from_numpy(generator.standard_normal((batch, tokens, dim))) for tokens in (n, m, m))
    out = module.double()(q, k, v).detach()
    wanted = case["tensors"]["output"]
    assert list(out.shape) == wanted["shape"]
    assert float(out.norm()) == pytest.approx(wanted["l2"], rel=1e-12)
    first = torch.tensor(wanted["first"], dtype=torch.float64)
    assert (out.flatten()[: len(first)] - first).norm() / first.norm() < 1e-12
    # `values` are printed with 12 digits, so ours are compared as they would print.
    values = torch.tensor(wanted["values"], dtype=torch.float64)
    printed = torch.tensor([float(f"{x:.12g}") for x in out.flatten().tolist()], dtype=torch.float64)
    assert (printed - values).norm() / values.norm() < 1e-12
