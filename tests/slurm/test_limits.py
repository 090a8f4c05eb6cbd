"""What a partition can give, on sites of several kinds and on the tests' own: what could never run is refused."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slurm import scontrol
from slurm.clusters import Cluster
from slurm.commands import SlurmUnreachable
from slurm.limits import Limits, check_fits, jobs_at_once, limits_of
from slurm.submission import Resources
from tests.slurm.cluster import NODES, run, wait_for
from tests.slurm.sites import CLOUD, PLAIN, STRICT, UNIVERSITY, Texts, pretend

Site = Callable[[Texts], None]
GPU = Cluster("x", partition="gpu", gpus_per_node=4, gpu_type="a100", memory_gb=100)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return lambda texts: pretend(texts, tmp_path, monkeypatch)


def fits(cluster: Cluster, known: Limits | None = None, nodes: int = 1, tasks: int = 1, cpus: int = 1) -> str:
    """Empty, or the line of the refusal: of a job with the whole memory and all GPUs of the cluster's table."""
    line = ""
    try:
        check_fits(cluster, known or limits_of(cluster), job(cluster, nodes, tasks, cpus))
    except ValueError as error:
        line = str(error)
    assert "\n" not in line
    return line.removeprefix("cluster x: ")


def job(cluster: Cluster, nodes: int = 1, tasks: int = 1, cpus: int = 1) -> Resources:
    return Resources(
        nodes,
        tasks,
        cpus,
        cluster.gpus_per_node,
        cluster.minutes,
        cluster.memory_gb,
        memory_per_cpu_gb=cluster.memory_per_cpu_gb,
    )


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
        ("gpu:3090:8", (("3090", 8),)),
        ("gpu:2080:4(S:0-1),gpu:3090:2", (("2080", 4), ("3090", 2))),
        ("gpu:1080", (("", 1080),)),
        ("gpu:a100", (("a100", 1),)),
        ("gpu:tesla:4(IDX:0,2-3)", (("tesla", 4),)),
        ("gpu:tesla:4(IDX:N/A)", (("tesla", 4),)),
        ("gres/gpu:4", (("", 4),)),
        ("gres/gpu=4", (("", 4),)),
        ("gres/gpu:3090=4", (("3090", 4),)),
        ("gpu:a100:4(S:0),gpu:v100:1,gpu:a100:4(S:1)", (("a100", 8), ("v100", 1))),
        ("gpu:a100:no_consume:2", (("a100", 2),)),
        ("gpu:a100:0,gpu:0", ()),
        ("shard:a100:1K,gpu:a100:1K", (("a100", 1024),)),
        ("gpu:a100_1g.5gb:7(S:0)", (("a100_1g.5gb", 7),)),
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


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("a100_1g.5gb", 1),
        ("1g.10gb", 1),
        ("nvidia_a100_80gb_pcie_3g.40gb", 3),
        ("h100-2g.24gb", 2),
        ("H100_7g.80gb", 7),
        ("a30_4g_24gb", 4),
        ("1g.12gb+me", 1),
        ("a100_1g5gb", 1),
        ("h100-3g40", 3),
        ("a100_mig", 1),
        ("a100", None),
        ("3090", None),
        ("nvidia_a100_80gb_pcie", None),
        ("v100_32g", None),
        ("rtx_4000_ada", None),
        ("", None),
    ],
)
def test_slices_of_gpus(kind: str, size: int | None):
    assert scontrol.is_slice(kind) == (size is not None)
    assert size is None or scontrol.sevenths(kind) == size


STRICT_GPU = Cluster("x", partition="gpu nodes (a100)", account="vision", qos="normal", gpus_per_node=4)


def test_names_with_spaces(site: Site):
    site(STRICT)
    names = ["gpu nodes (a100)", "gpu nodes  a100", "slices", "set aside", "admin"]
    assert [partition.name for partition in scontrol.partitions()] == names
    assert [sorted(node.partitions) for node in scontrol.nodes()] == [
        ["gpu nodes  a100", "gpu nodes (a100)"],
        ["gpu nodes (a100)", "set aside"],
        ["admin", "slices"],
    ]
    assert scontrol.nodes()[0].gpus == (("a100", 4), ("a100_1g.5gb", 7))
    assert scontrol.partitions()[0].groups == {"domain users", "staff"}
    with pytest.raises(
        ValueError, match=r"unknown partition 'gpu'.* \(allowed: gpu nodes \(a100\), gpu nodes  a100, s"
    ):
        limits_of(replace(STRICT_GPU, partition="gpu"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"qos": "Long", "account": "NLP"}, ""),
        ({"qos": None, "account": None}, ""),
        (
            {"qos": "lang"},
            "unknown qos 'lang'; did you mean long? (allowed: long, normal) in partition gpu nodes (a100) ",
        ),
        (
            {"account": "audio"},
            "unknown account 'audio' (allowed: nlp, vision) in partition gpu nodes (a100) (its AllowAcc",
        ),
        ({"partition": "slices"}, ""),
        (
            {"partition": "slices", "account": "Guest"},
            "account 'Guest' may not use partition slices (its DenyAccounts: guest)",
        ),
        (
            {"partition": "slices", "qos": "scavenge"},
            "qos 'scavenge' may not use partition slices (its DenyQos: scavenge)",
        ),
        ({"partition": "admin"}, "partition admin is for root only (RootOnly)"),
        (
            {"partition": "set aside"},
            "partition set aside takes only jobs with a reservation (ReqResv): give the key reservation",
        ),
        ({"partition": "set aside", "reservation": "week"}, ""),
        ({"nodelist": "a1"}, ""),
        (
            {"nodelist": "a1,a9"},
            "unknown node in nodelist 'a9' (allowed: a1, a2) in partition gpu",
        ),
        ({"nodelist": "m1"}, "unknown node in nodelist 'm1'"),
        ({"nodelist": "a1", "exclude": "a2,a1"}, "node a1 is in nodelist and in exclude"),
    ],
)
def test_whom_a_partition_does_not_take(site: Site, changes: dict[str, Any], said: str):
    site(STRICT)
    line = ""
    try:
        limits_of(replace(STRICT_GPU, **changes))
    except ValueError as error:
        line = str(error)
    assert said in line
    assert bool(said) == bool(line)


def test_an_account_below_one_that_is_allowed_is_left_to_slurm(site: Site, tmp_path: Path):
    """Newer versions of Slurm admit it, older ones do not."""
    site(STRICT)
    sacctmgr = tmp_path / "sacctmgr"
    sacctmgr.write_text(
        '#!/bin/sh\ncase "$*" in *"account detection"*) echo video ;; *"account video"*) echo vision ;; '
        '*"account vision"*) echo root ;; *"account audio"*) echo root ;; esac\necho\n'
    )
    sacctmgr.chmod(0o755)
    assert limits_of(replace(STRICT_GPU, account="detection")).partition == "gpu nodes (a100)"
    with pytest.raises(ValueError, match="unknown account 'audio'"):
        limits_of(replace(STRICT_GPU, account="audio"))


@pytest.mark.parametrize(
    ("changes", "size", "said"),
    [
        ({}, {}, ""),
        ({"gpu_type": "a100"}, {"nodes": 2}, "a job of 2 nodes, but partition gpu nodes (a100) has 1 with 4 GPUs"),
        ({"gpu_type": "3090", "gpus_per_node": 2}, {}, ""),
        (
            {"gpu_type": "3090"},
            {},
            "4 GPUs of type 3090 per node, but no node of partition gpu nodes (a100) has over 2",
        ),
        # Slices are no GPUs to train on.
        ({"gpus_per_node": 7}, {}, "7 GPUs per node, but no node of partition gpu nodes (a100) has over 4"),
        (
            {"gpus_per_node": 7, "gpu_type": "a100_1g.5gb"},
            {},
            "a job with 7 a100_1g.5gb per node, but these are slices",
        ),
        ({"gpus_per_node": 1, "gpu_type": "a100_1g.5gb"}, {}, ""),
        ({"partition": "slices", "gpus_per_node": 1}, {}, ""),
        ({"nodelist": "a1"}, {}, ""),
        ({"nodelist": "a2"}, {}, "node a2 of nodelist is not one with 4 GPUs"),
        (
            {"nodelist": "a1,a2", "gpus_per_node": 2},
            {},
            "a job of 1 node, but nodelist names 2, of which a job gets all",
        ),
        ({"nodelist": "a1,a2", "gpus_per_node": 2}, {"nodes": 2}, ""),
        (
            {"partition": "set aside", "reservation": "r"},
            {},
            "a job of 1 node, but partition set aside takes 2 or more",
        ),
        # Over MaxMemPerCPU=3968: twice the CPUs, of 48.
        ({"memory_per_cpu_gb": 3.875}, {"tasks": 4, "cpus": 12}, ""),
        ({"memory_per_cpu_gb": 4}, {"tasks": 4, "cpus": 6}, ""),
        (
            {"memory_per_cpu_gb": 4},
            {"tasks": 4, "cpus": 7},
            "56 CPUs (asked for 28, raised as MaxMemPerCPU is 3968 MiB) per node, but no node of partition gpu nodes",
        ),
        # Of memory per node as well: 3 x 16 CPUs have 186 GiB.
        ({"memory_gb": 186}, {"tasks": 3, "cpus": 1}, ""),
        (
            {"memory_gb": 187},
            {"tasks": 3, "cpus": 1},
            "51 CPUs (asked for 3, raised as MaxMemPerCPU is 3968 MiB) per node",
        ),
        (
            {"partition": "slices", "gpus_per_node": 1, "memory_per_cpu_gb": 4},
            {"cpus": 32},
            "131072 MiB of memory per node",
        ),
    ],
)
def test_what_a_strict_site_could_never_run(site: Site, changes: dict[str, Any], size: dict[str, Any], said: str):
    site(STRICT)
    line = fits(replace(STRICT_GPU, **changes), **size)
    assert said in line
    assert bool(said) == bool(line)


@pytest.mark.parametrize(
    ("changes", "size", "most", "exclusive"),
    [
        # Two nodes of 64 CPUs, 400000 MiB and 4 GPUs (a100), one of 40, 190000 and 2 (v100).
        ({"gpus_per_node": 1, "gpu_type": None, "memory_gb": None}, {}, 10, 3),
        ({"gpus_per_node": 1, "memory_gb": None}, {}, 8, 2),
        ({"gpus_per_node": 0, "gpu_type": None, "memory_gb": None}, {"cpus": 16}, 4 + 4 + 2, 3),
        ({"gpus_per_node": 0, "gpu_type": None, "memory_gb": 150}, {}, 2 + 2 + 1, 3),
        ({"gpus_per_node": 4, "memory_gb": None}, {"nodes": 2}, 1, 1),
        ({"gpus_per_node": 1, "memory_gb": None, "constraint": "a100"}, {}, 8, 2),
        ({"gpus_per_node": 1, "gpu_type": None, "memory_gb": None, "exclude": "g1"}, {}, 6, 2),
        ({"gpus_per_node": 1, "memory_gb": None, "nodelist": "g1"}, {}, 4, 1),
    ],
)
def test_how_many_jobs_a_partition_holds(
    site: Site, changes: dict[str, Any], size: dict[str, Any], most: int, exclusive: int
):
    site(UNIVERSITY)
    cluster = replace(GPU, **changes)
    assert jobs_at_once(cluster, limits_of(cluster), job(cluster, **size)) == most
    alone = replace(job(cluster, **size), exclusive=True)
    assert jobs_at_once(cluster, limits_of(cluster), alone) == exclusive


def test_where_nodes_are_not_shown_it_is_not_known_how_many_jobs_a_partition_holds(site: Site):
    site(CLOUD)
    cluster = Cluster("x", partition="gpu.spot", gpus_per_node=1)
    assert jobs_at_once(cluster, limits_of(cluster), job(cluster)) is None


def test_the_sites_limits_of_memory_hold_where_a_partition_has_none(site: Site):
    texts = STRICT._replace(config=STRICT.config + "MaxMemPerCPU            = 1000\n")
    site(texts)
    most = {name: limits_of(replace(STRICT_GPU, partition=name)).max_memory_mb_per_cpu for name in ("slices",)}
    most |= {STRICT_GPU.partition or "": limits_of(STRICT_GPU).max_memory_mb_per_cpu}
    assert most == {"slices": 1000, "gpu nodes (a100)": 3968}


def test_a_real_slurm_raises_cpus_rather_than_refuse_memory(slurm: None, tmp_path: Path):
    """And refuses what it then has no CPUs for; its nodes have 4 CPUs and 4000 MiB."""
    run("scontrol", "create", "partition=per cpu", "nodes=ALL", "maxmempercpu=500", "maxtime=120")
    try:
        cluster = Cluster("x", partition="per cpu", minutes=5)
        known = limits_of(cluster)
        assert known.max_memory_mb_per_cpu == 500
        sizes = [(600, 0, 1, 1), (600, 0, 1, 2), (600, 0, 1, 3), (600, 0, 2, 2), (1100, 0, 1, 1), (1600, 0, 1, 2)]
        sizes += [(0, 1200, 1, 1), (0, 2100, 1, 1), (0, 1900, 2, 2), (0, 1900, 3, 1), (0, 1400, 2, 1)]
        for per_cpu, per_node, tasks, cpus in sizes:
            memory = f"--mem-per-cpu={per_cpu}M" if per_cpu else f"--mem={per_node}M"
            asked = ["sbatch", "-p", "per cpu", "-N1", f"--ntasks-per-node={tasks}", f"--cpus-per-task={cpus}", memory]
            done = subprocess.run(
                [*asked, "--output=/dev/null", "--wrap=true"], capture_output=True, text=True, check=False
            )
            table = replace(
                cluster,
                memory_per_cpu_gb=per_cpu / 1024 if per_cpu else None,
                memory_gb=per_node / 1024 if per_node else None,
            )
            assert bool(fits(table, known, tasks=tasks, cpus=cpus)) == bool(done.returncode), (asked, done.stderr)
    finally:
        run("scancel", "--me")
        wait_for(lambda: run("squeue", "-h") == "")
        run("scontrol", "delete", "partition=per cpu")


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
    whole = run("sbatch", "-W", "--parsable", "-N4", "--gpus-per-node=fake:4", "--ntasks-per-node=4", *line)
    assert run("squeue", "-h", "-t", "all", "-j", whole, "-o", "%T") == "COMPLETED"
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
