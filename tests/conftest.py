# ruff: noqa: E402
import os
import sys

# Whatever the shell says of it: a hundred processes would each compile the same files anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Before torch: models here are so small that a second thread costs more than it gives, and tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from harness.process.waiting import set_wait_policy

set_wait_policy()  # as in every process of ours, before torch

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

import attentions


class SlurmApart(LoadScopeScheduling):
    """Tests on a real Slurm come first, in two processes, each with a Slurm of its own: they mostly wait.

    The cores are for the tests in the other processes meanwhile, which get one after the other.
    """

    TOGETHER = ("tests/harness/jobs/test_slurm.py", "tests/slurm/")

    def _split_scope(self, nodeid: str) -> str:
        return next((group for group in self.TOGETHER if nodeid.startswith(group)), nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SlurmApart:
    return SlurmApart(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no GPU")


@pytest.fixture(autouse=True)
def _fresh_generator() -> None:
    torch.manual_seed(0)


@pytest.fixture
def users_attentions() -> Iterator[None]:
    """What a test loads is forgotten after it: its attentions, the user's files and modules (plugin...)."""
    modules = set(sys.modules)
    with attentions.temporary_registry():
        yield
    attentions.broken_packages.cache_clear()
    for name in [name for name in set(sys.modules) - modules if name.startswith("plugin")]:
        del sys.modules[name]
