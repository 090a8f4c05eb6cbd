"""Where callables run, through submitit: so far in processes of this machine. Knows nothing of models or cells."""

from slurm.local import JobDied, call_apart

__all__ = ["JobDied", "call_apart"]
