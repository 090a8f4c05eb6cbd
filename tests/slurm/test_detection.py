"""A first clusters.toml: it is read as it is, says where its values come from, and Slurm runs jobs of these sizes."""

import tomllib
from pathlib import Path

import pytest

from slurm.clusters import Cluster, load
from slurm.detection import detect
from slurm.limits import check_fits, limits_of
from slurm.submission import Resources
from tests.slurm.cluster import run
from tests.slurm.sites import CLOUD, PLAIN, SPARSE, STRICT, UNIVERSITY, pretend


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
    assert (spot.gpus_per_node, spot.gpu_type, spot.cpus_per_gpu) == (6, "nvidia_h100_80gb_hbm3", 94 // 7)
    # Six of the node's seven GPUs (one is in slices), so as much of its memory.
    assert spot.memory_gb == 2000000 * 6 // 7 // 1024
    assert "cpus_per_gpu = 13  # 94 CPUs and 7 GPUs per node, 1 of them in slices (MIG)" in text
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
    # Memory is counted per CPU: 2000 MiB of 128000 for 64.
    assert load("cpu") == Cluster("cpu", partition="cpu", cpus_per_task=8, memory_per_cpu_gb=1.95, minutes=1440)


def test_what_a_strict_site_asks_for(tmp_path, monkeypatch):
    pretend(STRICT, tmp_path, monkeypatch)
    text = written()
    assert list(tomllib.loads(text)) == ["gpu-nodes-a100", "gpu-nodes-a100-2", "slices", "set-aside"]
    first, second = load("gpu-nodes-a100"), load("gpu-nodes-a100-2")
    assert (first.partition, second.partition) == ("gpu nodes (a100)", "gpu nodes  a100")
    # Four whole GPUs and one in slices; the slices are more.
    assert (first.gpus_per_node, first.gpu_type, first.cpus_per_gpu) == (4, "a100", 9)
    # By its MaxMemPerCPU; the other partitions count memory per node.
    assert (first.memory_gb, first.memory_per_cpu_gb) == (None, 3.87)
    assert (second.memory_gb, second.memory_per_cpu_gb) == (195, None)
    assert (first.account, first.qos, second.account, second.qos) == (None, None, "ml", "short")
    slices = load("slices")
    assert (slices.gpus_per_node, slices.gpu_type, slices.cpus_per_gpu) == (1, "a100_1g.5gb", 8)
    assert slices.memory_gb == 15
    aside = load("set-aside")
    assert (aside.nodes, aside.gpus_per_node, aside.gpu_type) == (2, 2, "3090")
    for line in (
        "# 1 node: 4 GPUs of type a100, 7 GPUs of type a100_1g.5gb, 48 CPUs, 250000 MiB",
        "# Only for members of these groups: domain users, staff (AllowGroups).",
        '# account = "nlp"  # one of AllowAccounts: nlp, vision',
        '# qos = "long"  # one of AllowQos: long, normal',
        'account = "ml"  # the only one of AllowAccounts',
        '# account = "..."  # none of DenyAccounts: guest',
        '# qos = "..."  # none of DenyQos: scavenge',
        "gpus_per_node = 1  # of 8 GPU slices (MIG) per node: slices cannot train together",
        "memory_per_cpu_gb = 3.87  # MaxMemPerCPU is 3968 MiB; this partition counts memory per CPU",
        "# memory_per_cpu_gb = 1.95  # in place of memory_gb, if the site refuses --mem (DefMemPerCPU is 2000 MiB)",
        '# reservation = "..."  # this partition takes only jobs with one (ReqResv)',
        "# Omitted: admin, which is for root only.",
    ):
        assert line in text.splitlines()
    assert 'wckey = "..."' in text
    assert "sacctmgr show wckeys user=$USER" in text
    assert "sacctmgr show associations user=$USER" in text


def test_what_is_not_printed_is_as_usual(tmp_path, monkeypatch):
    pretend(SPARSE, tmp_path, monkeypatch)
    text = written()
    assert list(tomllib.loads(text)) == ["gpu", "new", "small"]
    # Two sockets of 12 CPUs that jobs may have, for four GPUs.
    gpu = Cluster("gpu", partition="gpu", gpus_per_node=4, gpu_type="a100", cpus_per_gpu=6, memory_gb=62, minutes=1440)
    assert load("gpu") == gpu
    check_fits(gpu, limits_of(gpu), Resources(1, 4, 6, 4, 60))
    with pytest.raises(ValueError, match="28 CPUs per node, but no node of partition gpu with 4 GPUs of type a100 has"):
        check_fits(gpu, limits_of(gpu), Resources(1, 4, 7, 4, 60))
    assert (load("new").cpus_per_task, load("small").cpus_per_task, load("small").memory_gb) == (1, 4, None)
    assert "# Omitted: shut, which starts no jobs (MaxNodes=0)." in text


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
        size = Resources(1, 4, 1, 4, 120, found.memory_gb)
        check_fits(found, limits_of(found), size)
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
