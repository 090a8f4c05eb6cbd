"""How long the threads of this process were ready to run, but had no core: of each thread, as the kernel counts it."""

import os
from contextlib import suppress
from pathlib import Path


def run_queue() -> float | None:
    """Return the seconds that the threads of this process have spent on run queues; None where it is not counted."""
    waited = 0
    try:
        for thread in os.listdir("/proc/self/task"):
            # A thread may end meanwhile.
            with suppress(FileNotFoundError, ProcessLookupError):
                waited += int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[1])
    except (OSError, IndexError):
        return None
    # A kernel without these statistics has files of zeros, or none.
    return waited / 1e9 if waited else None
