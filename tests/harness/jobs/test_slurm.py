"""Sweeps on a real Slurm: whatever the cluster does meanwhile, they end with the records of an undisturbed one."""

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from harness.cells import Cell
from harness.jobs import launch
from harness.jobs.resubmit import release_held
from harness.jobs.states import CellState, look_at
from harness.jobs.submissions import read_all
from slurm import Cluster, Unconfirmed, cancel, submission
from tests.harness import submitted
from tests.harness.image_sets import coloured
from tests.harness.on_slurm import Place
from tests.harness.training.test_resume import digest, metrics
from tests.nightly import CELLS, LONG, NIGHTLY, PACK, SUBSETS, TRIES
from tests.slurm.cluster import DAEMONS_PATH, NODES, UnreliableSbatch, fail_node, run, wait_for

SEED = int(os.environ.get("SEED", "0"))
"""Of what is drawn at random here."""


def test_a_thousand_cells_are_submitted_in_seconds_and_once(slurm: None, place: Place) -> None:
    # Jobs that start would take the processor from those that submit.
    run("sbatch", "-p", "low", "-N4", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1000")
    first, took = place.shell("submit sweeps.py:thousand --cluster low")
    assert first.status == 0, first.err
    # Beside other tests the clock says what these take as well.
    assert (took.seconds if NIGHTLY else took.worked) < 15
    assert "submitted 1,000 cells in 10 jobs to low" in first.out
    assert "1,000 cells, 0 to submit" in place.ask("submit sweeps.py:thousand --cluster low").out
    assert run("squeue", "-h", "-r", "-t", "pending", "-o", "%i").count("\n") == 9
    assert "cancelled: 10 jobs" in place.ask("cancel sweeps.py:thousand").out
    assert run("squeue", "-h", "-t", "pending") == ""


def test_many_cells_while_nodes_go_down_and_jobs_are_cancelled_and_retried(slurm: None, place: Place) -> None:
    """Each job goes on to a tenth of its cells, two tenths, four tenths, and no further before all are cancelled."""
    jobs, tenth = CELLS // PACK, PACK // 10
    failing = [tenth, 2 * PACK + tenth]
    place.set(seconds="0", gate=str(tenth), fail=" ".join(map(str, failing)))
    first = place.ask("submit sweeps.py:many --cluster many")
    assert first.status == 0, first.err
    assert f"submitted {CELLS:,} cells in {jobs} jobs to many" in first.out
    again = place.ask("submit sweeps.py:many --cluster many")
    assert f"{CELLS:,} cells, 0 to submit" in again.out
    letting_go(place, lambda: len(place.records()) > 0.02 * CELLS)
    fail_node(NODES[0])
    place.set(gate=str(2 * tenth))
    letting_go(place, lambda: len(place.records()) > 0.15 * CELLS)
    fail_node(NODES[1])
    fail_node(NODES[2])
    place.set(gate=str(4 * tenth))
    letting_go(place, lambda: len(place.records()) > 0.30 * CELLS)
    cancelled = place.ask("cancel sweeps.py:many")
    assert cancelled.status == 0, cancelled.err
    wait_for(lambda: run("squeue", "-h") == "")
    standing = place.states()
    assert {state.state for state in standing.values()} <= {"done", "failed", "cancelled", "dropped"}
    place.set(fail="")
    (place.folder / "gate").unlink()
    left = CELLS - len(place.records())
    resumed = place.ask("resume sweeps.py:many")
    assert f"submitted {left:,} cells" in resumed.out
    assert "nothing to submit" in place.ask("resume").out
    if any(record.status == "failed" for record in place.records()):
        assert "submitted" in place.ask("retry --failed").out
    letting_go(place, lambda: run("squeue", "-h") == "")
    place.ask("retry --failed")
    letting_go(place, lambda: run("squeue", "-h") == "")
    found = place.records()
    assert sorted(record.metrics["params_m"] for record in found) == list(range(CELLS)), place.logs()[-3000:]
    assert {record.status for record in found} == {"done"}
    assert "0 to submit" in place.ask("submit sweeps.py:many --cluster many").out
    # A cell that was under way when its job was ended, or that failed, ran again; no other did.
    runs = Counter(place.lines("runs_of"))
    assert len(runs) == CELLS
    twice = sum(runs.values()) - CELLS
    assert twice <= jobs * 5 + len(failing)


def letting_go(place: Place, condition: Callable[[], bool]) -> None:
    """Waits, as a user who looks now and then, and lets go what Slurm holds: a node in trouble may not start a job."""

    def met() -> bool:
        if "held" in run("squeue", "-h", "-t", "pending", "-o", "%r"):
            place.ask("resume")
        return condition()

    wait_for(met)


def test_what_slurm_holds_after_queueing_it_again_is_let_go(slurm: None, place: Place) -> None:
    """As it does where a node that is in trouble cannot start a job."""
    place.set(seconds="1")
    assert place.ask("submit sweeps.py:ten --cluster low").status == 0
    wait_for(lambda: len(place.records()) >= 1)
    job = run("squeue", "-h", "-o", "%i")
    run("scontrol", "requeuehold", job)
    wait_for(lambda: run("squeue", "-h", "-t", "R,CG") == "")
    left = 10 - len(place.records())
    waiting = [state for state in place.states().values() if state.state == "pending"]
    assert len(waiting) == left > 0
    assert {state.held for state in waiting} == {True}
    assert "attention-bench resume releases it" in waiting[0].detail
    assert "nothing to submit" in place.ask("retry --failed").out
    place.set(seconds="0")
    assert place.ask("resume").out == "released 1 held job\n"
    wait_for(lambda: len(place.records()) == 10)
    assert len(set(place.lines("runs_of"))) == 10


def test_a_training_on_two_nodes_is_preempted_loses_a_node_and_meets_its_time_limit(
    slurm: None, place: Place, tmp_path: Path
) -> None:
    """Its weights, and the course of its metrics, are to the bit those of a run that nothing disturbed.

    The time limit is met at night: Slurm looks at limits twice a minute.
    """
    coloured(tmp_path / "images")
    (tmp_path / "slow").touch()
    whole = place.ask("submit sweeps.py:training --cluster two --out whole")
    assert whole.status == 0, whole.err
    assert "submitted 1 cell in 1 job to two" in whole.out
    undisturbed = replace(place, out=tmp_path / "whole")
    wait_for(undisturbed.records)
    (expected,) = undisturbed.records()
    assert expected.status == "done", expected.error
    assert expected.metrics["ranks"] == 2
    (tmp_path / "updates").unlink()

    place.set(seconds="0.6")
    assert place.ask("submit sweeps.py:training --cluster two").status == 0
    wait_for(lambda: len(place.lines("updates")) >= 6)
    job = run("squeue", "-h", "-o", "%i")
    assert len(nodes_of(job)) == 2

    high = run(
        "sbatch", "--parsable", "-p", "high", "-c4", "-w", nodes_of(job)[1], "-o", "/dev/null", "--wrap", "sleep 1"
    )
    wait_for(lambda: run("squeue", "-h", "-t", "all", "-j", high, "-o", "%T") == "COMPLETED")
    restarted(job, 1)
    seen = len(place.lines("updates"))
    wait_for(lambda: len(place.lines("updates")) >= seen + 6)

    fail_node(nodes_of(job)[1])
    restarted(job, 2)
    seen = len(place.lines("updates"))
    wait_for(lambda: len(place.lines("updates")) >= seen + 2)

    if NIGHTLY:
        place.set(seconds="4")
        run("scontrol", "update", f"jobid={job}", "timelimit=1")
        restarted(job, 3)
        run("scontrol", "update", f"jobid={job}", "timelimit=60")
    place.set(seconds="0")
    wait_for(place.records)
    (record,) = place.records()
    assert record.status == "done", record.error
    key = record.key
    assert digest(place.out / key) == digest(undisturbed.out / key)
    assert metrics(place.out / key) == metrics(undisturbed.out / key)
    (state,) = place.states().values()
    assert state.state == "done"
    interrupted = 3 if NIGHTLY else 2  # by a warning of preemption, without a warning, by one of the limit
    assert state.attempts == interrupted + 1
    assert state.interrupted == interrupted
    log = place.logs()
    assert "stopped on SIGUSR2 after" in log
    assert log.count("resumed after") == interrupted


def nodes_of(job: str) -> list[str]:
    return run("scontrol", "show", "hostnames", run("squeue", "-h", "-j", job, "-o", "%N")).split()


def restarted(job: str, times: int) -> None:
    wait_for(lambda: run("squeue", "-h", "-t", "all", "-j", job, "-O", "restartcnt") == str(times))


def test_a_submitting_shell_that_is_killed_loses_nothing_and_doubles_nothing(slurm: None, place: Place) -> None:
    """Between sbatch and writing the id down: squeue still knows the job by its name."""
    place.set(seconds="5")
    assert place.ask("submit sweeps.py:ten --cluster low").status == 0
    (path,) = place.out.glob("submissions/*/submission.json")
    text = path.read_text()
    job = run("squeue", "-h", "-o", "%i").split()[0]
    path.write_text(text.replace(f'"id": "{job}"', '"id": null'))
    assert path.read_text() != text
    assert "10 cells, 0 to submit" in place.ask("submit sweeps.py:ten --cluster low").out
    assert "cancelled: 1 job" in place.ask("cancel").out
    wait_for(lambda: run("squeue", "-h") == "")
    place.set(seconds="0")
    assert "submitted" in place.ask("resume").out
    wait_for(lambda: len(place.records()) == 10)


def test_of_an_array_any_of_whose_tasks_were_cancelled_the_others_wait(slurm: None, tmp_path: Path) -> None:
    """squeue merges waiting tasks, writes 0-398:2 and cuts long lists: no cell may be taken for gone by that."""
    tasks = range(400)
    random = Random(SEED)
    shares = [random.random() for _ in range(SUBSETS - 1)]
    left = [set(tasks[::2]), *({task for task in tasks if random.random() < share} for share in shares)]
    for number, waiting in enumerate(left):
        cells = {f"{task}": f"cell {task}" for task in tasks}
        jobs = [{key: label} for key, label in cells.items()]
        submission = submitted.submit(tmp_path, "s", jobs, created=submitted.NOON + number, id=None)
        (array,) = submission.arrays
        options = ["--parsable", "-H", f"--job-name={array.name}", "-o", "/dev/null"]
        id = run("sbatch", *options, "--array=0-399", "--wrap", "true")
        cancel(f"{id}_{task}" for task in tasks if task not in waiting)
        found = look_at(tmp_path, cells, [submission]).cells
        assert {int(state.key) for state in found if state.state == "pending"} == waiting
        assert {state.job for state in found if state.live} == {f"{id}_{task}" for task in waiting}
        assert {state.state for state in found if not state.live} <= {"dropped", "cancelled"}
        cancel([id])


def test_a_task_that_slurm_holds_is_told_from_those_that_wait(slurm: None, tmp_path: Path) -> None:
    """squeue without -r shows all that wait as one, with another reason."""
    submission = submitted.submit(tmp_path, "held", [{f"{task}": f"cell {task}"} for task in range(6)], id=None)
    (array,) = submission.arrays
    options = ["--parsable", f"--job-name={array.name}", "-o", "/dev/null", "--array=0-5%1"]
    id = run("sbatch", *options, "--wrap", "sleep 100")

    def states() -> dict[str, CellState]:
        return {state.key: state for state in look_at(tmp_path, submission.cells, [submission]).cells}

    wait_for(lambda: run("squeue", "-h", "-t", "R") != "")
    run("scontrol", "requeuehold", f"{id}_0")
    wait_for(lambda: states()["0"].held)
    run("scontrol", "hold", f"{id}_3")
    assert {key for key, state in states().items() if state.held} == {"0"}
    assert {state.state for key, state in states().items() if key != "1"} == {"pending"}
    assert release_held(states().values()) == [f"{id}_0"]
    assert not any(state.held for state in states().values())
    assert states()["3"].detail.startswith("held by"), "by its user"


def test_an_sbatch_that_loses_the_answer_loses_and_doubles_nothing(
    slurm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counting: Callable[..., Cell]
) -> None:
    """Two shells submit the same cells at a time, again and again, in arrays of which any may be queued or not."""
    sbatch = UnreliableSbatch(tmp_path / "bin", monkeypatch, "--hold")
    monkeypatch.setattr(submission, "PATIENCE", 3.0)
    monkeypatch.setattr(launch, "_code", lambda out: (tmp_path, (), ()))
    cluster = Cluster("low", partition="low", cpus_per_task=1, minutes=60, pack=1, max_array_size=2)
    cells = [counting("linear", str(number)) for number in range(3)]
    random = Random(SEED)
    for number in range(TRIES):
        out = tmp_path / f"{number}"

        def submit(out: Path = out) -> bool:
            """Whether there is nothing left to submit."""
            with suppress(Unconfirmed):
                return not launch.submit_alone(cells, cluster, out, "s", lambda line: None)[0].cells
            return False

        sbatch.tell(*random.choices(UnreliableSbatch.KINDS, k=4))
        with ThreadPoolExecutor(2) as shells:
            while not all(shells.map(lambda _: submit(), range(2))):
                pass
        keys = {(array.name, index): keys for each in read_all(out)[0] for array, index, keys in each.jobs()}
        rows = [row.split("|") for row in run("squeue", "-h", "-r", "-O", "JobArrayID:|,Name:|").splitlines()]
        jobs = [(name, int(id.partition("_")[2] or 0)) for id, name, _ in rows]
        assert Counter(key for job in jobs for key in keys[job]) == {cell.key: 1 for cell in cells}
        run("scancel", "--me")
        wait_for(lambda: run("squeue", "-h") == "")


def test_a_controller_that_restarts_disturbs_nothing(slurm: None, slurm_conf: Path, place: Place) -> None:
    place.set(seconds="3")  # a job that ends meanwhile is cleaned up a minute later
    assert place.ask("submit sweeps.py:ten --cluster low").status == 0
    wait_for(lambda: len(place.records()) >= 1)
    pid = int((slurm_conf.parent / "run" / "slurmctld.pid").read_text())
    subprocess.run(["kill", f"-{signal.SIGTERM}", str(pid)], check=True)
    wait_for(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes())
    refused = place.ask("submit sweeps.py:thousand --cluster low")
    assert refused.status == 2
    assert refused.err.count("\n") == 1
    assert "Slurm" in refused.err or "slurm" in refused.err
    subprocess.run(["slurmctld", "-f", str(slurm_conf)], check=True, env=os.environ | {"PATH": DAEMONS_PATH})
    wait_for(lambda: subprocess.run(["scontrol", "ping"], capture_output=True, check=False).returncode == 0)
    place.set(seconds="0")
    wait_for(lambda: len(place.records()) == 10)
    assert "0 to submit" in place.ask("submit sweeps.py:ten --cluster low").out


def test_a_copy_on_a_lost_node_notices_the_newer_one_and_stops(slurm: None, slurm_conf: Path, place: Place) -> None:
    """A dead slurmd, as a network that is cut: Slurm queues the job again while its processes live on."""
    coloured(place.folder / "images")
    place.set(slow="", seconds="0.5")
    assert place.ask("submit sweeps.py:training --cluster alone").status == 0
    wait_for(lambda: len(place.lines("updates")) >= 3)
    node = run("squeue", "-h", "-o", "%N")
    daemon = slurm_conf.parent / "run" / f"slurmd.{node}.pid"
    os.kill(int(daemon.read_text()), signal.SIGKILL)
    place.set(seconds="5")  # so that it is still at work when Slurm gives its node up
    try:
        wait_for(lambda: len(place.attempts()) == 2)
        older, newer = place.attempts()
        assert older.ended is None, "the older copy was still at work when the newer one began"
        wait_for(lambda: place.attempts()[0].ended is not None)
        assert "at this cell has taken over; this one has stopped" in str(place.attempts()[0].ended)
        assert f"job {newer.job}, process {newer.pid} on {newer.host}" in str(place.attempts()[0].ended)
        place.set(seconds="0")
        wait_for(place.records)
    finally:
        path = {"PATH": DAEMONS_PATH, "SLURM_CONF": str(slurm_conf)}
        subprocess.run(["slurmd", "-N", node, "-f", str(slurm_conf)], check=True, env=os.environ | path)
    (record,) = place.records()
    assert record.status == "done", record.error
    assert len(place.attempts()) == 2


def test_what_is_killed_for_its_memory_runs_again_and_what_kills_itself_fails_alone(slurm: None, place: Place) -> None:
    place.set(eat="3", die="6")
    assert place.ask("submit sweeps.py:ten --cluster low").status == 0
    wait_for(lambda: len(place.records()) == 10)
    status = {record.metrics.get("params_m", 6.0): record.status for record in place.records()}
    assert status == {float(number): "failed" if number == 6 else "done" for number in range(10)}
    (failed,) = (record for record in place.records() if record.status == "failed")
    assert "ended 3 times without progress, the last time killed, often for memory" in str(failed.error)
    runs = Counter(place.lines("runs_of"))
    assert {number: count for number, count in runs.items() if count > 1} == {"3": 2, "6": 3}
    shown = place.ask("status sweeps.py:ten")
    assert "10 cells: 9 done, 1 failed" in shown.out


def test_what_needs_a_training_waits_for_it(slurm: None, place: Place) -> None:
    coloured(place.folder / "images")
    submitted = place.ask("submit sweeps.py:trained_and_evaluated --cluster alone")
    assert "submitted 3 cells in 2 jobs" in submitted.out, submitted.err
    wait_for(lambda: len(place.records()) == 3)
    found = {
        (record.cell["task"]["name"], record.cell["task"].get("weights", {}).get("ema")): record
        for record in place.records()
        if record.cell["task"]["name"] == "evaluate"
    }
    (trained,) = (record for record in place.records() if record.cell["task"]["name"] == "train")
    assert {record.status for record in place.records()} == {"done"}
    assert found["evaluate", False].metrics["top1"] == trained.metrics["top1"]
    assert found["evaluate", True].metrics["top1"] == trained.metrics["top1_ema"]


@LONG
def test_what_needs_a_training_that_fails_fails_with_it(slurm: None, place: Place) -> None:
    """Without a cluster: tests/harness/jobs/test_work.py."""
    coloured(place.folder / "images")
    shutil.rmtree(place.folder / "images" / "val" / "red")
    broken = place.ask("submit sweeps.py:trained_and_evaluated --cluster alone --out broken")
    assert broken.status == 0, broken.err
    place.out = place.folder / "broken"
    wait_for(lambda: len(place.records()) == 3)
    assert {record.status for record in place.records()} == {"failed"}
    errors = [str(record.error) for record in place.records() if record.cell["task"]["name"] == "evaluate"]
    assert all("failed" in error and "train" in error for error in errors)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("submit sweeps.py:ten --cluster nowhere", "nowhere"),
        ("submit sweeps.py:ten --cluster long --dry-run", "minutes=600, but partition low allows 120"),
        ("submit --backbone deit_micro --task train --device cuda --cluster huge", "8 GPUs"),
        (
            "submit --backbone deit_micro --task train --device cuda --cluster low",
            "needs a GPU, and cluster low has none",
        ),
    ],
    ids=["partition", "minutes", "gpus", "no-gpus"],
)
def test_what_could_never_run_is_refused_at_once(slurm: None, place: Place, line: str, said: str) -> None:
    answer = place.ask(line)
    assert answer.status == 2
    assert answer.err.count("\n") == 1
    assert said in answer.err
    assert run("squeue", "-h") == ""


def test_a_cluster_without_accounting(unaccounted: None, place: Place) -> None:
    """squeue alone tells what waits, runs and has ended; what it has forgotten counts as dropped."""
    place.set(seconds="1")
    assert place.ask("submit sweeps.py:ten --cluster low").status == 0
    wait_for(lambda: len(place.records()) >= 1)
    place.set(seconds="60")  # on a slow machine the last ones must not be done before they are cancelled
    assert "0 to submit" in place.ask("submit sweeps.py:ten --cluster low").out
    run("scancel", "--me")
    place.set(seconds="0")
    wait_for(lambda: run("squeue", "-h") == "")
    shown = place.ask("status")
    assert shown.status == 0
    assert "cancelled" in shown.out
    assert "submitted" in place.ask("resume").out
    wait_for(lambda: len(place.records()) == 10)
    watched = place.ask("status --watch --every 1")
    assert watched.status == 0
    assert "10 cells: 10 done" in watched.out


def test_without_slurm_the_folders_still_tell(slurm: None, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.set(seconds="3")
    assert place.ask("submit sweeps.py:ten --cluster low").status == 0
    wait_for(lambda: len(place.records()) >= 1)
    conf = place.folder / "nobody.conf"
    text = Path(os.environ["SLURM_CONF"]).read_text()
    conf.write_text(re.sub(r"^SlurmctldPort=.*$", "SlurmctldPort=9", text, flags=re.MULTILINE))
    with monkeypatch.context() as away:
        away.setenv("SLURM_CONF", str(conf))
        shown = place.ask("status")
        assert shown.status == 0
        assert "Slurm does not answer" in shown.out
        assert "running" in shown.out
        refused = place.ask("submit sweeps.py:ten --cluster low")
        assert refused.status == 2
        assert refused.err.count("\n") == 1
    place.set(seconds="0")
    wait_for(lambda: len(place.records()) == 10)
