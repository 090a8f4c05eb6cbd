"""The roof of a device: what it copies and multiplies at most, and what share of it a computation reaches.

S. Williams, A. Waterman, D. Patterson: Roofline, Communications of the ACM 52 (2009).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch

from harness.cells.runtime import AUTOCAST, Device, Precision
from harness.measures.speed import timer
from harness.process.determinism import ieee_float32

ROUNDS = 5
"""Rounds of copy, product, product, copy; the fastest sample of each counts, as others only slow it down."""

COPIED = {"cpu": 64 * 2**20, "cuda": 2**30}
"""Bytes of what is copied: more than caches hold."""

SIDE = {"cpu": 768, "cuda": 8192}
"""Rows and columns of the matrices that are multiplied."""


@dataclass(frozen=True)
class Needed:
    """What a computation must move and do at least.

    bytes: each input, parameter and output once, and each of their gradients. operations: two per multiply-add.
    """

    bytes: int
    operations: int


@dataclass(frozen=True)
class Roof:
    """What a device reaches: bytes read and written per second in a copy, operations per second in a product."""

    bytes_per_s: float
    operations_per_s: float

    def seconds(self, needed: Needed) -> float:
        """Return the least time in which the device does that."""
        return max(needed.bytes / self.bytes_per_s, needed.operations / self.operations_per_s)

    def bound(self, needed: Needed) -> Literal["memory", "products"]:
        """Return which of the two takes it longer."""
        by_memory = needed.bytes / self.bytes_per_s > needed.operations / self.operations_per_s
        return "memory" if by_memory else "products"


def measure_roof(device: Device, precision: Precision) -> Roof:
    """Measure a copy and a square product of matrices in turn, once per process, device, precision and threads."""
    return _measured(device, precision, torch.get_num_threads())


@lru_cache
def _measured(device: Device, precision: Precision, threads: int) -> Roof:
    dtype = AUTOCAST[precision] or torch.float32
    # Not empty: pages that nobody has written to are all the same one.
    source = torch.ones(COPIED[device], dtype=torch.int8, device=device)
    target = torch.ones_like(source)
    a, b, out = (torch.full((SIDE[device],) * 2, 0.5, dtype=dtype, device=device) for _ in range(3))

    def copy() -> object:
        return target.copy_(source)

    def product() -> object:
        return torch.mm(a, b, out=out)

    clock = timer(device)
    calls: tuple[Callable[[], object], ...] = (copy, product, product, copy)
    with ieee_float32(), torch.inference_mode():
        for call in calls:
            call()
        times = [(call, clock(call)) for _ in range(ROUNDS) for call in calls]
    fastest = {call: min(seconds for each, seconds in times if each is call) for call in (copy, product)}
    return Roof(2 * COPIED[device] / fastest[copy], 2 * SIDE[device] ** 3 / fastest[product])
