"""A Python module run in a process of its own, which is ended when its time is over."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.process.environment import ROOT


def run_module(module: str, arguments: Sequence[str], log: Path, limit: float) -> int:
    """Run `python -m module` with what it prints in the file `log`; return its exit status, -N if signal N ended it.

    It finds the modules that this process finds. After `limit` seconds, and where this process is interrupted, it and
    all that it has started are killed.

    Raises:
        TimeoutError: after `limit` seconds.
    """
    # -P: the working folder is searched where sys.path has it, not first.
    line = [sys.executable, "-P", "-m", module, *arguments]
    path = os.pathsep.join(dict.fromkeys([str(ROOT), *filter(None, sys.path)]))
    with open(log, "wb") as stream:
        child = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,
        )
    try:
        return child.wait(limit)
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"it did not end within {limit:g} s") from None
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
