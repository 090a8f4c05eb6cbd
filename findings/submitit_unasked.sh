#!/usr/bin/env bash
# Who guesses what: whoever submits through submitit (DINO, MAE and others of this field do) expects the batch script to ask
#   for what the program asked for: a site that refuses an option is a matter of options that somebody gave, and an array of
#   1000 runs starts as many as the site allows.
# What happens: every script has `--wckey=submitit`, so a site that checks workload keys refuses every job ("Invalid wckey
#   specification"), and every array has `%256`, so no more than 256 of its jobs run at once, however many GPUs are free.
#   slurm_wckey="" and slurm_array_parallelism=... of update_parameters change them.
# Versions: submitit 1.5.4; 2026-11-28. Needs no Slurm: two stand-ins take the script, which submitit has written by then.
# Source: https://github.com/facebookincubator/submitit/issues/1758, https://github.com/facebookincubator/submitit/issues/1632;
#   submitit/slurm/slurm.py, _make_sbatch_string (defaults)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet submitit==1.5.4
mkdir bin
printf '#!/bin/sh\necho Submitted batch job 1\n' >bin/sbatch
printf '#!/bin/sh\n' >bin/srun
chmod +x bin/*
PATH=$folder/bin:$PATH venv/bin/python -I - <<'END'
import sys
from pathlib import Path

import submitit

executor = submitit.SlurmExecutor(folder="jobs")
executor.update_parameters(time=60, partition="gpu")
executor.map_array(abs, range(1000))
(script,) = Path("jobs").glob("*_submission.sh")
asked = [line.removeprefix("#SBATCH ") for line in script.read_text().splitlines() if line.startswith("#SBATCH ")]
seen = [option for option in asked if option.startswith(("--array", "--wckey"))]
print(f"submitit {submitit.__version__}: an array of 1000 jobs with a time and a partition")
print("expected:", ["--array=0-999"])
print("seen:    ", seen)
sys.exit(0 if seen == ["--array=0-999%256", "--wckey=submitit"] else "this has changed")
END
