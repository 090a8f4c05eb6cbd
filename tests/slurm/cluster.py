"""A real Slurm for the tests: slurmctld, four slurmd, munge, slurmdbd, all on this machine, gone afterwards.

Without the packages the tests that need it are skipped, visibly; with NEEDS_SLURM=1 in the environment they fail.
Debian and Ubuntu: apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge slurmdbd
mariadb-server-core mariadb-client-core
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("local_slurm.sh")
DAEMONS = ("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd")
DAEMONS_PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"
NODES = [f"127.0.1.{number}" for number in range(1, 5)]
PATIENCE = 300  # seconds


def require() -> None:
    """Skips the test, or fails it where Slurm is needed, if a daemon is not installed."""
    if absent := [name for name in DAEMONS if shutil.which(name, path=DAEMONS_PATH) is None]:
        give_up = pytest.fail if os.environ.get("NEEDS_SLURM") == "1" else pytest.skip
        give_up(f"no {', '.join(absent)}: a real Slurm cannot be started here")


@contextmanager
def started(**knobs: str) -> Iterator[Path]:
    """A cluster with the knobs of local_slurm.sh; its slurm.conf."""
    require()
    # Short: a unix socket's path has 108 characters at most.
    folder = Path(tempfile.mkdtemp(prefix="ab", dir="/tmp"))
    try:
        subprocess.run([SCRIPT, "up", folder], check=True, stdout=subprocess.DEVNULL, env=os.environ | knobs)
        yield folder / "slurm.conf"
    finally:
        subprocess.run([SCRIPT, "down", folder], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def slurm_conf() -> Iterator[Path]:
    """The cluster of this test session, with accounting; it starts when a test first asks for it."""
    with started() as conf:
        yield conf


@pytest.fixture
def slurm(slurm_conf: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This test's commands speak to the session's cluster, which is idle and whole before and after."""
    monkeypatch.setenv("SLURM_CONF", str(slurm_conf))
    yield
    run("scancel", "--me", check=False)
    for node in NODES:
        run("scontrol", "update", f"nodename={node}", "state=resume", check=False)
    wait_for(idle)


def idle() -> bool:
    """Whether no job is left and every node takes one."""
    jobs, nodes = run("squeue", "-h", "-o", "%i"), run("sinfo", "-h", "-N", "-p", "low", "-t", "idle", "-o", "%N")
    return jobs == "" and nodes.split() == NODES


@pytest.fixture
def unaccounted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cluster of its own without accounting, as many small ones are."""
    with started(ACCT="0", NODES="2") as conf:
        monkeypatch.setenv("SLURM_CONF", str(conf))
        yield


def run(*command: str, check: bool = True) -> str:
    """What a command prints."""
    done = subprocess.run(command, check=check, capture_output=True, text=True, timeout=60)
    return done.stdout.strip()


def fail_node(node: str) -> None:
    """Its jobs are lost and queued again at once; as its daemon is well, the node is soon back by itself."""
    run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")


def wait_for(condition: Callable[[], object]) -> None:
    """Until it holds; fails the test if it does not in a time that is long for any machine."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"not within {PATIENCE} s"
        time.sleep(0.2)


class UnreliableSbatch:
    """An sbatch that does as it is told each time, and well when it was told nothing: the first one on the PATH.

    lost: submits, and says that it timed out; unsent: says so without submitting; late: submits a moment later.
    """

    KINDS = ("well", "lost", "unsent", "late")

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
        """`options`: further ones of the real sbatch."""
        folder.mkdir()
        self._told = folder / "told"
        real = " ".join([str(shutil.which("sbatch")), *options, '"$@"'])
        script = folder / "sbatch"
        script.write_text(
            f"#!/bin/bash\ncd {folder}\n"
            "kind=$(head -n 1 told 2> told.err); sed -i 1d told 2> told.err\n"
            f"case $kind in lost) {real} > answer ;; unsent) ;; late) (sleep 0.3; {real}) > answer 2>&1 & ;; "
            f"*) exec {real} ;; esac\n"
            "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2\nexit 1\n"
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def tell(self, *kinds: str) -> None:
        """What the next calls do."""
        self._told.write_text("".join(f"{kind}\n" for kind in kinds))
