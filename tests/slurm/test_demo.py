"""What `make slurm-demo` does, in small: from nothing to a table on a Slurm of its own, which is always stopped."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import results
from tests.slurm.cluster import require, wait_for

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "tests" / "slurm" / "demo.sh"
PROGRAM = Path(sys.executable).parent


def start(folder: Path, path: str) -> subprocess.Popen[str]:
    """The demonstration with eight cells of a second; what it says goes to the file `said`."""
    with open(folder / "said", "w") as said:
        return subprocess.Popen(
            ["/bin/bash", DEMO, folder / "demo", "quickstart", "--only", "costs"],
            env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
            stdout=said,
            stderr=said,
            text=True,
            start_new_session=True,
            # What a shell starts in the background is deaf to Ctrl-C, and so would be what that starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def of_its_cluster(said: str) -> list[str]:
    """Names of processes that belong to the cluster of which was said where it is."""
    found = re.search(r"export (SLURM_CONF=\S+)", said)
    assert found is not None, said
    assert not Path(found[1].partition("=")[2]).parent.exists()
    names = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{found[1]}\0".encode() in (process / "environ").read_bytes():
                names.append((process / "comm").read_text())
        except OSError:  # it has ended, or is somebody else's
            continue
    return names


def test_from_nothing_to_a_table(tmp_path: Path) -> None:
    require()
    process = start(tmp_path, f"{PROGRAM}:{os.environ['PATH']}")
    assert process.wait(timeout=180) == 0, (tmp_path / "said").read_text()
    said = (tmp_path / "said").read_text()
    order = [
        "$ attention-bench cluster detect",
        "[low]",
        "8 cells, 8 to submit",
        "submitted 8 cells in 1 job to low",
        "8 cells: 8 done",
        "gmacs",
        "stopping the cluster",
        f"are in {tmp_path / 'demo'}",
    ]
    assert sorted(map(said.index, order)) == [said.index(text) for text in order]
    assert of_its_cluster(said) == []
    records, problems = results.read_all(tmp_path / "demo")
    assert ([record.status for record in records], problems) == (["done"] * 8, [])


@pytest.mark.parametrize(
    ("number", "to_all", "at"),
    # Once the watch has said something: a Python that has only just begun meets Ctrl-C with a traceback of its own.
    [(signal.SIGINT, True, "8 cells: "), (signal.SIGTERM, False, "$ attention-bench cluster detect")],
    ids=["ctrl-c", "terminated"],
)
def test_it_stops_the_cluster_when_it_is_interrupted(tmp_path: Path, number: int, to_all: bool, at: str) -> None:
    require()
    process = start(tmp_path, f"{PROGRAM}:{os.environ['PATH']}")
    wait_for(lambda: at in (tmp_path / "said").read_text())
    (os.killpg if to_all else os.kill)(process.pid, number)
    assert process.wait(timeout=60) != 0
    said = (tmp_path / "said").read_text()
    assert "stopping the cluster" in said
    assert "Traceback" not in said
    assert of_its_cluster(said) == []


def test_without_slurms_packages_a_line_says_how_to_install_them(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("bash", "env", "dirname"):
        (tmp_path / "bin" / name).symlink_to(f"/bin/{name}")
    process = start(tmp_path, str(tmp_path / "bin"))
    assert process.wait(timeout=30) == 1
    (line,) = (tmp_path / "said").read_text().splitlines()
    assert line.startswith("slurm-demo: no ")
    assert "apt-get install -y --no-install-recommends slurmctld slurmd" in line
