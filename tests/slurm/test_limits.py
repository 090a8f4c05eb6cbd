"""What a partition can give, on sites of several kinds and on the tests' own: what could never run is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slurm import scontrol
from slurm.clusters import Cluster
from slurm.commands import SlurmUnreachable
from slurm.limits import Limits, check_fits, limits_of
from tests.slurm.cluster import NODES, run
from tests.slurm.sites import CLOUD, PLAIN, UNIVERSITY, Texts, pretend

Site = Callable[[Texts], None]
GPU = Cluster("x", partition="gpu", gpus_per_node=4, gpu_type="a100", memory_gb=100)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return lambda texts: pretend(texts, tmp_path, monkeypatch)


def fits(cluster: Cluster, known: Limits | None = None, nodes: int = 1, tasks: int = 1, cpus: int = 1) -> str:
    """Empty, or the line of the refusal."""
    known = known or limits_of(cluster)
    line = ""
    try:
        check_fits(
            cluster,
            known,
            nodes=nodes,
            tasks_per_node=tasks,
            cpus_per_task=cpus,
            gpus_per_node=cluster.gpus_per_node,
        )
    except ValueError as error:
        line = str(error)
    assert "\n" not in line
    return line.removeprefix("cluster x: ")


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("(null)", ()),
        ("", ()),
        ("gpu:4", (("", 4),)),
        ("gpu", (("", 1),)),
        ("gpu:4(S:0-1)", (("", 4),)),
        ("gpu:a100:4(S:0-1)", (("a100", 4),)),
        ("gpu:a100:4(S:0,1),tmpdisk:9", (("a100", 4),)),
        ("gpu:a100:2,gpu:v100:2", (("a100", 2), ("v100", 2))),
        ("shard:8,gpu:nvidia_a100_1g.10gb:7,mps:100", (("nvidia_a100_1g.10gb", 7),)),
        ("gpumem:80,craynetwork:4", ()),
    ],
)
def test_gpus_of_a_node(text: str, gpus: tuple[tuple[str, int], ...]):
    assert scontrol.gpus(text) == gpus


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("UNLIMITED", None),
        ("infinite", None),
        ("1-00:00:00", 1440),
        ("14-12:30:00", 14 * 1440 + 750),
        ("02:00:00", 120),
        ("2:00:00", 120),
        ("30:00", 30),
        ("00:30", 0),
    ],
)
def test_minutes_of_a_time_limit(text: str, minutes: int | None):
    assert scontrol.minutes(text) == minutes


def test_limits_of_a_partition_of_unlike_nodes(site: Site):
    site(UNIVERSITY)
    known = limits_of(GPU)
    assert (known.state, known.max_minutes, known.max_nodes, known.unseen) == ("UP", 7 * 1440, 2, 0)
    assert known.max_array_size == 500
    assert limits_of(replace(GPU, max_array_size=20)).max_array_size == 20
    # Memory: the partition's 400000, or what the system leaves; CPUs of 20.11.
    assert [(node.name, node.cpus, node.memory_mb) for node in known.nodes] == [
        ("g1", 64, 400000),
        ("g2", 64, 400000),
        ("v1", 40, 190000),
    ]
    assert [node.cpus for node in limits_of(Cluster("x", partition="short")).nodes] == [16, 16, 16]
    assert [node.memory_mb for node in limits_of(Cluster("x", partition="urgent")).nodes] == [512000, 64000, 64000]


def test_without_a_name_it_is_the_default_partition(site: Site):
    site(UNIVERSITY)
    assert limits_of(Cluster("x")).partition == "gpu"


def test_a_partition_that_is_not_there(site: Site):
    site(PLAIN)
    with pytest.raises(ValueError, match=r"^cluster x: give a partition.* no default \(allowed: cpu\)$"):
        limits_of(Cluster("x"))
    with pytest.raises(ValueError, match=r"^cluster x: unknown partition 'cpus'; did you mean cpu\? \(allowed: cpu\)$"):
        limits_of(Cluster("x", partition="cpus"))
    with pytest.raises(ValueError, match="this Slurm accepts no job arrays"):
        limits_of(Cluster("x", partition="cpu"))


@pytest.mark.parametrize(
    ("changes", "job", "said"),
    [
        ({}, {}, ""),
        ({}, {"nodes": 2, "tasks": 4, "cpus": 16}, ""),
        ({"gpu_type": None, "gpus_per_node": 2, "memory_gb": None}, {"nodes": 2}, ""),
        ({"constraint": "a100&nvlink"}, {}, ""),
        ({"constraint": "v100|a100"}, {}, ""),
        ({"constraint": "[a100*1&v100*1]"}, {}, ""),
        (
            {"gpus_per_node": 5},
            {},
            "5 GPUs of type a100 per node, but no node of partition gpu has over 4",
        ),
        (
            {"gpu_type": "v100", "gpus_per_node": 3},
            {},
            "3 GPUs of type v100 per node, but no node of partition gpu has over 2",
        ),
        ({"gpu_type": "h100"}, {}, "unknown GPU type 'h100'; did you mean v100 or a100? (allowed: a100, v100)"),
        ({}, {"cpus": 65}, "65 CPUs per node, but no node of partition gpu with 4 GPUs of type a100 has over 64"),
        (
            {"gpu_type": "v100", "gpus_per_node": 2},
            {"tasks": 2, "cpus": 32},
            "64 CPUs per node, but no node of partition gpu with 2 GPUs of type v100 has over 40",
        ),
        (
            {"memory_gb": 391},
            {},
            "400384 MiB of memory per node, but no node of partition gpu with 4 GPUs of type a100 and 1 CPUs has "
            "over 400000",
        ),
        ({"gpu_type": "v100", "gpus_per_node": 2, "memory_gb": 300}, {}, "has over 190000"),
        ({"minutes": 7 * 1440 + 1}, {}, "minutes=10081, but partition gpu allows 10080 (its MaxTime)"),
        ({}, {"nodes": 3}, "a job of 3 nodes, but partition gpu allows 2 (its MaxNodes)"),
        (
            {"gpu_type": "v100", "gpus_per_node": 2, "memory_gb": None},
            {"nodes": 2},
            "a job of 2 nodes, but partition gpu has 1 with 2 GPUs of type v100 and 1 CPUs",
        ),
        ({"exclude": "g1"}, {"nodes": 2}, "a job of 2 nodes, but partition gpu has 1 with 4 GPUs"),
        ({"exclude": "g1,g2"}, {}, "unknown GPU type 'a100'"),
        ({"exclude": "g1,g2,v1"}, {}, "partition gpu has no nodes that are not excluded"),
        ({"constraint": "nvlnk"}, {}, "unknown feature in constraint 'nvlnk'; did you mean nvlink?"),
        ({"constraint": "[a100*1&v1*1]"}, {}, "unknown feature in constraint 'v1'"),
        ({"constraint": "a100&v100"}, {}, "partition gpu has no node with a100&v100"),
        (
            {"constraint": "v100"},
            {},
            "4 GPUs of type a100 per node, but no node of partition gpu with v100 has over 0",
        ),
        ({"partition": "old"}, {}, "partition old is DRAIN and starts no jobs"),
    ],
)
def test_what_could_never_run(site: Site, changes: dict[str, Any], job: dict[str, Any], said: str):
    site(UNIVERSITY)
    line = fits(replace(GPU, **changes), **job)
    assert said in line
    assert bool(said) == bool(line)


def test_of_nodes_that_slurm_does_not_show_nothing_is_refused_but_their_number(site: Site):
    site(CLOUD)
    cluster = Cluster("x", partition="gpu.spot", gpus_per_node=16, gpu_type="nvidia_b200", constraint="new")
    assert limits_of(cluster).unseen == 9
    assert fits(cluster, nodes=9) == ""
    assert "a job of 11 nodes, but partition gpu.spot has 9 with" in fits(cluster, nodes=11)
    assert fits(Cluster("x", partition="gpu.spot", gpus_per_node=6, minutes=10**6), nodes=10, cpus=94) == ""


def test_a_hidden_partition_can_be_named(site: Site):
    site(CLOUD)
    assert [node.name for node in limits_of(Cluster("x", partition="secret")).nodes] == ["c2"]


def test_without_slurm_on_the_machine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SlurmUnreachable, match="no scontrol on the PATH"):
        limits_of(GPU)


def test_a_real_slurm_agrees(slurm: None, tmp_path: Path):
    low = Cluster("x", partition="low", gpus_per_node=4, gpu_type="fake", memory_gb=3.9, minutes=120)
    known = limits_of(low)
    assert known._replace(nodes=()) == Limits("low", "UP", 120, None, (), 0, 1000)
    assert [node.name for node in known.nodes] == NODES
    assert fits(low, known, nodes=4, tasks=4) == ""
    line = ["-p", "low", "--time=120", "--mem=3993M", f"--output={tmp_path}/out", "--wrap=hostname"]
    job = run("sbatch", "-W", "--parsable", "-N4", "--gpus-per-node=fake:4", "--ntasks-per-node=4", *line)
    assert run("squeue", "-h", "-t", "all", "-j", job, "-o", "%T") == "COMPLETED"
    too_much: list[tuple[Cluster, dict[str, Any]]] = [
        (low, {"nodes": 5}),
        (low, {"cpus": 5}),
        (replace(low, gpus_per_node=5), {}),
        (replace(low, memory_gb=4), {}),
        (replace(low, minutes=121), {}),
        (replace(low, gpu_type="a100"), {}),
        (replace(low, constraint="a100"), {}),
        (replace(low, exclude="127.0.1.[1,3]"), {"nodes": 3}),
    ]
    for cluster, job_size in too_much:
        assert fits(cluster, **job_size), (cluster, job_size)
    with pytest.raises(ValueError, match=r"unknown partition 'lo'; did you mean low\? \(allowed: low, high\)"):
        limits_of(replace(low, partition="lo"))


def test_nodes_that_are_down_come_back_and_a_closed_partition_is_refused(slurm: None):
    cluster = Cluster("x", partition="high", minutes=60)
    run("scontrol", "update", f"nodename={NODES[0]}", "state=drain", "reason=test")
    assert fits(cluster, nodes=4) == ""
    run("scontrol", "update", "partitionname=high", "state=inactive")
    try:
        assert "partition high is INACTIVE" in fits(cluster)
    finally:
        run("scontrol", "update", "partitionname=high", "state=up")


def test_a_qos_may_lift_limits_of_the_partition(slurm: None):
    run("sacctmgr", "-i", "add", "qos", "longer", "flags=PartitionTimeLimit")
    run("sacctmgr", "-i", "add", "qos", "wider", "flags=PartitionMaxNodes")
    run("scontrol", "update", "partitionname=high", "maxnodes=1")
    try:
        long = Cluster("x", partition="high", minutes=1000)
        assert "allows 120" in fits(long)
        assert fits(replace(long, qos="longer")) == ""
        assert "allows 120" in fits(replace(long, qos="normal"))
        wide = replace(long, minutes=60)
        assert "allows 1 (its MaxNodes)" in fits(wide, nodes=4)
        assert fits(replace(wide, qos="wider"), nodes=4) == ""
    finally:
        run("scontrol", "update", "partitionname=high", "maxnodes=unlimited")
        run("sacctmgr", "-i", "delete", "qos", "longer,wider")


def test_a_qos_without_accounting_lifts_nothing(unaccounted: None):
    assert "allows 120" in fits(Cluster("x", partition="low", minutes=1000, qos="longer"))


def test_a_controller_that_does_not_answer_is_told_in_slurms_words(
    slurm_conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    dead = tmp_path / "slurm.conf"
    lines = slurm_conf.read_text().splitlines()
    dead.write_text("\n".join("SlurmctldPort=1" if line.startswith("SlurmctldPort=") else line for line in lines))
    monkeypatch.setenv("SLURM_CONF", str(dead))
    with pytest.raises(SlurmUnreachable, match=r"^scontrol: .*Unable to contact slurm"):
        limits_of(Cluster("x"))
