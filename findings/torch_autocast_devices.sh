#!/usr/bin/env bash
# Who guesses what: whoever tests mixed precision of an attention on a CPU, before a GPU is at hand, expects autocast to do the
#   same to each operator there: products in the short type; softmax, norms, exp and sums in float32.
# What happens: each device has a list of its own. On CUDA softmax, layer_norm, normalize, exp, sum and cumsum of a product
#   come out in float32; on a CPU all of them stay in bfloat16. So a test on a CPU rounds where a GPU does not.
#   Types are seen on fake tensors, which need no GPU; torch.autocast("cuda") would switch itself off without one.
# Versions: torch 2.14.1; 2026-11-29
# Source: https://docs.pytorch.org/docs/stable/amp.html#autocast-op-reference; https://github.com/pytorch/pytorch/pull/76661;
#   torch/include/ATen/autocast_mode.h, AT_FORALL_FP32 and AT_FORALL_FP32_SET_OPT_DTYPE
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.14.1 numpy==2.4.6
venv/bin/python -I - <<'END'
import sys

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import layer_norm, normalize

OPERATORS = {
    "product": lambda x: x,
    "softmax": lambda x: x.softmax(-1),
    "layer_norm": lambda x: layer_norm(x, x.shape[-1:]),
    "normalize": lambda x: normalize(x, dim=-1),
    "exp": lambda x: x.exp(),
    "sum": lambda x: x.sum(-1),
    "cumsum": lambda x: x.cumsum(-1),
}


def types(device):
    torch.set_autocast_dtype(device, torch.bfloat16)
    torch.set_autocast_enabled(device, True)
    with FakeTensorMode():
        q = torch.empty(4, 8, device=device)
        return {name: str(run(q @ q.mT).dtype).removeprefix("torch.") for name, run in OPERATORS.items()}


cpu, cuda = types("cpu"), types("cuda")
print(f"torch {torch.__version__}: types under autocast(bfloat16) of a product, and of what is computed from it")
print("expected: the same on both devices")
for name in OPERATORS:
    print(f"seen:     {name:10} cpu {cpu[name]}, cuda {cuda[name]}")
short = dict.fromkeys(OPERATORS, "bfloat16")
sys.exit(0 if cpu == short and cuda == dict.fromkeys(OPERATORS, "float32") | {"product": "bfloat16"} else "this has changed")
END
