"""Slurm's commands: what they print, or one line on why they do not answer."""

import time
from pathlib import Path

import pytest

from slurm.commands import SlurmUnreachable, output


def command(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A squeue of ours, the only one on the PATH."""
    path = folder / "squeue"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_what_it_prints_is_returned(tmp_path, monkeypatch):
    command(tmp_path, 'echo "$@"; echo noise >&2', monkeypatch)
    assert output("squeue", "-h", "--me") == "-h --me\n"


def test_without_slurm_the_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmUnreachable, match=r"^no squeue on the PATH"):
        output("squeue")


def test_all_it_says_is_told_once_and_without_its_name(tmp_path, monkeypatch):
    lines = ["first", "squeue: error: the controller is away", "=====", "", "slurm_load_jobs error: first"]
    command(tmp_path, f"printf '%s\\n' {' '.join(map(repr, lines))} >&2; exit 1", monkeypatch)
    with pytest.raises(SlurmUnreachable, match=r"^squeue: first; the controller is away$") as refusal:
        output("squeue")
    assert refusal.value.said == ("first", "the controller is away")


def test_commands_without_a_cluster_are_told_as_such(tmp_path, monkeypatch):
    line = "sinfo: error: fetch_config: DNS SRV lookup failed\nsinfo: fatal: Could not establish a configuration source"
    command(tmp_path, f"echo '{line}' >&2; exit 1", monkeypatch)
    with pytest.raises(SlurmUnreachable, match=r"configuration source; this machine is in no cluster: it has no"):
        output("squeue")


def test_a_failure_without_a_word_has_its_exit_code(tmp_path, monkeypatch):
    command(tmp_path, "exit 7", monkeypatch)
    with pytest.raises(SlurmUnreachable, match=r"^squeue: exit code 7$"):
        output("squeue")


def test_a_slow_answer_is_not_waited_for(tmp_path, monkeypatch):
    command(tmp_path, "exec sleep 60", monkeypatch)
    start = time.monotonic()
    with pytest.raises(SlurmUnreachable, match=r"^Slurm does not answer: squeue took more than 0.5 s$"):
        output("squeue", seconds=0.5)
    assert time.monotonic() - start < 30


def test_what_is_no_program_is_one_line(tmp_path, monkeypatch):
    command(tmp_path, "", monkeypatch)
    (tmp_path / "squeue").chmod(0o644)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmUnreachable, match=r"^squeue cannot be run: Permission denied$"):
        output("squeue")


def test_settings_that_hide_or_cut_or_are_of_this_job_are_not_passed_on(tmp_path, monkeypatch):
    names = ("SQUEUE_PARTITION", "SLURM_TIME_FORMAT", "SLURM_JOB_ID", "SBATCH_PARTITION", "WORLD_SIZE", "SLURM_CONF")
    command(tmp_path, f'echo "{" ".join(f"${name}" for name in names)} $SLURM_BITSTR_LEN"', monkeypatch)
    for name in names[:-1]:
        monkeypatch.setenv(name, "wrong")
    monkeypatch.setenv("SLURM_BITSTR_LEN", "64")
    monkeypatch.setenv("SLURM_CONF", "/here")
    assert output("squeue").split() == ["/here", "0"]


@pytest.mark.parametrize("variable", ["SLURM_CLUSTERS", "SBATCH_CLUSTERS"])
def test_each_command_is_told_the_cluster_that_the_user_names(tmp_path, monkeypatch, variable):
    """Some read the variables, others do not: a job would be submitted to one cluster, and looked for in another."""
    command(tmp_path, 'echo "$SLURM_CLUSTERS$SBATCH_CLUSTERS" "$@"', monkeypatch)
    monkeypatch.setenv(variable, "north")
    assert output("squeue", "--me").split() == ["--clusters=north", "--me"]
    for name in ("SLURM_CLUSTERS", "SBATCH_CLUSTERS"):
        monkeypatch.setenv(name, "north")
    assert output("squeue", "--me").split() == ["--clusters=north", "--me"]


@pytest.mark.parametrize(
    ("slurm", "sbatch"), [("north,south", ""), ("all", ""), ("north", "south")], ids=["two", "all", "different"]
)
def test_several_clusters_are_refused_in_one_line(tmp_path, monkeypatch, slurm, sbatch):
    command(tmp_path, "true", monkeypatch)
    monkeypatch.setenv("SLURM_CLUSTERS", slurm)
    monkeypatch.setenv("SBATCH_CLUSTERS", sbatch)
    with pytest.raises(SlurmUnreachable, match=rf"^SLURM_CLUSTERS={slurm}.* names several clusters: name a single one"):
        output("squeue")
