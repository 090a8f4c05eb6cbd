#!/usr/bin/env bash
# Who guesses what: whoever passes a learned bias, a Parameter of one value a pair of tokens, as attn_mask to
#   scaled_dot_product_attention expects the fused kernel, as for any other float mask, at least under no_grad.
# What happens: on a CPU a mask that requires a gradient goes to the unfused math kernel, which keeps the scores as a matrix. A
#   Parameter and its views still require one under no_grad, so inference is unfused too. detach() brings the fused kernel back.
#   A table that is indexed in the forward pass (Swin's) is copied there and does not meet this.
# Versions: torch 2.14.1; 2026-11-29
# Source: torch/include/ATen/native/transformers/sdp_utils_cpp.h, check_attn_mask_shape, which does not ask
#   for the mode, as input_requires_grad does for q, k and v
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.14.1 numpy==2.4.6
venv/bin/python -I - <<'END'
import sys

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode


class Operators(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.names.append(str(operator))
        return operator(*args, **kwargs or {})


@torch.no_grad()
def kernel(change):
    mask = change(bias)
    with Operators() as run:
        scaled_dot_product_attention(q, q, q, attn_mask=mask)
    return "fused" if any("flash_attention" in name for name in run.names) else "math"


q = torch.randn(1, 3, 49, 32)
bias = torch.nn.Parameter(torch.randn(3, 49, 49))
masks = {
    "bias[None]": lambda bias: bias[None],
    "bias[None].detach()": lambda bias: bias[None].detach(),
    "bias[indices]": lambda bias: bias[torch.arange(3)][None],
}
print(f"torch {torch.__version__}: kernels of attention on a CPU under no_grad, by mask")
seen = {}
for name, change in masks.items():
    seen[name] = kernel(change)
    print(f"{name:20} expected: fused  seen: {seen[name]}")
sys.exit(0 if list(seen.values()) == ["math", "fused", "fused"] else "this has changed")
END
