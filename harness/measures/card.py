"""What the driver says of the current GPU, through torch and nvidia-ml-py: clock, power, throttling, neighbours."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

Answer = TypeVar("Answer")

BUSY = 5
"""Percent of the time that others may keep the card busy without a mark."""

THROTTLES = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "power brake",
}
"""Why a clock is lower than it could be, by the bits of nvidia-ml-py; idleness and users' limits are left out."""

EXPECTED = {"power cap"}
"""What every card does under full load, and so disturbs nothing."""


@dataclass(frozen=True)
class CardState:
    """A GPU under load: watts, degrees Celsius, why its clock is lowered. None for what it does not tell."""

    power: float | None = None
    temperature: float | None = None
    throttles: tuple[str, ...] | None = None


def card_state() -> CardState:
    """Return the state of the current GPU."""
    milliwatts = _asked(torch.cuda.power_draw)
    return CardState(
        None if milliwatts is None else milliwatts / 1e3, _asked(torch.cuda.temperature), _asked(_throttles)
    )


def _throttles() -> tuple[str, ...]:
    import pynvml

    # torch knows which of the driver's cards is the current one.
    bits = pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(torch.cuda._get_pynvml_handler())
    return tuple(name for bit, name in THROTTLES.items() if bits & bit)


def sm_clock() -> int | None:
    """Return the GPU's current clock in MHz; None without nvidia-ml-py."""
    return _asked(torch.cuda.clock_rate)


def others_on_card() -> str | None:
    """Return what other processes do on the current GPU, as a sentence; None if it is quiet, or none can tell.

    Called while this process does nothing there. nvidia-ml-py, which torch asks, need not be installed.
    """
    listed = _asked(torch.cuda.list_gpu_processes) or ""
    ids = [int(number) for number in re.findall(r"process\s+(\d+) uses", listed)]
    # In a container the ids are those of the host, and one of them is this process.
    others = len(set(ids) - {os.getpid()}) if os.getpid() in ids else max(0, len(ids) - 1)
    if not others:
        return None
    torch.cuda.synchronize()
    time.sleep(1.0)  # the longest period over which a card averages
    used = _asked(torch.cuda.utilization)
    if used is None or used > BUSY:
        kept = "" if used is None else f" kept it busy {used} % of the time"
        return f"{others} other process{'es' * (others > 1)} on the GPU{kept}"
    return None


def _asked(question: Callable[[], Answer]) -> Answer | None:
    """Return the answer of the driver, through torch; None if it has none."""
    try:
        return question()
    # The error classes of nvidia-ml-py can only be named where it is installed.
    except Exception:
        return None
