#!/usr/bin/env bash
# Who guesses what: whoever counts the FLOPs of a vision transformer with torch.utils.flop_counter expects the products of
#   attention in the sum on every device: the counter has formulas for scaled_dot_product_attention.
# What happens: the fused kernel of a CPU has none and counts as nothing, forward and backward. The sum so depends on the
#   kernel: on meta tensors and under sdpa_kernel(MATH) attention is counted. Nothing warns.
# Versions: torch 2.14.1; 2026-11-29
# Source: https://github.com/pytorch/pytorch/issues/195460; torch/utils/flop_counter.py, flop_registry
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.14.1 numpy==2.4.6
venv/bin/python -I - <<'END'
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode


def flops(q):
    with FlopCounterMode(display=False) as counter:
        scaled_dot_product_attention(q, q, q).sum().backward()
    return counter.get_total_flops()


tokens, heads, width = 196, 3, 64
q = torch.randn(1, heads, tokens, width, requires_grad=True)
product = 2 * heads * tokens * tokens * width
expected = 2 * product + 4 * product  # two products forward, four backward
seen = {"cpu": flops(q), "meta": flops(q.detach().to("meta").requires_grad_())}
with sdpa_kernel(SDPBackend.MATH):
    seen["cpu, MATH"] = flops(q)
print(f"torch {torch.__version__}: FLOPs of attention and its gradients, {tokens} tokens, {heads} heads of {width}")
print(f"expected: {expected:,}")
for name, count in seen.items():
    print(f"seen:     {count:,} ({name})")
sys.exit(0 if list(seen.values()) == [0, expected, expected] else "this has changed")
END
