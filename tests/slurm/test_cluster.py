"""The tests' own cluster is a real one: jobs on several nodes, accounting, requeue after the loss of a node."""

from pathlib import Path

from tests.slurm.cluster import NODES, fail_node, run, wait_for


def test_two_nodes_and_accounting(slurm: None, tmp_path: Path) -> None:
    job = run("sbatch", "--parsable", "-N2", f"--output={tmp_path}/out", "--wrap", "srun printenv SLURMD_NODENAME")
    wait_for(lambda: run("sacct", "-n", "-X", "-j", job, "-o", "State%20") == "COMPLETED", 30)
    assert sorted((tmp_path / "out").read_text().split()) == NODES[:2]


def test_a_lost_node_queues_its_job_again(slurm: None) -> None:
    job = run("sbatch", "--parsable", "-w", NODES[0], "--output=/dev/null", "--wrap", "sleep 60")
    wait_for(lambda: run("squeue", "-h", "-j", job, "-o", "%T") == "RUNNING", 30)
    fail_node(NODES[0])
    wait_for(lambda: run("squeue", "-h", "-j", job, "-O", "restartcnt") == "1", 30)
