#!/usr/bin/env bash
# A sweep on a cluster that is on this machine alone: demo.sh FOLDER SWEEP [options of attention-bench submit]
# Starts the tests' real Slurm, submits, watches to the end, prints the table, and stops the cluster whatever happens.
# What is left is FOLDER: clusters.toml, the records, the logs. Beside the tests, as jobs get a copy of all of slurm/.
set -euo pipefail
cluster=$(cd "$(dirname "$0")" && pwd)/local_slurm.sh
PATH=$PATH:/usr/sbin:/sbin

for program in munged slurmctld slurmd sbatch slurmdbd mariadbd mariadb ss pkill; do
    if ! command -v "$program" > /dev/null; then
        echo "slurm-demo: no $program here; on Debian and Ubuntu: apt-get install -y --no-install-recommends slurmctld" \
            "slurmd slurm-client munge slurmdbd mariadb-server-core mariadb-client-core iproute2 procps" >&2
        exit 1
    fi
done

mkdir -p "$1" && cd "$1"
shift
# Short, as a unix socket's path has 108 characters at most.
state=$(mktemp -d /tmp/slurm-demo.XXXX)
stop() {
    trap '' INT TERM HUP
    echo
    echo "slurm-demo: stopping the cluster"
    pkill -P $$ || true
    "$cluster" down "$state" && rm -rf "$state"
    echo "slurm-demo: the records, one JSON per cell, and the logs are in $PWD"
}
trap stop EXIT

run() {
    echo
    echo "\$ $*"
    "$@"
}

# A core each: jobs that run at a time share those of this machine. No GPUs, as there would be none behind them.
nodes=$(nproc)
nodes=$((nodes < 2 ? 2 : nodes > 4 ? 4 : nodes))
echo "slurm-demo: starting a Slurm of $nodes nodes with a core each, all of them this machine"
NODES=$nodes CPUS=1 GPUS=0 "$cluster" up "$state" > /dev/null
export SLURM_CONF=$state/slurm.conf
echo "slurm-demo: its nodes share the cores of one machine: speeds measured here mean nothing beyond this demonstration"
echo "slurm-demo: from another terminal it answers to sinfo, squeue and scancel after: export SLURM_CONF=$SLURM_CONF"
echo "slurm-demo: to lose a node: scontrol update nodename=127.0.1.1 state=down reason=demo (it comes back by itself)"
if compgen -G "*.json" > /dev/null; then
    echo "slurm-demo: records of an earlier run are kept, and not measured again; to begin anew, remove $PWD"
fi

rm -f clusters.toml
run attention-bench cluster detect
run cat clusters.toml
run attention-bench submit "$@" --cluster low --out "$PWD" --dry-run
run attention-bench submit "$@" --cluster low --out "$PWD"
run attention-bench status "$1" --out "$PWD" --watch --every 5
run attention-bench table "$1" --out "$PWD"
