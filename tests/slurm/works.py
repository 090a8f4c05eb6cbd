"""Works that tests submit; jobs import this module from their copy of the code."""

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Steps:
    """Takes so many steps, of so many seconds each, and notes each with the attempt that took it."""

    folder: Path
    steps: int
    seconds: float = 0.0

    def __call__(self) -> None:
        while self.left() is not None:
            time.sleep(self.seconds)
            with open(self.folder / "steps", "a") as log:
                log.write(os.environ.get("SLURM_RESTART_COUNT", "0") + "\n")

    def left(self) -> str | None:
        left = self.steps - len(steps(self.folder))
        return f"{left} steps" if left > 0 else None

    def gave_up(self, reason: str) -> None:
        (self.folder / "gave_up").write_text(reason)


@dataclass(frozen=True)
class Dies(Steps):
    """Is killed, or leaves without a word, each time; once given up there is nothing left."""

    how: int = signal.SIGKILL

    def __call__(self) -> None:
        with open(self.folder / "steps", "a") as log:
            log.write("\n")
        print("the last words", flush=True)
        os.kill(os.getpid(), self.how)

    def left(self) -> str | None:
        return None if (self.folder / "gave_up").exists() else "all of it"


@dataclass(frozen=True)
class Tells(Steps):
    """Writes down its part of the environment, by node and process."""

    def __call__(self) -> None:
        names = (
            *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
            *(
                "CUDA_VISIBLE_DEVICES",
                "SLURM_CPUS_PER_TASK",
                "OMP_NUM_THREADS",
                "PYTHONPATH",
                "SLURMD_NODENAME",
                "SLURM_CLUSTERS",
                "LEVEL",
            ),
        )
        values = {name: os.environ.get(name) for name in names} | {"file": __file__}
        (self.folder / f"told-{os.environ.get('SLURM_PROCID', '0')}").write_text(json.dumps(values))

    def left(self) -> str | None:
        return None


@dataclass(frozen=True)
class OneLeaves(Steps):
    """The second process leaves without a word, the first time; the first would wait for it for ever."""

    def __call__(self) -> None:
        first_time = os.environ.get("SLURM_RESTART_COUNT", "0") == "0"
        if first_time and os.environ["RANK"] == "1":
            time.sleep(1)
            os._exit(9)
        if first_time:
            time.sleep(600)
        if os.environ["RANK"] == "0":
            super().__call__()


@dataclass(frozen=True)
class Forks(Steps):
    """Has a child, as a data loader has, to which the whole job's signals come as well."""

    def __call__(self) -> None:
        child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
        try:
            super().__call__()
        finally:
            gone, _ = os.waitpid(child, os.WNOHANG)
            with open(self.folder / "children", "a") as log:
                log.write("gone\n" if gone else "alive\n")
            if not gone:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def steps(folder: Path) -> list[str]:
    try:
        return (folder / "steps").read_text().splitlines()
    except FileNotFoundError:
        return []
