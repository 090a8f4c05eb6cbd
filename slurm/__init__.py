"""Running callables through submitit: on a cluster, or in processes of this machine. Knows nothing of cells."""

from slurm.clusters import Cluster, load
from slurm.commands import SlurmUnreachable, chosen_cluster
from slurm.detection import detect
from slurm.inside import Work, this_job
from slurm.limits import Limits, check_fits, jobs_at_once, limits_of
from slurm.local import JobDied, call_apart, cancel_local, local_job, submit_local
from slurm.queue import JobInfo, Queue, ask, cancel, release
from slurm.reasons import describe, is_held
from slurm.snapshot import copy_code
from slurm.submission import Resources, Unconfirmed, submit_array

__all__ = [
    "Cluster",
    "JobDied",
    "JobInfo",
    "Limits",
    "Queue",
    "Resources",
    "SlurmUnreachable",
    "Unconfirmed",
    "Work",
    "ask",
    "call_apart",
    "cancel",
    "cancel_local",
    "check_fits",
    "chosen_cluster",
    "copy_code",
    "describe",
    "detect",
    "is_held",
    "jobs_at_once",
    "limits_of",
    "load",
    "local_job",
    "release",
    "submit_array",
    "submit_local",
    "this_job",
]
