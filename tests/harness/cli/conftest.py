"""What several of these tests look at."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from harness.runner.run_all import run_all
from harness.sweeps.expand import expand
from tests.harness.command_line import SWEEPS_FILE


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The records of my_sweeps.py:costs, to be copied."""
    folder = tmp_path_factory.mktemp("measured")
    (folder / "my_sweeps.py").write_text(SWEEPS_FILE)
    run_all(expand(f"{folder / 'my_sweeps.py'}:costs"), folder / "runs", Console(file=io.StringIO()))
    return folder / "runs"
