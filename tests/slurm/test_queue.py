"""What Slurm tells of our jobs: waiting, running, interrupted, ended, forgotten, and when it does not answer."""

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm import queue
from slurm.commands import SlurmUnreachable, output
from slurm.queue import ENDED, JobInfo, Queue, ask, cancel, queued, recorded, release, task_indexes
from slurm.reasons import describe
from tests.slurm.cluster import NODES, fail_node, run, wait_for

A_NODE = ("-N1", "--exclusive")


def submit(name: str, *options: str, script: str = "sleep 100", log: str = "/dev/null") -> str:
    return run("sbatch", "--parsable", f"--job-name={name}", f"--output={log}", *options, "--wrap", script)


def asked_until(names: list[str], condition: Callable[[dict[str, JobInfo]], bool]) -> dict[str, JobInfo]:
    """Jobs as squeue has them, as "name" or "name_index" of an array, once the condition holds."""
    jobs: dict[str, JobInfo] = {}

    def holds() -> bool:
        jobs.clear()
        found = ask(names)
        assert found.unreachable is None
        for name, tasks in found.jobs.items():
            jobs.update({f"{name}_{index}" if "_" in job.id else name: job for index, job in tasks.items()})
        return condition(jobs)

    wait_for(holds)
    return jobs


def commands(monkeypatch: pytest.MonkeyPatch, forgetful: bool = False) -> list[str]:
    """The commands that are run from now on; squeue's answer is left out if it is to be forgetful."""
    ran = []

    def noted(*command: str) -> str:
        ran.append(command[0])
        return "" if forgetful and command[0] == "squeue" else output(*command)

    monkeypatch.setattr(queue, "output", noted)
    return ran


def test_each_reason_to_wait_is_told_and_what_is_cancelled_alone_is_absent(slurm: None) -> None:
    bad = submit("bad", script="exit 3")
    asked_until(["bad"], lambda jobs: jobs["bad"].state == "FAILED")
    array = submit("array", "--array=0-3%1", "-w", NODES[0], *A_NODE)
    asked_until(["array"], lambda jobs: jobs["array_0"].running)
    full = submit("full", "-N3", "--exclusive")
    submit("resources", *A_NODE)
    submit("priority", *A_NODE)
    submit("dependency", "-d", f"afterok:{full}")
    submit("never", "-d", f"afterok:{bad}")
    submit("held", "-H")
    submit("long", "-t", "300")
    submit("wide", "-N9")
    submit("later", "--begin=now+1hour")
    expected = {
        "array_1": "JobArrayTaskLimit",
        "resources": "Resources",
        "priority": "Priority",
        "dependency": "Dependency",
        "never": "DependencyNeverSatisfied",
        "held": "JobHeldUser",
        "long": "PartitionTimeLimit",
        "wide": "PartitionNodeLimit",
        "later": "BeginTime",
    }
    names = ["array", "full", *list(expected)[1:]]
    jobs = asked_until(names, lambda jobs: all(jobs[key].reason == reason for key, reason in expected.items()))
    assert all(jobs[key].pending and jobs[key].alive and not jobs[key].running for key in expected)

    assert jobs["later"].start is not None
    assert timedelta(minutes=50) < jobs["later"].start - datetime.now().astimezone() <= timedelta(hours=1)
    task = jobs["array_0"]
    assert (task.id, task.name, task.index, task.partition) == (f"{array}_0", "array", 0, "low")
    assert (task.running, task.nodes, task.restarts, task.exit_code) == (True, NODES[0], 0, None)
    assert task.left_s is not None
    assert task.elapsed_s + task.left_s == 300
    assert jobs["full"].id == full

    cancel([f"{array}_2", f"{array}_0", jobs["held"].id])
    jobs = asked_until(names, lambda jobs: jobs["array_1"].running)
    assert "array_2" not in jobs
    assert (jobs["array_0"].state, jobs["held"].state) == ("CANCELLED", "CANCELLED")
    cancel([job.id for job in jobs.values()])
    jobs = asked_until(names, lambda jobs: not any(job.alive for job in jobs.values()))
    cancel([job.id for job in jobs.values()] + ["999999"])


def test_what_is_interrupted_lives_on_if_slurm_queues_it_again(slurm: None) -> None:
    run("scontrol", "update", "partitionname=low", "gracetime=0")
    try:
        asked = submit("asked", "-w", NODES[0], *A_NODE)
        submit("lost", "-w", NODES[1], *A_NODE)
        submit("final", "-w", NODES[2], "--no-requeue", *A_NODE)
        submit("preempted", "-w", NODES[3], *A_NODE)
        again = ["asked", "lost", "preempted"]
        jobs = asked_until([*again, "final"], lambda jobs: all(job.running for job in jobs.values()) and len(jobs) == 4)
        assert describe(jobs["lost"]) == f"runs on {NODES[1]}"
        run("scontrol", "requeue", asked)
        fail_node(NODES[1])
        fail_node(NODES[2])
        submit("first", "-p", "high", "-w", NODES[3], *A_NODE, script="sleep 1")

        ended: set[str] = set()
        waited: set[str] = set()

        def run_again(jobs: dict[str, JobInfo]) -> bool:
            ended.update(name for name in again if not jobs[name].alive)
            told = "requeued, and waits until"
            waited.update(name for name in again if jobs[name].pending and describe(jobs[name]).startswith(told))
            return all(jobs[name].running and jobs[name].restarts == 1 for name in again)

        jobs = asked_until([*again, "final"], run_again)
        assert (ended, waited) == (set(), set(again))
        assert (jobs["final"].state, jobs["final"].alive) == ("NODE_FAIL", False)
    finally:
        run("scontrol", "update", "partitionname=low", "gracetime=10")


def test_what_ended_is_told_by_squeue_and_later_by_sacct(slurm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = {"done": "true", "three": "exit 3", "killed": "kill -9 $$", "warned": "kill -USR2 $$"}
    scripts["ended"] = "exit 143"  # as a shell does whose last command is ended by TERM
    for name, script in scripts.items():
        submit(name, script=script)
    submit("unwritten", log="/no/such/folder/log", script="true")
    array = submit("tasks", "--array=3,5-6", script="[ $SLURM_ARRAY_TASK_ID = 5 ] || sleep 100")
    submit("waiting", "--array=0-2", "-H")
    names = [*scripts, "unwritten", "tasks", "waiting"]
    asked_until(names, lambda jobs: jobs["tasks_5"].state == "COMPLETED" and jobs["tasks_6"].running)
    cancel([f"{array}_3", f"{array}_6"])
    expected = {
        "done": ("COMPLETED", "0:0", "completed"),
        "three": ("FAILED", "3:0", "exit code 3"),
        "killed": ("FAILED", "0:9", "memory"),
        "warned": ("FAILED", "0:12", "warning signal"),
        "unwritten": ("FAILED", "0:53", "all nodes share"),
        "ended": ("FAILED", "143:0", "SIGTERM"),
        "tasks_5": ("COMPLETED", "0:0", "completed"),
    }
    jobs = asked_until(names, lambda jobs: all(not job.alive for name, job in jobs.items() if "waiting" not in name))
    assert {name: (jobs[name].state, jobs[name].exit_code) for name in expected} == {
        name: (state, exit_code) for name, (state, exit_code, _) in expected.items()
    }
    assert jobs["tasks_3"].state == jobs["tasks_6"].state == "CANCELLED"
    assert all(said in describe(jobs[name]) for name, (_, _, said) in expected.items())

    known = {name: [0] for name in (*scripts, "unwritten")} | {"tasks": [3, 5, 6], "waiting": [0, 1, 2]}
    with monkeypatch.context() as patch:
        ran = commands(patch)
        assert ask(known).jobs["tasks"].keys() == {3, 5, 6}
        assert ran == ["squeue"]
        # One more that squeue does not list: it may have ended long ago.
        assert ask(known | {"tasks": [3, 4, 5, 6]}).unaccounted is None
        assert ran == ["squeue", "squeue", "squeue", "sacct"]

    # As hours later. What still waits is not told from the records: squeue would list it.
    ran = commands(monkeypatch, forgetful=True)
    found: dict[str, JobInfo] = {}

    def recorded_all() -> bool:
        answer = ask(names)
        assert answer.unreachable is answer.unaccounted is None
        found.update(
            {
                job.name if "_" not in job.id else f"{job.name}_{job.index}": job
                for tasks in answer.jobs.values()
                for job in tasks.values()
            }
        )
        return found.keys() >= {*expected, "tasks_3", "tasks_6"}

    wait_for(recorded_all)
    assert not [name for name in found if name.startswith("waiting")]
    assert {name: (found[name].state, found[name].exit_code) for name in expected} == {
        name: (state, "15:0" if name == "ended" else exit_code) for name, (state, exit_code, _) in expected.items()
    }
    assert all(said in describe(found[name]) for name, (_, _, said) in expected.items())
    assert describe(found["tasks_3"]) == "cancelled by you"
    same = {name: (job.id, job.nodes, job.partition, job.start) for name, job in jobs.items() if name in found}
    assert same == {name: (job.id, job.nodes, job.partition, job.start) for name, job in found.items()}
    assert ran == ["squeue", "squeue", "sacct"] * (len(ran) // 3)


def test_without_accounting_squeue_is_enough_and_sacct_is_left_alone(
    unaccounted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit("brief", script="exit 4")
    wait_for(lambda: not ask({"brief": [0]}).jobs["brief"][0].alive)
    ran = commands(monkeypatch)
    for _ in range(2):
        found = ask(["brief", "forgotten"])
        assert found.jobs["brief"][0].exit_code == "4:0"
        assert found.jobs.keys() == {"brief"}
        assert found.unaccounted == "sacct: Slurm accounting storage is disabled"
    assert ran == ["squeue", "squeue", "sacct", "squeue", "squeue"]


def test_a_controller_that_is_down_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slurm: None) -> None:
    conf = Path(os.environ["SLURM_CONF"]).read_text()
    lines = [line for line in conf.splitlines() if not line.startswith("SlurmctldPort=")]
    # Nobody listens there. A short time-out, as Slurm tries for as long.
    (tmp_path / "slurm.conf").write_text("\n".join([*lines, "SlurmctldPort=1", "MessageTimeout=1", ""]))
    with monkeypatch.context() as patch:
        patch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
        assert ask(["cells"]) == Queue(unreachable="squeue: Unable to contact slurm controller (connect failure)")
        with pytest.raises(SlurmUnreachable, match="Unable to contact slurm controller"):
            cancel(["1"])


def test_no_slurm_on_the_machine_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = ask(["cells"])
    assert found.jobs == {}
    assert found.unreachable is not None
    assert found.unreachable.startswith("no squeue on the PATH")
    with pytest.raises(SlurmUnreachable, match="no scancel"):
        cancel(["1"])


def test_nothing_is_asked_about_no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = commands(monkeypatch)
    assert ask([]) == Queue()
    cancel([])
    assert ran == []


def fake(monkeypatch: pytest.MonkeyPatch, **answers: str | SlurmUnreachable) -> list[tuple[str, ...]]:
    """Slurm answers with these texts; the commands that it is given."""
    ran: list[tuple[str, ...]] = []

    def output(*command: str) -> str:
        ran.append(command)
        answer = answers[command[0]]
        if isinstance(answer, SlurmUnreachable):
            raise answer
        return answer

    monkeypatch.setattr(queue, "output", output)
    return ran


LINE = "12_4|RUNNING|None|n[1-2]|1-02:03:04|UNLIMITED|2026-11-24T23:27:09|2|0|low|a|b|"


def test_a_line_of_squeue() -> None:
    (job,) = queued(LINE, ["a|b"])
    start = datetime(2026, 11, 24, 23, 27, 9).astimezone()
    assert job == JobInfo("12_4", "a|b", 4, "RUNNING", "None", "n[1-2]", 93784, None, start, 2, None, "low")


def test_lines_that_are_no_jobs_of_ours_are_passed_over() -> None:
    assert list(queued("12+1" + LINE[4:] + "\na name's second line|\n\n", ["a|b"])) == []
    assert list(queued(LINE, ["a"])) == []
    assert list(recorded("12+0|COMPLETED|0:0|3|Unknown|low|n1|a\n\n", ["a"])) == []
    assert list(recorded("12|COMPLETED|0:0|3|Unknown|low|n1|a", ["b"])) == []


@pytest.mark.parametrize(
    ("raw", "code"), [("768", "3:0"), ("4021", "0:53"), ("137", "0:9"), ("35072", "137:0"), ("3:0", "3:0")]
)
def test_exit_codes_are_code_and_signal(raw: str, code: str) -> None:
    (job,) = queued(f"12|FAILED|NonZeroExitCode|n1|0:07|4:53|N/A|0|{raw}|low|a|", ["a"])
    assert (job.exit_code, job.start, job.elapsed_s, job.left_s) == (code, None, 7, 293)


def test_one_row_may_stand_for_many_tasks() -> None:
    row = "|CANCELLED by 0|0:0|0|2026-11-24T23:27:09|low|None assigned|a"
    jobs = list(recorded("12_[3-5,8,10-14:2%2]" + row, ["a"]))
    assert [job.index for job in jobs] == [3, 4, 5, 8, 10, 12, 14]
    assert (jobs[0].id, jobs[0].state, jobs[0].reason, jobs[0].nodes) == ("12_3", "CANCELLED", "by 0", "")


@st.composite
def lists_of_tasks(draw: st.DrawFn) -> tuple[list[int], str]:
    """Indexes, and their list as Slurm writes it: single ones and ranges, or a step where there are six or more."""
    if draw(st.booleans()):
        first, step, count = draw(st.integers(0, 9999)), draw(st.integers(2, 99)), draw(st.integers(6, 40))
        indexes = list(range(first, first + step * count, step))
        text = f"{first}-{indexes[-1]}:{step}"
    else:
        indexes = sorted(draw(st.sets(st.integers(0, 60), min_size=1)))
        starts = [index for index in indexes if index - 1 not in indexes]
        ends = [index for index in indexes if index + 1 not in indexes]
        pairs = zip(starts, ends, strict=True)
        text = ",".join(f"{start}-{end}" if end > start else f"{start}" for start, end in pairs)
    throttle = draw(st.sampled_from(["", "%1", "%64"]))
    return indexes, f"[{text}{throttle}]"


@given(lists_of_tasks())
def test_a_list_of_tasks_is_every_task(listed: tuple[list[int], str]) -> None:
    indexes, text = listed
    assert task_indexes(text) == indexes


@given(lists_of_tasks(), st.data())
def test_a_list_that_was_cut_is_not_taken_for_all_tasks(listed: tuple[list[int], str], data: st.DataObject) -> None:
    _, text = listed
    cut = text[: data.draw(st.integers(1, len(text) - 1))]
    for each in (cut, f"{cut}...]"):
        with pytest.raises(SlurmUnreachable, match="does not say which tasks"):
            task_indexes(each)


def test_where_tasks_are_not_named_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the other jobs: a task that is missing would be submitted again. Jobs of no interest do not matter."""
    row = "|None|n1|0:07|4:53|N/A|1|0|low|"
    fake(monkeypatch, squeue=f"12_[3,5,1...]|PENDING{row}a|\n13|PENDING{row}b|", sacct="")
    assert ask(["a", "b"]).jobs == {}
    assert ask(["a", "b"]).unreachable == "Slurm does not say which tasks of an array there are: [3,5,1...]"
    assert ask(["b"]).jobs.keys() == {"b"}


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "REQUEUED", "SUSPENDED", "COMPLETING"])
def test_what_sacct_thinks_alive_is_left_to_squeue(state: str) -> None:
    assert list(recorded(f"12|{state}|0:0|0|Unknown|low|n1|a", ["a"])) == []


def test_squeue_is_believed_before_sacct_and_tasks_before_what_is_left_of_an_array(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = "|None|n1|0:07|4:53|N/A|1|0|low|a|"
    emptied = "12|CANCELLED" + row
    fake(monkeypatch, squeue=f"{emptied}\n12_0|COMPLETED{row}", sacct="12_0|NODE_FAIL|0:0|9|Unknown|low|n1|a\n")
    assert ask(["a"]).jobs["a"][0].state == "COMPLETED"


def test_states_that_nothing_follows() -> None:
    row = "|None|n1|0:07|4:53|N/A|1|0|low|a|"
    alive = [
        "PENDING",
        "CONFIGURING",
        "RUNNING",
        "SUSPENDED",
        "COMPLETING",
        "REQUEUED",
        "REQUEUE_HOLD",
        "SOMETHING_NEW",
    ]
    jobs = list(queued("\n".join(f"12|{state}{row}" for state in [*alive, *ENDED]), ["a"]))
    assert [job.state for job in jobs if job.alive] == alive
    assert [job.state for job in jobs if job.pending] == ["PENDING", "REQUEUED", "REQUEUE_HOLD"]
    assert [job.state for job in jobs if job.running] == [*alive[1:5], "SOMETHING_NEW"]


def test_accounting_that_fails_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = fake(monkeypatch, squeue=LINE, sacct=SlurmUnreachable("sacct: Connection refused"))
    for _ in range(2):
        found = ask(["a|b", "c"])
        assert found.jobs["a|b"][4].running
        assert found.unaccounted == "sacct: Connection refused"
    assert [command[0] for command in ran] == ["squeue", "squeue", "sacct"] * 2


def test_more_names_than_an_argument_holds_are_chosen_here(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = fake(monkeypatch, squeue="", sacct="12|COMPLETED|0:0|1|Unknown|low|n1|n7\n13|FAILED|1:0|1|Unknown|low|n1|x")
    assert ask([f"n{number}" for number in range(30_000)]).jobs.keys() == {"n7"}
    assert ask(["n7", "n8"]).jobs.keys() == {"n7"}
    assert [command[-1] for command in ran if command[0] == "sacct"] == [queue._RECORDED, "--name=n7,n8"]


def test_cancelling_asks_once_for_each_array_in_commands_of_moderate_length(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = fake(monkeypatch, scancel="")
    cancel([f"{job}_{task}" for job in range(150) for task in (2, 0)] + ["7777"])
    assert [len(command) for command in ran] == [2 + 100, 2 + 51]
    assert ran[0][2:4] == ("7777", "0_[0,2]")


def test_what_is_let_go_is_asked_once_for_each_array(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = fake(monkeypatch, scontrol="")
    release(["5_2", "5_0", "7"])
    assert ran == [("scontrol", "release", "7"), ("scontrol", "release", "5_[0,2]")]
    fake(monkeypatch, scontrol=SlurmUnreachable("scontrol: Job/step already completing or completed for job 7"))
    release(["7"])
    fake(monkeypatch, scontrol=SlurmUnreachable("scontrol: Access/permission denied for job 7"))
    with pytest.raises(SlurmUnreachable, match="denied"):
        release(["7"])


def test_a_refusal_to_cancel_is_told_an_ended_job_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, scancel=SlurmUnreachable("scancel: Kill job error on job id 9: Invalid job id specified"))
    cancel(["9"])
    fake(monkeypatch, scancel=SlurmUnreachable("scancel: Kill job error on job id 9: Access/permission denied"))
    with pytest.raises(SlurmUnreachable, match="denied"):
        cancel(["9"])
