"""How often a race finds a difference where there is none: `python -m tests.harness.measures.false_differences`.

Each candidate races with itself, built anew for each race: an interval of 95 % holds 1 in 95 of 100 races. It takes
three minutes on a machine that does nothing else. test_comparison.py has the same with made-up clocks.
"""

import math
from itertools import product
from statistics import median

from harness.process.waiting import set_wait_policy

if __name__ == "__main__":
    set_wait_policy()  # before torch

import tyro
from scipy.stats import binomtest

from harness.cells import Runtime
from harness.racing.candidates import Work, read_candidates
from harness.racing.places import read_place
from harness.racing.race import Setup, race

ATTENTIONS = ("softmax", "focused", "linear", "agent")
SITES = ("swin_t.1", "pvt_tiny.3", "swin_t.4")
WORKS: tuple[Work, ...] = ("forward", "both")


def main(seconds: float = 0.5, times: int = 2, batch: int = 2) -> None:
    """Print the ratio of each race and its interval, and how many of these hold 1.

    Args:
        seconds: the least time to measure for, per candidate and race.
        times: races of each attention, site and work.
        batch: images.
    """
    found = []
    for name, site, work, _ in product(ATTENTIONS, SITES, WORKS, range(times)):
        (place,) = read_place(site)
        setup = Setup(work, Runtime(batch=batch), seconds, gate=False)
        ratio = race(read_candidates([name, name], "fp32", None), place, setup, lambda line: None).results[1].ratio
        assert ratio is not None
        found.append(ratio)
        said = "" if ratio.low <= 1 <= ratio.high else "  a false difference"
        said += "" if ratio.disturbed is None else f"  disturbed: {ratio.disturbed}"
        print(f"{name:8} {site:11} {work:8} {ratio.value:.4f} ({ratio.low:.4f} to {ratio.high:.4f}){said}", flush=True)
    held = sum(ratio.low <= 1 <= ratio.high for ratio in found)
    share = binomtest(held, len(found)).proportion_ci()
    off = sorted(abs(math.log(ratio.value)) for ratio in found)
    width = median(math.log(ratio.high / ratio.low) / 2 for ratio in found)
    print(
        f"{held} of {len(found)} intervals hold 1 ({100 * share.low:.0f} to {100 * share.high:.0f} %); off by "
        f"{100 * median(off):.1f} % in the middle, {100 * off[-1]:.1f} % at most; half a width is {100 * width:.1f} %"
    )


if __name__ == "__main__":
    tyro.cli(main)
