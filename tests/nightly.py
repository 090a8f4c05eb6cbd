"""What `make nightly` tests at its full length, and `make test` in a smaller form."""

import os

import pytest

NIGHTLY = os.environ.get("NIGHTLY") == "1"

CELLS, PACK = (1000, 100) if NIGHTLY else (40, 10)
"""Cells, and those that each job runs, of a sweep on a Slurm that misbehaves meanwhile."""

SUBSETS = 10 if NIGHTLY else 3
"""Of the tasks of an array, that are cancelled at random."""

TRIES = 50 if NIGHTLY else 3
"""Of submitting by an sbatch that loses the controller's answer at random."""

KILLS = 20 if NIGHTLY else 2
"""At random steps of one training."""

LINES = 1000 if NIGHTLY else 60
"""Typed at random, and given to our reader and to tyro's."""

EVERY_COMBINATION = NIGHTLY
"""Of attention, options, family and precision on a fake GPU, and of compiled kernels, rather than some of each."""

LONG = pytest.mark.skipif(not NIGHTLY, reason="takes long: make nightly runs it, and a smaller form of it is run here")
"""A test that has a smaller form beside it."""
