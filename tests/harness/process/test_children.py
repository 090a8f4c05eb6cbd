"""A module in a process of its own: its status, what it prints, and its end when its time is over."""

import os
import time
from pathlib import Path

import pytest

from harness.process.children import run_module

MODULE = """
import subprocess, sys, time
print("said", flush=True)
if sys.argv[1] == "wait":
    child = subprocess.Popen(["sleep", "600"])
    open(sys.argv[2], "w").write(str(child.pid))
    time.sleep(600)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "a_child.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return "a_child"


def test_its_status_and_what_it_prints(module: str, tmp_path: Path) -> None:
    assert run_module(module, ["3"], tmp_path / "log", 60) == 3
    assert (tmp_path / "log").read_text() == "said\n"


def test_it_and_what_it_has_started_end_with_its_time(module: str, tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="within 3 s"):
        run_module(module, ["wait", str(tmp_path / "pid")], tmp_path / "log", 3)
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        # Where nobody takes up its exit status, a dead process keeps its number.
        stat = Path(f"/proc/{pid}/stat")
        if not _alive(pid) or (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"):
            return
        time.sleep(0.1)
    raise AssertionError(f"{pid} is alive")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
