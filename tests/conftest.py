# ruff: noqa: E402
import os

# Before torch: models here are so small that a second thread costs more than it gives, and tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from harness.process.waiting import set_wait_policy

set_wait_policy()  # as in every process of ours, before torch

import sys
from collections.abc import Iterator

import pytest
import torch

import attentions


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on a real Slurm come first, in all processes at a time, each with a Slurm of its own: they mostly wait.

    Beside tests that keep a core busy, submitting would take longer than it may. `--dist loadgroup`, without groups,
    hands out one test after the other in this order.
    """

    def on_slurm(item: pytest.Item) -> bool:
        return item.path.stem == "test_demo" or bool(
            {"slurm_conf", "unaccounted"}.intersection(getattr(item, "fixturenames", ()))
        )

    items.sort(key=lambda item: not on_slurm(item))


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
