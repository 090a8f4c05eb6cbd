"""The circumstances of a measurement: this project's commit, versions, device and host.

Only `check_device` raises: what cannot be found out is None.
"""

import json
import os
import platform
import socket
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from harness.process.waiting import described_policy

WAIT_POLICY = described_policy(os.environ)
"""That of this process's threads: libgomp has read its environment while torch was imported, just now or before."""
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("attentions", "backbones", "harness", "results", "slurm")
_CODE = ("attentions", "backbones", "harness", "results/*.py", "slurm")
"""For git: what a measurement depends on. Other files of results are records; a run that makes some is not dirty."""
CHECKOUT = "checkout.json"
"""In a copy of the five packages: the commit and dirty flag of the copied checkout."""
LIBRARIES = ("torchvision", "timm", "fvcore", "numpy", "Pillow")

Value = str | int | bool | None


def environment(device: str) -> dict[str, Value]:
    """Return the circumstances of a measurement on `device` ("cpu" or "cuda"), as plain JSON values.

    `commit` and `dirty` (uncommitted changes of code in the five packages, including new files) are None where this
    package is not in its own git checkout; `date` is UTC.
    """
    commit, dirty = checkout(ROOT)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        **{name.lower(): _version(name) for name in LIBRARIES},
        "device": device,
        **(_gpu() if device == "cuda" else _cpu()),
        "threads": torch.get_num_threads(),
        "wait_policy": WAIT_POLICY,
        "host": socket.gethostname(),
        "platform": platform.platform(),
    }


def checkout(root: Path) -> tuple[str | None, bool | None]:
    """Return commit and dirty flag of the git checkout at `root`, or of the one that `root` is a copy of.

    (None, None) where it is neither.
    """
    copied = root / CHECKOUT
    if copied.is_file():
        values = json.loads(copied.read_text())
        return values["commit"], values["dirty"]
    top = _output("git", "-C", str(root), "rev-parse", "--show-toplevel")
    # A virtual environment inside somebody's repository is not our checkout.
    if top is None or Path(top).resolve() != root.resolve():
        return None, None
    commit = _output("git", "-C", str(root), "rev-parse", "--verify", "HEAD")
    changes = _output("git", "-C", str(root), "status", "--porcelain", "--", *_CODE)
    return commit, None if commit is None or changes is None else changes != ""


def _cpu() -> dict[str, Value]:
    return {"device_name": _cpu_name(), "driver": None, "cuda": None, "cudnn": None}


def _cpu_name() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or None


def _gpu() -> dict[str, Value]:
    return {
        "device_name": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _driver() -> str | None:
    versions = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return versions.splitlines()[0] if versions else None


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    """Return what `command` prints, or None where it is missing, fails or does not end."""
    # Git must not take another repository from the environment (hooks set these variables), nor lock the index.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
            env=variables | {"GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def check_device(device: str) -> None:
    """Raise ValueError if `device` is "cuda" and torch sees no GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda was asked for, but torch finds no CUDA device here; allowed: cpu")


def gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    count = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(number) for number in range(count)] if given is None else given.split(",")[:count]


def readers_of(cores: int) -> int:
    """Return how many data workers a process with so many cores has: one per remaining core, 1 to 16."""
    return max(1, min(16, cores - 1))


def readers_here() -> int:
    """Return how many data workers this process has, by its share of the cores among the ranks on this machine."""
    return readers_of(cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
