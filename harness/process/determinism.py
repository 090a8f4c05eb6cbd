"""What makes a run repeatable: seeds derived from their purpose, sums in a fixed order, and which float32 is meant."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def derived_seed(*key: int) -> int:
    """Return 32 bits for a key such as (seed, epoch, index): neighbouring keys give unrelated seeds."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=4).digest())


CPU = torch.device("cpu")


def seed_generators(seed: int, device: torch.device = CPU) -> None:
    """Seed what timm and torchvision draw from: `random`, `numpy.random`, torch on the CPU and on `device`.

    Not by torch.manual_seed, which takes a hundred times as long without a GPU: this runs once per image.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


DETERMINISTIC: Any = torch.utils.deterministic  # its attributes are created at run time, invisible to type checkers


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """On a CPU, make torch sum in a fixed order (with threads, the gradient of Swin's bias table would not be)."""
    switched_on, filling = torch.are_deterministic_algorithms_enabled(), DETERMINISTIC.fill_uninitialized_memory
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        DETERMINISTIC.fill_uninitialized_memory = False  # with NaN, a debugging aid, and slow
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(switched_on)
        DETERMINISTIC.fill_uninitialized_memory = filling


@contextmanager
def ieee_float32(*, benchmark: bool = False) -> Iterator[None]:
    """Make fp32 mean IEEE float32 on a GPU: no TF32, in which torch computes convolutions by default.

    benchmark: whether cuDNN searches for its fastest kernels, which need not be the same in the next process.
    """
    matmul = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=benchmark, deterministic=False, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)


@contextmanager
def numerics(*, compiled: bool) -> Iterator[None]:
    """Make fp32 mean IEEE float32, let cuDNN search for its fastest kernels, forget what was `compiled`."""
    if compiled:
        # What earlier cells compiled counts towards dynamo's recompilation limit.
        torch.compiler.reset()
    with ieee_float32(benchmark=True):
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch's operations on one thread, and leave their number as it was."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
