"""What scontrol prints on sites of other kinds and versions, and a stand-in for it that prints that."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest


class Texts(NamedTuple):
    """Of `scontrol --oneliner show partition` and `show node`, and of `scontrol show config`."""

    partition: str
    node: str
    config: str


def _partition(name: str, **changes: str) -> str:
    """A partition's line as Slurm 20.11 and later print it; newer versions add fields in between."""
    values = {
        "AllowGroups": "ALL",
        "Default": "NO",
        "QoS": "N/A",
        "DefaultTime": "NONE",
        "ExclusiveTopo": "NO",
        "GraceTime": "0",
        "Hidden": "NO",
        "MaxNodes": "UNLIMITED",
        "MaxTime": "1-00:00:00",
        "MinNodes": "0",
        "MaxCPUsPerNode": "UNLIMITED",
        "MaxCPUsPerSocket": "UNLIMITED",
        "PriorityTier": "1",
        "PreemptMode": "OFF",
        "State": "UP",
        "TotalNodes": "2",
        "JobDefaults": "DefCpuPerGPU=8,DefMemPerGPU=8000",
        "MaxMemPerNode": "UNLIMITED",
        "TRES": "cpu=64,mem=1031000M,node=2,billing=64,gres/gpu=8,gres/gpu:a100=8",
    }
    return " ".join([f"PartitionName={name}", *(f"{key}={value}" for key, value in (values | changes).items())]) + "\n"


def _config(**changes: str) -> str:
    values = {
        "AccountingStorageEnforce": "none",
        "ClusterName": "site",
        "MaxArraySize": "1001",
        "PreemptMode": "OFF",
        "PreemptType": "preempt/none",
        "SLURM_VERSION": "24.05.4",
    }
    lines = [f"{key:<23} = {value}" for key, value in (values | changes).items()]
    return "\n".join(
        ["Configuration data as of 2025-06-02T11:10:02", *lines, "", "Slurmctld(primary) at ctl is UP", ""]
    )


# Slurm 20.11, no CPUEfctv: nodes that differ, GPUs with sockets, memory kept for the system, limits per node, a reason
# that looks like fields, partitions that are closed.
UNIVERSITY = Texts(
    partition=_partition("short", MaxTime="00:30:00", TotalNodes="3", MaxCPUsPerNode="16")
    + _partition(
        "gpu",
        Default="YES",
        TotalNodes="3",
        PreemptMode="REQUEUE",
        GraceTime="120",
        MaxNodes="2",
        MaxTime="7-00:00:00",
        MaxMemPerNode="400000",
    )
    + _partition("urgent", PriorityTier="10", MaxTime="UNLIMITED", TotalNodes="3", PreemptMode="CANCEL")
    + _partition("old", State="DRAIN")
    + _partition("blink", MaxTime="00:02:00", TotalNodes="3"),
    node="NodeName=g1 Arch=x86_64 CoresPerSocket=16 CPUAlloc=0 CPUTot=64 CPULoad=0.01 AvailableFeatures=a100,nvlink "
    "ActiveFeatures=a100,nvlink Gres=gpu:a100:4(S:0-1) NodeAddr=g1 Version=20.11.9 OS=Linux 4.18.0 #1 SMP Tue "
    "RealMemory=515000 AllocMem=0 FreeMem=1 Sockets=2 MemSpecLimit=3000 State=IDLE ThreadsPerCore=2 "
    "Partitions=short,gpu,urgent,blink CfgTRES=cpu=64,mem=515000M,gres/gpu=4 AllocTRES=\n"
    "NodeName=g2 Arch=x86_64 CPUAlloc=0 CPUTot=64 AvailableFeatures=a100,nvlink Gres=gpu:a100:4(S:0,1) "
    "RealMemory=515000 MemSpecLimit=3000 State=DOWN*+DRAIN Partitions=short,gpu,blink "
    "Reason=fan broken, Gres=gpu:9 CPUTot=1 [root@2025-01-01T00:00:00]\n"
    "NodeName=v1 Arch=x86_64 CPUAlloc=4 CPUTot=40 AvailableFeatures=v100 Gres=gpu:v100:2,tmpdisk:400 RealMemory=190000 "
    "State=MIXED Partitions=short,gpu,blink\n"
    "NodeName=n1 CPUTot=32 AvailableFeatures=(null) Gres=(null) RealMemory=64000 State=IDLE Partitions=urgent\n"
    "NodeName=n2 CPUTot=32 AvailableFeatures=(null) Gres=(null) RealMemory=64000 State=IDLE Partitions=urgent\n",
    config=_config(
        SLURM_VERSION="20.11.9",
        AccountingStorageEnforce="associations,limits",
        MaxArraySize="500",
        PreemptType="preempt/partition_prio",
        PreemptMode="REQUEUE",
    ),
)

# Slurm 24.05 in a cloud: only one node of ten is powered up and shown, in a partition whose name needs quotes; a
# partition that is named as this machine is, and a hidden one.
CLOUD = Texts(
    partition=_partition("gpu.spot", Default="YES", TotalNodes="10", PreemptMode="REQUEUE", MaxTime="UNLIMITED")
    + _partition("local", TotalNodes="1")
    + _partition("asleep", TotalNodes="4")
    + _partition("secret", TotalNodes="1", Hidden="YES"),
    node="NodeName=c1 CPUAlloc=0 CPUEfctv=94 CPUTot=96 AvailableFeatures=dynamic ActiveFeatures=dynamic "
    "Gres=gpu:nvidia_h100_80gb_hbm3:6(S:0-1),gpu:nvidia_h100_1g.10gb:2(S:1) RealMemory=2000000 State=IDLE+CLOUD "
    "ThreadsPerCore=1 Partitions=gpu.spot Comment=(null)\n"
    "NodeName=c2 CPUEfctv=2 CPUTot=2 AvailableFeatures=(null) Gres=(null) RealMemory=7500 State=IDLE+CLOUD "
    "Partitions=local,secret\n",
    config=_config(PreemptType="preempt/qos", PreemptMode="REQUEUE"),
)

# CPU nodes only, no default partition, memory counted per CPU, no arrays.
PLAIN = Texts(
    partition=_partition("cpu").replace("MaxMemPerNode=UNLIMITED", "MaxMemPerCPU=4000"),
    node="NodeName=n1 CPUTot=64 AvailableFeatures=(null) Gres=(null) RealMemory=128000 State=IDLE Partitions=cpu\n"
    "NodeName=n2 CPUTot=64 AvailableFeatures=(null) Gres= RealMemory=128000 State=IDLE Partitions=cpu\n"
    "NodeName=spare CPUTot=8 AvailableFeatures=(null) Gres=gpu RealMemory=1000 State=IDLE\n",
    config=_config(MaxArraySize="0"),
)

# Slurm 23.11 with accounting: memory counted per CPU, partitions with spaces in their names and for some accounts or
# QOS only, GPUs of a type in digits, whole GPUs beside slices of one, and a node with slices only.
STRICT = Texts(
    partition=_partition(
        "gpu nodes (a100)", AllowGroups="domain users,staff", AllowAccounts="vision,nlp", AllowQos="long,normal"
    ).replace("MaxMemPerNode=UNLIMITED", "DefMemPerCPU=1024 MaxMemPerCPU=3968")
    + _partition("gpu nodes  a100", TotalNodes="1", AllowAccounts="ml", AllowQos="short", DefMemPerNode="4000")
    + _partition("slices", TotalNodes="1", DenyAccounts="guest", DenyQos="scavenge")
    + _partition("set aside", TotalNodes="1", ReqResv="YES", MinNodes="2", MaxMemPerNode="UNLIMITED")
    + _partition("admin", TotalNodes="1", RootOnly="YES"),
    node="NodeName=a1 CPUTot=48 CPUEfctv=48 AvailableFeatures=(null) Gres=gpu:a100:4(S:0-1),gpu:a100_1g.5gb:7(S:0) "
    "OS=Linux 5.15.0 #1 SMP Tue RealMemory=250000 State=IDLE Partitions=gpu nodes (a100),gpu nodes  a100 "
    "BootTime=None Comment=for A=1 and Gres=gpu:9 only\n"
    "NodeName=a2 CPUTot=48 AvailableFeatures=(null) Gres=gpu:3090:2(IDX:0-1) RealMemory=250000 State=IDLE "
    "Partitions=gpu nodes (a100),set aside  \n"
    "NodeName=m1 CPUTot=64 AvailableFeatures=(null) Gres=gpu:a100_3g.20gb:2,gpu:a100_1g.5gb:6 RealMemory=128000 "
    "State=IDLE Partitions=slices,admin BootTime=None\n",
    config=_config(
        AccountingStorageEnforce="associations,limits,qos,wckeys", SLURM_VERSION="23.11.10", DefMemPerCPU="2000"
    ),
)


# Little is printed: no fields that say what is usual, a node that has not registered, one that keeps all its memory, a
# limit per socket, a partition that takes no jobs.
SPARSE = Texts(
    partition="PartitionName=gpu State=UP MaxTime=UNLIMITED MaxCPUsPerSocket=12 TotalNodes=1\n"
    "PartitionName=shut MaxNodes=0 TotalNodes=3\nPartitionName=new\nPartitionName=small\n",
    node="NodeName=g1 Gres=gpu:a100:4 CPUTot=64 Sockets=2 RealMemory=64000 Partitions=gpu,shut\n"
    "NodeName=g2 CPUTot=0 CPUEfctv=0 RealMemory=1 Partitions=new\n"
    "NodeName=g3 CPUTot=4 RealMemory=1000 MemSpecLimit=2000 Partitions=small\nNodeName=g4 State=FUTURE\n",
    config="ClusterName = x\n",
)


def pretend(texts: Texts, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this test's scontrol prints these texts; there is no other command of Slurm's."""
    for name, text in texts._asdict().items():
        (folder / name).write_text(text)
    scontrol = folder / "scontrol"
    scontrol.write_text(
        f'#!/bin/sh\nfor last; do :; done\ncase "$*" in *hostnames*) echo "$last" | tr , "\\n" ;; '
        f'*--all*) cat "{folder}/$last" ;; *) grep -v Hidden=YES "{folder}/$last" ;; esac\n'
    )
    scontrol.chmod(0o755)
    # The script itself needs a shell's usual commands.
    for tool in ("cat", "grep", "tr"):
        (folder / tool).symlink_to(str(shutil.which(tool)))
    monkeypatch.setenv("PATH", str(folder))
