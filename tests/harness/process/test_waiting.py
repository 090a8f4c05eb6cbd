"""The wait policy of OpenMP: it is in the environment before torch is imported, unless the user has chosen one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness import __main__ as command
from harness.process import environment, waiting
from harness.process.waiting import IN_SHELL, SPINS, described_policy, set_wait_policy, wait_policy
from tests.test_imports import ROOT, imports_of, loaded_by, sources

OURS = {"GOMP_SPINCOUNT": SPINS}
USERS = [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "7"}]


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process without a policy, in which torch is not imported yet."""
    for name in waiting.OWN:
        # Set first, so that what the test sets is forgotten after it.
        monkeypatch.setenv(name, "")
    monkeypatch.delitem(sys.modules, "torch")
    return monkeypatch


def test_ours_unless_the_user_has_one() -> None:
    assert wait_policy({"HOME": "/"}) == wait_policy({"OMP_WAIT_POLICY": ""}) == OURS
    for users in USERS:
        assert wait_policy({"HOME": "/"} | users) == users


def test_it_is_set_before_torch_and_not_after(unset: pytest.MonkeyPatch) -> None:
    with unset.context() as loaded:
        loaded.setitem(sys.modules, "torch", torch)
        set_wait_policy()
        assert described_policy(os.environ) == "default"
    set_wait_policy()
    assert described_policy(os.environ) == f"GOMP_SPINCOUNT={SPINS}"


@pytest.mark.parametrize("users", USERS, ids=str)
def test_the_users_own_stays(users: dict[str, str], unset: pytest.MonkeyPatch) -> None:
    for name, value in users.items():
        unset.setenv(name, value)
    set_wait_policy()
    assert {name: os.environ[name] for name in waiting.OWN if os.environ[name]} == users


def test_a_command_sets_it_first(unset: pytest.MonkeyPatch) -> None:
    unset.setattr("harness.cli.main.main", lambda: 7 if os.environ["GOMP_SPINCOUNT"] == SPINS else 1)
    assert command.main() == 7


def test_what_starts_a_process_of_ours_loads_no_torch_before_it() -> None:
    assert loaded_by(["harness.__main__", "harness.process.waiting"], "torch") == []
    known = sources(ROOT)
    starting = [name for name, path in known.items() if '__name__ == "__main__"' in path.read_text()]
    for name in starting:
        lines = {each.module: each.line for each in imports_of(name, known[name], known)}
        first_of_torch = min(
            (lines[each] for each in lines if each.partition(".")[0] in ("torch", "backbones")), default=0
        )
        if first_of_torch:
            called = known[name].read_text().split("\n").index("    set_wait_policy()  # before torch")
            assert called < first_of_torch, name
    assert {"harness.__main__", "harness.cli.overhead"} <= set(starting)


def test_a_record_names_the_one_that_held(unset: pytest.MonkeyPatch) -> None:
    held = environment.environment("cpu")["wait_policy"]
    # libgomp has read its variables long ago.
    unset.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert environment.environment("cpu")["wait_policy"] == held != "OMP_WAIT_POLICY=ACTIVE"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, OURS),
        (OURS, OURS),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        # The submitting process has set ours, and the cluster's setup another.
        (OURS | {"OMP_WAIT_POLICY": "PASSIVE"}, {"OMP_WAIT_POLICY": "PASSIVE"}),
        ({"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "7"}),
    ],
    ids=str,
)
def test_a_batch_script_sets_the_same(before: dict[str, str], after: dict[str, str], tmp_path: Path) -> None:
    shown = subprocess.run(
        ["bash", "-euc", f"{IN_SHELL}; env"],
        env=before | {"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    values = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    assert {name: values[name] for name in waiting.OWN if name in values} == after
