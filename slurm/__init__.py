"""Where callables run: jobs on a cluster through submitit. Knows nothing of models or cells."""
