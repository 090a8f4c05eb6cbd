"""Totals: device hours, the time until the last job ends, disk, and a line that says what they rest on."""

import pytest

from harness.estimates.disk import KeptCrops
from harness.estimates.estimate import Basis, Estimate
from harness.estimates.totals import total_of_jobs


def cell(
    hours: float | None, basis: Basis = "recorded", device: str = "cuda", processes: int = 1, crops: str | None = None
) -> Estimate:
    kept = None if crops is None else KeptCrops((crops,), 7 * 10**9)
    seconds = None if hours is None else hours * 3600
    return Estimate(seconds, basis, "", 10**9, device, processes, kept)


def test_the_line_for_people():
    jobs = [[cell(3.5, processes=2)] for _ in range(44)] + [[cell(1.0, "GMACs")] for _ in range(2)]
    assert str(total_of_jobs(jobs, at_once=[4] * 46)) == (
        "about 310 GPU-hours (44 cells from recorded speeds, 2 from GMACs, rough), 1 d 16 h wall time with 4 jobs at "
        "a time, 46 GB of disk"
    )


def test_one_of_each():
    jobs = [[cell(0.5, "probe", device="cpu")]]
    assert str(total_of_jobs(jobs, at_once=[1])) == (
        "about 0.5 CPU-job-hours (1 cell from a probe), 30 min wall time with 1 job at a time, 1 GB of disk"
    )


def test_devices_are_counted_apart():
    summary = total_of_jobs([[cell(20.0), cell(0.001, "size", device="cpu")]], at_once=[1])
    assert str(summary).startswith("about 20 GPU-hours and under 0.1 CPU-job-hours (1 cell from")


def test_what_is_unknown_is_said_and_not_counted():
    summary = total_of_jobs([[cell(2.0)], [cell(None, "unknown")]], at_once=[2, 2])
    assert summary.device_hours == {"cuda": 2.0}
    assert "(1 cell from recorded speeds, 1 unknown and not counted)" in str(summary)
    assert "an unknown number of hours (1 cell unknown" in str(total_of_jobs([[cell(None, "unknown")]], at_once=[1]))


def test_no_jobs_are_nothing():
    assert str(total_of_jobs([], at_once=[])) == "nothing is left to do"


@pytest.mark.parametrize(("at_once", "hours"), [(1, 8.0), (2, 6.0), (3, 5.0), (9, 4.0)])
def test_jobs_start_in_order_as_places_become_free(at_once, hours):
    jobs = [[cell(each)] for each in (1.0, 2.0, 1.0, 4.0)]
    assert total_of_jobs(jobs, [at_once] * 4).wall_seconds == hours * 3600


def test_jobs_of_several_sizes_share_the_room():
    """Two that take half of it, four small ones that take a quarter: the last of these waits for a half."""
    jobs = [[cell(2.0)], [cell(1.0)], *([cell(1.0)] for _ in range(3))]
    summary = total_of_jobs(jobs, at_once=[2, 2, 4, 4, 4])
    assert (summary.wall_seconds, summary.at_once) == (3 * 3600, 3)


def test_what_the_number_of_jobs_rests_on_is_said():
    assert "1 h 0 min wall time with 1 job at a time (on a free day), 1 GB" in (
        str(total_of_jobs([[cell(1.0)]], at_once=[1], assumed="on a free day"))
    )


def test_cells_of_a_job_run_one_after_another():
    assert total_of_jobs([[cell(1.0), cell(2.0)], [cell(2.5)]], at_once=[2, 2]).wall_seconds == 3 * 3600


def test_crops_that_several_cells_keep_count_once():
    jobs = [[cell(1.0, crops="a")], [cell(1.0, crops="a")], [cell(1.0, crops="b")]]
    assert total_of_jobs(jobs, at_once=[1] * 3).disk_bytes == 3 * 10**9 + 2 * 7 * 10**9


@pytest.mark.parametrize(
    ("hours", "text"), [(0.001, "4 s"), (0.5, "30 min"), (1.52, "1 h 30 min"), (41.4, "1 d 17 h"), (1234.0, "50 d 0 h")]
)
def test_wall_time_is_short_to_read(hours, text):
    assert f", {text} wall time" in str(total_of_jobs([[cell(hours)]], at_once=[1]))
