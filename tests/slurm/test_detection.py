"""A first clusters.toml: it is read as it is, says where its values come from, and Slurm runs jobs of these sizes."""

import tomllib
from pathlib import Path

import pytest

from slurm.clusters import Cluster, load
from slurm.detection import detect
from slurm.limits import check_fits, limits_of
from tests.slurm.cluster import run
from tests.slurm.sites import CLOUD, PLAIN, UNIVERSITY, pretend


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written() -> str:
    text = detect()
    Path("clusters.toml").write_text(text)
    return text


def test_unlike_nodes_limits_and_partitions_that_are_closed(tmp_path, monkeypatch):
    pretend(UNIVERSITY, tmp_path, monkeypatch)
    text = written()
    assert list(tomllib.loads(text)) == ["gpu", "short", "urgent"]
    assert load("gpu") == Cluster(
        "gpu",
        partition="gpu",
        gpus_per_node=4,
        gpu_type="a100",
        cpus_per_gpu=16,
        memory_gb=390,
        minutes=1440,
        max_array_size=500,
    )
    assert (load("short").minutes, load("short").cpus_per_gpu) == (30, 4)
    # Fewer of its nodes have GPUs, yet those are what it is for.
    assert (load("urgent").minutes, load("urgent").gpus_per_node) == (1440, 4)
    for line in (
        "# 2 nodes: 4 GPUs of type a100, 64 CPUs, 400000 MiB",
        "# 1 node: 2 GPUs of type v100, 40 CPUs, 190000 MiB",
        "# Preemption (PreemptMode=REQUEUE) by jobs of urgent: a job gets 120 s to save (GraceTime), then is requeued.",
        "# No preemption: a running job keeps its nodes.",
        "# No preemption: no partition has a higher PriorityTier.",
        "# Omitted: old, which is DRAIN.",
        "# Omitted: blink, which ends jobs after 2 minutes (at least 5 are needed).",
        "minutes = 1440  # MaxTime is 10080 minutes",
        "minutes = 1440  # MaxTime is UNLIMITED",
        "max_array_size = 500  # MaxArraySize is 500",
    ):
        assert line in text.splitlines()
    assert "sacctmgr show associations user=$USER" in text


def test_a_cloud(tmp_path, monkeypatch):
    pretend(CLOUD, tmp_path, monkeypatch)
    text = written()
    spot = load("gpu.spot")
    assert (spot.gpus_per_node, spot.gpu_type, spot.cpus_per_gpu) == (6, "nvidia_h100_80gb_hbm3", 94 // 8)
    # Six of the node's eight GPUs, so as much of its memory.
    assert spot.memory_gb == 2000000 * 6 // 8 // 1024
    assert "by jobs of a higher QOS: a job gets no time to save (GraceTime=0), then is requeued." in text
    # Of 1 GPU and more CPUs than there are none is asked.
    small = load("slurm-local")
    assert (small.partition, small.gpus_per_node, small.cpus_per_task, small.memory_gb) == ("local", 0, 2, 7.3)
    assert "# Omitted: asleep, whose nodes Slurm does not show." in text
    assert "associations" not in text
    # It is hidden.
    assert "secret" not in text


def test_cpus_alone_are_shared_and_a_missing_default_is_no_obstacle(tmp_path, monkeypatch):
    pretend(PLAIN, tmp_path, monkeypatch)
    assert "# 2 nodes: 64 CPUs, 128000 MiB" in written()
    assert load("cpu") == Cluster("cpu", partition="cpu", cpus_per_task=8, memory_gb=15, minutes=1440)


def test_without_slurm_on_the_machine(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match=r"^no scontrol on the PATH: this machine has no Slurm"):
        detect()


def test_a_real_slurm_runs_jobs_of_the_detected_size(slurm: None, tmp_path: Path):
    text = written()
    assert list(tomllib.loads(text)) == ["low", "high"]
    assert "# Preemption (PreemptMode=REQUEUE) by jobs of high: a job gets 10 s to save (GraceTime), then is" in text
    for name in ("low", "high"):
        found = load(name)
        assert (found.gpus_per_node, found.gpu_type, found.cpus_per_gpu, found.minutes) == (4, "fake", 1, 120)
        check_fits(
            found,
            limits_of(found),
            nodes=found.nodes,
            tasks_per_node=found.gpus_per_node,
            cpus_per_task=found.cpus_per_gpu,
            gpus_per_node=found.gpus_per_node,
        )
        job = run(
            "sbatch",
            "--wait",
            "--parsable",
            f"--partition={found.partition}",
            f"--gpus-per-node={found.gpu_type}:{found.gpus_per_node}",
            f"--ntasks-per-node={found.gpus_per_node}",
            f"--cpus-per-task={found.cpus_per_gpu}",
            f"--mem={int((found.memory_gb or 0) * 1024)}M",
            f"--time={found.minutes}",
            f"--output={tmp_path}/%j",
            "--wrap=echo $CUDA_VISIBLE_DEVICES",
        )
        assert (tmp_path / job).read_text() == "0,1,2,3\n"
