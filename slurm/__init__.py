"""Where callables run, through submitit: on a cluster, or in processes of this machine. Knows nothing of cells."""

from slurm.inside import this_job
from slurm.local import JobDied, call_apart

__all__ = ["JobDied", "call_apart", "this_job"]
