"""Processes that keep cores busy, beside which something is measured."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

BUSY = "print(flush=True)\nwhile True: pass"


@contextmanager
def neighbours(number: int) -> Iterator[None]:
    """Keep so many processes busy during the block, on the cores that this process may use."""
    busy = [subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) for _ in range(number)]
    try:
        for each in busy:
            assert each.stdout is not None
            each.stdout.readline()  # it has begun
        yield
    finally:
        for each in busy:
            each.kill()
            each.communicate()
