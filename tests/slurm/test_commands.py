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


def test_its_own_last_line_is_told(tmp_path, monkeypatch):
    command(tmp_path, "echo first >&2; echo 'squeue: error: the controller is away' >&2; exit 1", monkeypatch)
    with pytest.raises(SlurmUnreachable, match=r"^squeue: the controller is away$"):
        output("squeue")


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


def test_settings_that_hide_jobs_are_not_passed_on(tmp_path, monkeypatch):
    command(tmp_path, 'echo "$SQUEUE_PARTITION$SLURM_TIME_FORMAT-$SLURM_CONF"', monkeypatch)
    monkeypatch.setenv("SQUEUE_PARTITION", "high")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    monkeypatch.setenv("SLURM_CONF", "/here")
    assert output("squeue") == "-/here\n"
