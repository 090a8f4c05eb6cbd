"""Deterministic weights and inputs for the golden reference data.

Everything here is a pure function of (state_dict key, tensor shape) or of
(seed, batch, resolution); no torch random number generator is involved.
The rules are written out in README.md next to this file.
"""

import math
import zlib

import numpy as np

# Tensors whose last path component is listed here keep the value the model
# constructor gave them, even though they are floating point.
KEEP_AS_BUILT = ("attn_mask", "running_mean", "running_var")


def fill_rule(key, shape):
    """Return (a, b) such that value = a * standard_normal + b, or None to keep as built."""
    name = key.rsplit(".", 1)[-1]
    if name in KEEP_AS_BUILT:
        return None
    ndim = len(shape)
    if name == "weight" and ndim >= 2:
        return 1.0 / math.sqrt(math.prod(shape[1:])), 0.0
    if name == "weight":
        return 0.1, 1.0
    if ndim <= 1:
        return 0.1, 0.0
    return 0.5, 0.0


def fill_array(key, shape):
    """The float32 array that belongs at `key` with `shape`, or None to keep as built."""
    rule = fill_rule(key, shape)
    if rule is None:
        return None
    a, b = rule
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode("utf-8"))))
    z = rng.standard_normal(math.prod(shape), dtype=np.float64)
    return (z * a + b).astype(np.float32).reshape(tuple(shape))


def fill_state_dict(state_dict):
    """Overwrite every fillable tensor of a torch state_dict in place and return it.

    Pass the dict returned by module.state_dict() of a float32 module: its
    tensors share storage with the module, so the module itself is filled.
    For a float64 run, fill in float32 first and call module.double() after.
    """
    import torch

    with torch.no_grad():
        for key, tensor in state_dict.items():
            if not tensor.is_floating_point():
                continue
            values = fill_array(key, tuple(tensor.shape))
            if values is not None:
                tensor.copy_(torch.from_numpy(np.ascontiguousarray(values)))
    return state_dict


def make_input(seed, batch, resolution):
    """float32 image batch of shape (batch, 3, resolution, resolution), as a numpy array."""
    rng = np.random.Generator(np.random.PCG64(seed))
    x = rng.standard_normal((batch, 3, resolution, resolution), dtype=np.float64)
    return x.astype(np.float32)
