"""The kernel's counters: they grow by what happens, and what a system does not say is None."""

import os
import time
from dataclasses import astuple
from pathlib import Path

import pytest

from harness.process import usage as module
from harness.process.run_queue import run_queue
from harness.process.usage import Usage, usage
from tests.harness.neighbours import neighbours


def spin(seconds: float) -> None:
    """Use so much CPU time, however long it takes."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_work_counts_as_ours_and_sleep_as_nothing() -> None:
    before = usage()
    spin(0.1)
    worked = usage() - before
    assert 0.1 <= worked.cpu <= worked.wall
    assert worked.cores == pytest.approx(worked.wall * len(os.sched_getaffinity(0)))
    before = usage()
    time.sleep(0.1)
    slept = usage() - before
    assert slept.cpu < 0.05 < 0.1 <= slept.wall


@pytest.mark.skipif(run_queue() is None, reason="this kernel does not say how long threads wait for a core")
def test_who_shares_a_core_waits_for_it() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        # Others inherit it. Whatever else runs here, they and this process share that core.
        os.sched_setaffinity(0, {min(allowed)})
        with neighbours(2):
            before = usage()
            spin(0.1)
            spent = usage() - before
    finally:
        os.sched_setaffinity(0, allowed)
    assert spent.waited is not None
    assert spent.others is not None
    assert spent.waited > 0.05
    assert spent.others > 0.05
    assert spent.switches > 0


def test_differences_and_sums_keep_what_is_not_known() -> None:
    one, two = Usage(1, 2, 3, 4, None, 6, None, 8, 1.5), Usage(2, 4, 6, None, None, 6.5, 1, 10, 2)
    assert astuple(two - one) == (1, 2, 3, None, None, 0.5, None, 2, 0.5)
    assert astuple(two + one) == (3, 6, 9, None, None, 12.5, None, 18, 3.5)


def test_a_system_that_says_nothing_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> str:
        raise FileNotFoundError

    module._quota_files.cache_clear()
    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(os, "listdir", missing)
    found = usage()
    module._quota_files.cache_clear()
    assert (found.waited, found.others, found.stolen, found.throttled) == (None,) * 4
    assert found.cpu > 0


@pytest.mark.parametrize(
    ("mounted", "groups", "seconds"),
    [
        (
            {"a/b/cpu.stat": "usage_usec 9\nthrottled_usec 250000\n", "a/cpu.stat": "throttled_usec 500000\n"},
            "0::/a/b",
            0.75,
        ),
        (
            {"cpu/cpu.stat": "nr_throttled 3\nthrottled_time 2000000000\n"},
            "4:cpu,cpuacct:/of/the/host\n5:memory:/m",
            2.0,
        ),
        ({"cpu.stat": "usage_usec 9\n"}, "0::/", None),
        ({}, "0::/a", None),
    ],
    ids=["version 2, two levels", "version 1 in a container", "without a quota", "not mounted"],
)
def test_quotas_of_all_control_groups_above(
    mounted: dict[str, str], groups: str, seconds: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in mounted.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(text)
    (tmp_path / "self").write_text(groups)
    places = {"/sys/fs/cgroup": tmp_path / "cgroup", "/proc/self/cgroup": tmp_path / "self"}
    monkeypatch.setattr(module, "Path", lambda name: places[name])
    module._quota_files.cache_clear()
    found = module._throttled()
    module._quota_files.cache_clear()
    assert found == seconds
