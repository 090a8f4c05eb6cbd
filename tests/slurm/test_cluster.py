"""The tests' own cluster is a real one: jobs on several nodes, accounting, requeue after the loss of a node."""

from pathlib import Path

import pytest

from tests.slurm.cluster import NODES, fail_node, require, run, wait_for


def test_two_nodes_and_accounting(slurm: None, tmp_path: Path) -> None:
    job = run("sbatch", "--parsable", "-N2", f"--output={tmp_path}/out", "--wrap", "srun printenv SLURMD_NODENAME")
    wait_for(lambda: run("sacct", "-n", "-X", "-j", job, "-o", "State%20") == "COMPLETED")
    assert sorted((tmp_path / "out").read_text().split()) == NODES[:2]


def test_a_lost_node_queues_its_job_again(slurm: None) -> None:
    job = run("sbatch", "--parsable", "-w", NODES[0], "--output=/dev/null", "--wrap", "sleep 60")
    wait_for(lambda: run("squeue", "-h", "-j", job, "-o", "%T") == "RUNNING")
    fail_node(NODES[0])
    wait_for(lambda: run("squeue", "-h", "-j", job, "-O", "restartcnt") == "1")


@pytest.mark.parametrize(
    ("needed", "outcome"), [("1", pytest.fail.Exception), ("", pytest.skip.Exception)], ids=["failed", "skipped"]
)
def test_without_the_packages_a_test_is_skipped_unless_slurm_is_needed(
    monkeypatch: pytest.MonkeyPatch, needed: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setattr("tests.slurm.cluster.DAEMONS_PATH", "/nowhere")
    monkeypatch.setenv("NEEDS_SLURM", needed)
    with pytest.raises(outcome, match="no munged, slurmctld"):
        require()
