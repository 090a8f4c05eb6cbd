"""States, reasons and exit codes in words."""

import os
from dataclasses import replace
from datetime import datetime

import pytest

from slurm.queue import JobInfo
from slurm.reasons import ENDS, HELD, HELD_STATES, RUNS, STUCK, WAITS, describe, is_held


def job(state: str, reason: str = "None", exit_code: str | None = None, restarts: int = 0) -> JobInfo:
    start = datetime(2026, 11, 24, 23, 15).astimezone()
    return JobInfo("7_1", "cells", 1, state, reason, "n1", 60, 240, start, restarts, exit_code, "low")


@pytest.mark.parametrize("reason", WAITS)
def test_a_reason_that_clears_by_itself(reason):
    assert describe(job("PENDING", reason)).startswith("waits")


@pytest.mark.parametrize("reason", STUCK)
def test_a_reason_that_does_not_clear_says_what_to_do(reason):
    said = describe(job("PENDING", reason))
    assert any(deed in said for deed in ("cancel it", "scontrol release 7_1"))
    assert said.startswith(("never starts", "held"))


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("QOSMaxWallDurationPerJobLimit", "more or less than a job may"),
        ("AssocMaxNodePerJobLimit", "more or less than a job may"),
        ("AssocMaxCpuMinutesPerJobLimit", "more or less than a job may"),
        ("QOSMaxGRESPerNode", "more or less than a job may"),
        ("MaxMemPerLimit", "never starts, as it asks for more memory than a job in partition low may have"),
        ("MaxMemoryPerJob", "more or less than a job may"),
        ("QOSMinGRES", "more or less than a job may"),
        ("QOSTimeLimit", "more or less than a job may"),
        ("AssocGrpCPUMinutesLimit", "budget"),
        ("AssocGrpBillingMinutes", "budget"),
        ("QOSGrpWallLimit", "budget"),
        ("AssocGrpCPURunMinutesLimit", "waits for other jobs"),
        ("AssocGrpGRES", "waits for other jobs"),
        ("QOSMaxJobsPerUserLimit", "waits for other jobs"),
        ("QOSMaxGRESPerUser", "waits for other jobs"),
        ("AssocMaxJobsLimit", "waits for other jobs"),
        ("AssociationJobLimit", "waits for other jobs"),
        ("PartitionTimeLimit", "partition low allows less time"),
        ("MaxGRESRunMinsPerUser", "waits for other jobs"),
        ("AccountingPolicy", "waits for other jobs"),
        ("JobArrayTaskLimit,JobHeldUser", "other tasks of its array"),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-2]", "down, drained"),
        ("ReqNodeNotAvail, Reserved for maintenance", "maintenance"),
        ("launch_failed_requeued_held", "could not start it"),
        ("SomethingNew", "waits: SomethingNew"),
    ],
)
def test_other_reasons_of_a_pending_job(reason, said):
    assert said in describe(job("PENDING", reason))


def test_a_job_that_was_queued_again_says_until_when_it_waits():
    assert describe(job("PENDING", "BeginTime", restarts=2)) == "requeued, and waits until 24 Nov 23:15"
    assert describe(job("PENDING", "BeginTime")) == "waits until 24 Nov 23:15"


@pytest.mark.parametrize(
    "reason", [*HELD, "prolog failed requeued held", "launch failure limit exceeded requeued held"]
)
def test_what_slurm_holds_of_itself_can_be_let_go(reason):
    for each in (job("PENDING", reason), job("PENDING", reason.replace(" ", "_"))):
        assert is_held(each)
        assert "held by Slurm" in describe(each)
    assert not is_held(job("RUNNING", reason))


def test_why_slurm_holds_it_is_said_in_its_words_if_we_have_none():
    assert describe(job("PENDING", "prolog_failed_requeued_held")) == "held by Slurm: prolog failed"


ALL_REASONS = [
    "None",
    "Prolog",
    "Priority",
    "Dependency",
    "Resources",
    "PartitionNodeLimit",
    "PartitionTimeLimit",
    "PartitionDown",
    "PartitionInactive",
    "JobHeldAdmin",
    "JobHeldUser",
    "BeginTime",
    "Licenses",
    "AssociationJobLimit",
    "AssociationResourceLimit",
    "AssociationTimeLimit",
    "Reservation",
    "ReqNodeNotAvail",
    "FrontEndDown",
    "SchedDefer",
    "NodeDown",
    "BadConstraints",
    "InvalidAccount",
    "InvalidQOS",
    "QOSUsageThreshold",
    "QOSJobLimit",
    "QOSResourceLimit",
    "QOSTimeLimit",
    "Cleaning",
    "QOSNotAllowed",
    "AccountNotAllowed",
    "DependencyNeverSatisfied",
    "JobHoldMaxRequeue",
    "JobArrayTaskLimit",
    "BurstBufferResources",
    "BurstBufferStageIn",
    "BurstBufferOperation",
    "PowerNotAvail",
    "PowerReserved",
    "PartitionConfig",
    "AccountingPolicy",
    "FedJobLock",
    "MaxMemPerLimit",
    "ReservationDeleted",
    "ReservationInvalid",
    "Constraints",
    "MaxPoweredUpNodes",
    "MpiPortsBusy",
    "QOSGrpCpuLimit",
    "QOSGrpSubmitJobsLimit",
    "QOSMinCpuNotSatisfied",
    "AssocMaxSubmitJobLimit",
    "AssocGrpUnknownRunMinutes",
    "QOSMaxBBPerUser",
    "QOSMinBilling",
    "MaxBBPerAccount",
    "MaxSubmitJobsPerAccount",
    "MaxCpuRunMinsPerUser",
    "MaxGRESRunMinsPerAccount",
]
"""For which Slurm 20.11 to 24.05 lets a job wait; of the limits, a few of each kind."""


@pytest.mark.parametrize("reason", ALL_REASONS)
def test_every_reason_of_slurms_has_a_sentence(reason):
    said = describe(job("PENDING", reason))
    assert not said.startswith("waits: ")


@pytest.mark.parametrize("reason", [*STUCK, *WAITS, "BeginTime"])
def test_what_others_hold_or_what_waits_is_not_held_by_slurm(reason):
    assert not is_held(job("PENDING", reason))


@pytest.mark.parametrize("state", HELD_STATES)
def test_held_states_are_held_whatever_the_reason(state):
    assert is_held(job(state))
    assert describe(job(state)) == "requeued, but held by Slurm"
    assert "could not start it" in describe(job(state, "launch failed requeued held"))


@pytest.mark.parametrize("state", [*RUNS, *ENDS, "FAILED", "CANCELLED"])
def test_what_does_not_wait_is_told_by_its_state(state):
    said = describe(job(state, "PartitionConfig"))
    assert said != state
    assert "never starts" not in said


@pytest.mark.parametrize(
    ("exit_code", "said"),
    [
        ("1:0", "exit code 1: its log"),
        ("0:53", "file system that all nodes share"),
        ("0:9", "memory"),
        ("9:0", "memory"),
        ("137:0", "memory"),
        ("0:12", "warning signal"),
        ("12:0", "warning signal"),
        ("140:0", "warning signal"),
        ("0:11", "SIGSEGV"),
        ("143:0", "SIGTERM"),
        ("255:0", "exit code 255"),
        (None, "its log says why"),
    ],
)
def test_a_failure_by_its_exit_code(exit_code, said):
    assert said in describe(job("FAILED", "NonZeroExitCode", exit_code))


@pytest.mark.parametrize(
    ("recorded", "said"),
    [
        ("15:0", "was ended by SIGTERM (15:0)"),
        ("9:0", "memory"),
        ("12:0", "warning signal"),
        ("11:0", "SIGSEGV"),
        ("6:0", "SIGABRT"),
        ("1:0", "exit code 1:"),
        ("2:0", "exit code 2:"),
        ("3:0", "exit code 3:"),
        ("127:0", "exit code 127 or 255"),
        ("0:15", "SIGTERM"),
    ],
)
def test_what_sacct_alone_knows_may_be_a_signal(recorded, said):
    """It takes 128 off the exit code of a shell whose last command was ended by a signal; squeue does not."""
    assert said in describe(replace(job("FAILED", "", recorded), restarts=None))
    if recorded in ("15:0", "127:0"):
        assert f"exit code {recorded.partition(':')[0]}:" in describe(job("FAILED", "NonZeroExitCode", recorded))


def test_a_job_that_fits_no_node_is_not_told_to_read_its_log():
    assert "no node has what it asks for" in describe(job("FAILED", "BadConstraints", "1:0"))


def test_who_cancelled_is_told_where_known():
    assert describe(job("CANCELLED")) == "cancelled"
    assert describe(job("CANCELLED", f"by {os.getuid()}")) == "cancelled by you"
    assert describe(job("CANCELLED", "by 4123456789")) == "cancelled by user 4123456789"


def test_an_unknown_state_is_shown_as_it_is():
    assert describe(job("LAUNCH_FAILED")) == "LAUNCH_FAILED"
