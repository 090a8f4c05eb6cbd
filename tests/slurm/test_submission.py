"""Jobs on a real Slurm: what they find when they start, and that they get to their end whatever ends them before."""

import json
import os
import shlex
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from slurm import Cluster, Resources, SlurmUnreachable, Unconfirmed, Work, copy_code, submission, submit_array
from slurm.afterwards import last_line
from slurm.inside import warning_seconds
from slurm.options import Value
from slurm.submission import mebibytes
from tests.slurm.cluster import UnreliableSbatch, fail_node, run, wait_for
from tests.slurm.works import Dies, Forks, OneLeaves, Steps, Tells, steps

ROOT = Path(__file__).parents[2]
LOW = Cluster("low", partition="low")
ONE = Resources(nodes=1, tasks_per_node=1, cpus_per_task=1, gpus_per_node=0, minutes=60)
WHOLE = replace(ONE, cpus_per_task=4)


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_code(ROOT, ["slurm", "tests"], tmp_path_factory.mktemp("code"), {})


def submit(
    code: Path,
    folder: Path,
    *works: Work,
    cluster: Cluster = LOW,
    resources: Resources = ONE,
    after: tuple[str, ...] = (),
    exports: tuple[str, ...] = (),
) -> str:
    # Slurm knows jobs by their names for a while after their end, too.
    name = f"test-{uuid.uuid4().hex}.0"
    return submit_array(
        works,
        name=name,
        folder=folder / "jobs",
        code=code,
        cluster=cluster,
        resources=resources,
        after=after,
        exports=exports,
    )


def state(job: str) -> str:
    return run("squeue", "-h", "-t", "all", "-j", job, "-o", "%T")


def restarts(job: str) -> int:
    return int(run("squeue", "-h", "-t", "all", "-j", job, "-O", "restartcnt"))


def log(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted((folder / "jobs" / "logs").glob("*_log.out")))


def told(folder: Path, processes: int) -> list[dict[str, str]]:
    paths = [folder / f"told-{number}" for number in range(processes)]
    wait_for(lambda: all(path.exists() and path.read_text() for path in paths))
    return [json.loads(path.read_text()) for path in paths]


def test_what_the_processes_of_a_job_find(slurm: None, code: Path, tmp_path: Path) -> None:
    two = Resources(nodes=2, tasks_per_node=2, cpus_per_task=1, gpus_per_node=2, minutes=10)
    blocker = run("sbatch", "--parsable", "-w", "127.0.1.1", "--gres=gpu:2", "-o", "/dev/null", "--wrap", "sleep 60")
    wait_for(lambda: state(blocker) == "RUNNING")
    submit(code, tmp_path, Tells(tmp_path, 1), resources=two, cluster=replace(LOW, exclude="127.0.1.[3-4]"))
    found = told(tmp_path, 4)
    assert [(each["RANK"], each["LOCAL_RANK"]) for each in found] == [("0", "0"), ("1", "1"), ("2", "0"), ("3", "1")]
    assert {each["WORLD_SIZE"] for each in found} == {"4"}
    assert {each["LOCAL_WORLD_SIZE"] for each in found} == {"2"}
    assert {each["MASTER_ADDR"] for each in found} == {"127.0.1.1"}
    (port,) = {each["MASTER_PORT"] for each in found}
    assert 1024 <= int(port) < 2**16
    # The GPUs that Slurm gave: of the first node those that the other job has left.
    assert [each["CUDA_VISIBLE_DEVICES"] for each in found] == ["2,3", "2,3", "0,1", "0,1"]
    assert all(Path(each["file"]).is_relative_to(code) for each in found), "jobs run the copy of the code"


def test_set_up_lines_come_before_and_an_image_around_python(slurm: None, code: Path, tmp_path: Path) -> None:
    """`env` stands for the program that runs an image: the words before `python`, found on the PATH."""
    setup = (f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH PYTHONPATH=/of/a/module",)
    cluster = replace(LOW, setup=setup, container="env CUDA_VISIBLE_DEVICES=seven")
    submit(code, tmp_path, Tells(tmp_path, 1), cluster=cluster)
    (found,) = told(tmp_path, 1)
    assert found["CUDA_VISIBLE_DEVICES"] == "seven"
    assert found["PYTHONPATH"] == f"{code}:/of/a/module", "the copy of the code comes first"


def test_what_a_site_asks_for_reaches_slurm(slurm: None, code: Path, tmp_path: Path) -> None:
    """And a job that gets nothing of the shell's environment still finds the code."""
    further: dict[str, Value] = {"comment": "it's #1", "nice": 7, "export": "NONE"}
    cluster = replace(LOW, nodelist="127.0.1.2", sbatch=further)
    job = submit(
        code,
        tmp_path,
        Tells(tmp_path, 1),
        cluster=cluster,
        resources=replace(ONE, cpus_per_task=2, memory_per_cpu_gb=0.5),
    )
    (found,) = told(tmp_path, 1)
    assert Path(found["file"]).is_relative_to(code)
    shown = run("scontrol", "--oneliner", "show", "job", job)
    for part in (" Nice=7 ", " Comment=it's #1 ", " MinMemoryCPU=512M ", " ReqNodeList=127.0.1.2 "):
        assert part in shown


def test_each_key_is_an_option_of_sbatch(code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(
        f'#!/bin/bash\ncat "${{@: -1}}" > {shlex.quote(str(tmp_path))}/script; echo "Submitted batch job 1"\n'
    )
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    cluster = Cluster(
        "x",
        partition="gpu nodes (a100)",
        account="vision",
        qos="long",
        wckey="team",
        reservation="week",
        licenses="imagenet:2",
        nodelist="g[1-2]",
        exclude="g3",
        gpus_per_node=2,
        gpu_type="3090",
        sbatch={"mail_type": "FAIL", "contiguous": True, "tmp": 10},
    )
    size = Resources(1, 2, 4, 2, 60, memory_per_cpu_gb=3.87)
    assert submit(code, tmp_path, Steps(tmp_path, 1), cluster=cluster, resources=size) == "1"
    lines = (tmp_path / "script").read_text().splitlines()
    asked = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH ")}
    assert asked >= {
        "partition='gpu nodes (a100)'",
        "account=vision",
        "qos=long",
        "wckey=team",
        "reservation=week",
        "licenses=imagenet:2",
        "nodelist='g[1-2]'",
        "exclude=g3",
        "gpus-per-node=3090:2",
        "mem-per-cpu=3963M",
        "mail-type=FAIL",
        "contiguous",
        "tmp=10",
        "requeue",
    }
    assert not any(line.startswith("mem=") for line in asked)


def test_an_array_is_throttled_and_does_each_work_once(slurm: None, code: Path, tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(6)]
    for folder in folders:
        folder.mkdir()
    works = [Steps(folder, 2, 0.3) for folder in folders]
    job = submit(code, tmp_path, *works, cluster=replace(LOW, throttle=2))
    most = 0

    def all_done() -> bool:
        nonlocal most
        most = max(most, state(job).split().count("RUNNING"))
        return all(len(steps(folder)) == 2 for folder in folders)

    wait_for(all_done)
    assert most <= 2
    wait_for(lambda: set(run("sacct", "-n", "-X", "-j", job, "-o", "state").split()) == {"COMPLETED"})


def test_a_lost_node_a_preemption_and_a_warning_are_survived(slurm: None, code: Path, tmp_path: Path) -> None:
    """In one job's life. The warning is Slurm's own: its time limit is moved near."""
    job = submit(
        code, tmp_path, Steps(tmp_path, 60, 0.25), resources=WHOLE, cluster=replace(LOW, exclude="127.0.1.[2-4]")
    )
    wait_for(lambda: len(steps(tmp_path)) > 2)
    fail_node("127.0.1.1")
    wait_for(lambda: restarts(job) == 1 and len(set(steps(tmp_path))) == 2)
    high = run(
        "sbatch", "--parsable", "-p", "high", "-c", "4", "-w", "127.0.1.1", "-o", "/dev/null", "--wrap", "sleep 1"
    )
    wait_for(lambda: state(high) == "COMPLETED" and restarts(job) == 2 and len(set(steps(tmp_path))) == 3)
    wait_for(lambda: len(steps(tmp_path)) >= 60)
    wait_for(lambda: state(job) == "COMPLETED")
    assert len(steps(tmp_path)) == 60
    assert "preempted" in log(tmp_path)
    assert not (tmp_path / "gave_up").exists()


def test_a_preemption_without_grace_and_a_signal_in_the_first_moment_are_survived(
    slurm: None, code: Path, tmp_path: Path
) -> None:
    """Without grace USR2, TERM and KILL come at once, to the batch script too; a first moment has no handler yet."""
    run("scontrol", "create", "partition=harsh", "nodes=ALL", "prioritytier=1", "preemptmode=requeue", "gracetime=0")
    try:
        harsh = replace(LOW, partition="harsh", exclude="127.0.1.[2-4]")
        job = submit(code, tmp_path, Steps(tmp_path, 30, 0.25), resources=WHOLE, cluster=harsh)
        wait_for(lambda: "Starting with JobEnvironment" in log(tmp_path))  # submitit's first words
        run("scancel", "--signal=USR2", job)
        wait_for(lambda: restarts(job) == 1 and len(steps(tmp_path)) > 2)
        high = run("sbatch", "--parsable", "-p", "high", "-c4", "-w", "127.0.1.1", "-o", "/dev/null", "--wrap", "true")
        wait_for(lambda: state(high) == "COMPLETED" and restarts(job) == 2)
        wait_for(lambda: state(job) == "COMPLETED")
        assert len(steps(tmp_path)) == 30
    finally:
        run("scancel", "--me")
        wait_for(lambda: run("squeue", "-h") == "")
        run("scontrol", "delete", "partition=harsh")


def test_what_dies_time_and_again_is_given_up_with_its_last_words(slurm: None, code: Path, tmp_path: Path) -> None:
    job = submit(code, tmp_path, Dies(tmp_path, 1))
    wait_for(lambda: (tmp_path / "gave_up").exists())
    assert len(steps(tmp_path)) == 3
    reason = (tmp_path / "gave_up").read_text()
    assert "ended 3 times without progress" in reason
    assert "killed, often for memory" in reason
    assert reason.endswith("the log ends with: the last words")
    wait_for(lambda: state(job) == "COMPLETED")


def test_a_process_that_leaves_without_a_word_ends_the_others_and_the_job_begins_anew(
    slurm: None, code: Path, tmp_path: Path
) -> None:
    job = submit(code, tmp_path, OneLeaves(tmp_path, 1), resources=replace(ONE, nodes=2))
    wait_for(lambda: state(job) == "COMPLETED")
    assert steps(tmp_path) == ["1"]


def test_a_warning_to_all_processes_ends_the_job_once_and_its_children_are_deaf(
    slurm: None, code: Path, tmp_path: Path
) -> None:
    """Under proctrack/linuxproc Slurm signals the forked children of a task as well."""
    job = submit(code, tmp_path, Forks(tmp_path, 30, 0.2))
    wait_for(lambda: len(steps(tmp_path)) > 2)
    run("scancel", "--signal=USR2", job)
    wait_for(lambda: state(job) == "COMPLETED")
    assert restarts(job) == 1
    assert len(steps(tmp_path)) == 30
    assert set((tmp_path / "children").read_text().split()) == {"alive"}


def test_a_cancelled_job_stays_cancelled(slurm: None, code: Path, tmp_path: Path) -> None:
    job = submit(code, tmp_path, Steps(tmp_path, 1000, 0.2))
    wait_for(lambda: len(steps(tmp_path)) > 2)
    run("scancel", job)
    wait_for(lambda: state(job) == "CANCELLED")
    time.sleep(6)
    assert state(job) == "CANCELLED"
    assert "requeued" not in log(tmp_path)


def test_a_job_waits_for_another_and_is_not_left_waiting_for_ever(slurm: None, code: Path, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("first", "second", "third")]
    for folder in folders:
        folder.mkdir()
    first = submit(code, folders[0], Steps(folders[0], 4, 0.3))
    second = submit(code, folders[1], Steps(folders[1], 1), after=(first,))
    wait_for(lambda: state(second) == "COMPLETED")
    assert (folders[1] / "steps").stat().st_mtime >= (folders[0] / "steps").stat().st_mtime
    first = submit(code, folders[2], Steps(folders[2], 1000, 0.2))
    second = submit(code, folders[1], Steps(folders[1], 2), after=(first,))
    run("scancel", first)
    wait_for(lambda: state(second) == "CANCELLED")


def test_a_job_submits_a_job_to_the_same_cluster(
    slurm: None, code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from within an allocation: its variables must not reach the new job, but which cluster is meant must."""
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "7")
    monkeypatch.setenv("SBATCH_PARTITION", "nowhere")
    monkeypatch.setenv("SBATCH_CLUSTERS", "local")  # its own name
    monkeypatch.setenv("RANK", "5")
    monkeypatch.delenv("OMP_NUM_THREADS")
    exports = ('export LEVEL="$((SLURM_NTASKS + 1))"',)
    submit(code, tmp_path, Tells(tmp_path, 1), resources=replace(ONE, cpus_per_task=3), exports=exports)
    (found,) = told(tmp_path, 1)
    assert found["RANK"] is found["SLURM_CLUSTERS"] is None
    assert found["LEVEL"] == "2"  # as the job's own environment says, not that of the submitting process
    assert (found["SLURM_CPUS_PER_TASK"], found["OMP_NUM_THREADS"]) == ("3", "3")
    # Without task/affinity a step has all cores of its job anyway: only the batch script shows what srun is told.
    (script,) = (tmp_path / "jobs" / "logs").glob("*.sh")
    (line,) = (line for line in script.read_text().splitlines() if line.startswith("srun "))
    assert "--cpus-per-task=3" in line


def test_a_folder_that_a_node_does_not_see_is_said_and_nothing_runs(slurm: None, code: Path, tmp_path: Path) -> None:
    run(
        "scontrol",
        "create",
        "reservation=r",
        "starttime=now",
        "duration=1",
        "users=root",
        "nodes=ALL",
        "flags=ignore_jobs",
    )
    try:
        job = submit(code, tmp_path, Steps(tmp_path, 1), resources=replace(ONE, nodes=2))
        (tmp_path / "jobs" / "shared").unlink()
    finally:
        run("scontrol", "delete", "reservation=r")
    wait_for(lambda: state(job) in ("FAILED", "COMPLETED"))
    assert f"does not see {tmp_path / 'jobs'}: the output folder (--out) must be where all nodes" in log(tmp_path)
    assert steps(tmp_path) == []


def test_a_job_whose_code_is_gone_says_so_and_runs_no_other(slurm: None, code: Path, tmp_path: Path) -> None:
    job = submit(tmp_path / "gone", tmp_path, Steps(tmp_path, 1))
    wait_for(lambda: state(job) in ("FAILED", "COMPLETED"))
    assert f"the copy of the code that this job was submitted with is gone: {tmp_path / 'gone'}" in log(tmp_path)
    assert steps(tmp_path) == []


def test_a_setup_line_that_fails_ends_the_job_with_that_line(slurm: None, code: Path, tmp_path: Path) -> None:
    setup = ("true  # a module", "cd /nowhere  # $(date) 'quoted'")
    job = submit(code, tmp_path, Steps(tmp_path, 1), cluster=replace(LOW, setup=setup))
    wait_for(lambda: state(job) in ("FAILED", "COMPLETED"))
    assert "attention-bench: a setup line of cluster low failed: cd /nowhere  # $(date) 'quoted'" in log(tmp_path)
    assert steps(tmp_path) == []


@pytest.mark.parametrize(
    ("cluster", "resources", "said"),
    [
        (replace(LOW, partition="nowhere"), ONE, "Invalid partition name specified"),
        (replace(LOW, constraint="fast"), ONE, "Invalid feature specification"),
        (LOW, replace(ONE, memory_gb=99999.0), "configuration"),
        (LOW, replace(ONE, gpus_per_node=99), "configuration"),
    ],
    ids=["partition", "feature", "memory", "gpus"],
)
def test_what_slurm_refuses_is_one_line(
    slurm: None,
    code: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    cluster: Cluster,
    resources: Resources,
    said: str,
) -> None:
    with pytest.raises(ValueError, match=r"^Slurm refuses the job: ") as refusal:
        submit(code, tmp_path, Steps(tmp_path, 1), cluster=cluster, resources=resources)
    assert said.lower() in str(refusal.value).lower()
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr() == ("", "")


def commands(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Slurm's commands are these scripts, beside a shell's."""
    for name, script in ({"srun": "true", "sbatch": "exit 1", "squeue": "true"} | scripts).items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(submission, "PATIENCE", 0.2)


def says(*lines: str) -> str:
    """A script that prints these and fails."""
    return f"printf '%s\\n' {' '.join(map(shlex.quote, lines))} >&2; exit 1"


FAILED = "sbatch: error: Batch job submission failed: "


@pytest.mark.parametrize(
    "lines",
    [
        ["sbatch: error: lua: ask for memory per CPU", "sbatch: error: cli_filter plugin terminated with error"],
        ["sbatch: error: A type must be given with GPUs", f"{FAILED}Unspecified error"],
        ["-----", "sbatch: the connection reset of partition x is on Monday", "", f"{FAILED}Invalid account"],
        [
            f"{FAILED}Job violates accounting/QOS policy (job submit limit)",
            "Questions? help@site: unable to contact us?",
        ],
    ],
    ids=["filter", "unspecified", "banner", "afterword"],
)
def test_all_that_is_said_of_a_refusal_is_shown_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    commands(tmp_path, monkeypatch, sbatch=says(*lines))
    with pytest.raises(ValueError, match=r"^Slurm refuses the job: ") as refusal:
        submit(tmp_path, tmp_path, Steps(tmp_path, 1))
    assert not isinstance(refusal.value, Unconfirmed)
    assert "\n" not in str(refusal.value)
    for line in filter(None, lines):
        assert (line.removeprefix("sbatch: ").removeprefix("error: ") in str(refusal.value)) == (line != "-----")


LOST = [
    "Socket timed out on send/recv operation",
    "Zero Bytes were transmitted or received",
    "Connection reset by peer",
    "Unable to contact slurm controller (connect failure)",
    "Message receive failure",
    "Communication connection failure",
    "Unexpected message received",
    "Resource temporarily unavailable",
    "Transport endpoint is not connected",
    "Broken pipe",
    "Header lengths are longer than data received",
    "Unexpected missing socket error",
    "Connection rejected by handler",
    "Kernel reported delayed socket error after successful write(), client side likely closed",
    "Process is shutting down and closing all communications",
    "Operation now in progress",
    "Read would block",
    "No error",
]


@pytest.mark.parametrize("line", LOST)
def test_what_sbatch_does_not_know_is_asked_and_may_still_be_queued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    commands(tmp_path, monkeypatch, sbatch=says(FAILED + line))
    with pytest.raises(Unconfirmed, match=r"; Slurm does not know the job after 0.2 s$") as unknown:
        submit(tmp_path, tmp_path, Steps(tmp_path, 1))
    assert str(unknown.value).startswith(f"sbatch: Batch job submission failed: {line}; ")
    assert (tmp_path / "jobs" / "logs").is_dir()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("kill -9 $$", "exit code -9"),
        ("true", "sbatch named no job"),
        ("exec sleep 60", "more than 0.3 s"),
        ("echo 'your budget is low' >&2; kill -9 $$", "your budget is low; exit code -9"),
        ("echo 'your budget is low' >&2; exit 143", "your budget is low; exit code 143"),
        ("echo 'your budget is low' >&2; exit 124", "your budget is low; exit code 124"),
        (
            f"echo 'sbatch: error: slurm_receive_msg: {LOST[0]}' >&2; echo '{FAILED}Unspecified error' >&2; exit 1",
            f"slurm_receive_msg: {LOST[0]}; Batch job submission failed: Unspecified error",
        ),
    ],
    ids=["killed", "silent", "slow", "killed with words", "wrapper of a killed one", "timeout", "words before"],
)
def test_an_sbatch_that_ends_without_an_answer_may_have_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    commands(tmp_path, monkeypatch, sbatch=script)
    monkeypatch.setattr(submission, "SBATCH_SECONDS", 0.3)
    with pytest.raises(Unconfirmed, match=said):
        submit(tmp_path, tmp_path, Steps(tmp_path, 1))


@pytest.mark.parametrize("end", ["exit 1", "exec sleep 60", "kill -9 $$"], ids=["fails", "hangs", "killed"])
def test_an_id_counts_whatever_goes_wrong_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    commands(tmp_path, monkeypatch, sbatch=f"echo Submitted batch job 77; echo no log server >&2; {end}")
    monkeypatch.setattr(submission, "SBATCH_SECONDS", 0.3)
    assert submit(tmp_path, tmp_path, Steps(tmp_path, 1)) == "77"


def test_a_job_that_is_queued_after_all_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the second look."""
    looked = tmp_path / "looked"
    row = "4242_[0-1%2]|PENDING|None||0:00|1:00|N/A|0|0|low|"
    name = f'$(basename "$(ls {tmp_path}/jobs/logs/*.sh)" .sh)'
    commands(
        tmp_path,
        monkeypatch,
        sbatch=says(FAILED + LOST[0]),
        squeue=f'[ ! -e {looked} ] || echo "{row}{name}|"; touch {looked}',
    )
    monkeypatch.setattr(submission, "PATIENCE", 30.0)
    assert submit(tmp_path, tmp_path, Steps(tmp_path, 1), Steps(tmp_path, 2)) == "4242"


def test_where_squeue_does_not_answer_either_its_words_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands(tmp_path, monkeypatch, sbatch=says(FAILED + LOST[0]), squeue=says("slurm_load_jobs error: away"))
    with pytest.raises(Unconfirmed, match=r"Socket timed out on send/recv operation; squeue: away$"):
        submit(tmp_path, tmp_path, Steps(tmp_path, 1))


def test_an_sbatch_that_cannot_be_run_has_submitted_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands(tmp_path, monkeypatch)
    (tmp_path / "sbatch").chmod(0o644)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmUnreachable, match=r"^sbatch cannot be run: Permission denied$") as refusal:
        submit(tmp_path, tmp_path, Steps(tmp_path, 1))
    assert not isinstance(refusal.value, Unconfirmed)


def test_no_wckey_is_sent_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands(tmp_path, monkeypatch, sbatch="echo Submitted batch job 5 on cluster north")
    assert submit(tmp_path, tmp_path, Steps(tmp_path, 1)) == "5"
    (script,) = (tmp_path / "jobs" / "logs").glob("*.sh")
    assert "--wckey" not in script.read_text()


def test_jobs_whose_sbatch_has_timed_out_find_what_they_run(
    slurm: None, code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single one in a folder with a name that a shell would expand, and an array."""
    sbatch = UnreliableSbatch(tmp_path / "bin", monkeypatch)
    odd = tmp_path / "a $HOME 'b'"
    folders = [odd / name for name in ("single", "first", "second")]
    for folder in folders:
        folder.mkdir(parents=True)
    single, first, second = (Steps(folder, 1) for folder in folders)
    sbatch.tell("late", "lost")
    jobs = [submit(code, odd, single), submit(code, odd, first, second)]
    wait_for(lambda: all(set(state(job).split()) == {"COMPLETED"} for job in jobs))
    assert [steps(folder) for folder in folders] == [["0"]] * 3


def test_the_least_memory_is_not_all_of_it() -> None:
    """--mem=0 asks for all that a node has."""
    assert [mebibytes(gb) for gb in (0.0001, 0.5, 3.9)] == [1, 512, 3994]


def test_the_warning_comes_early_enough_to_save() -> None:
    assert [warning_seconds(minutes) for minutes in (5, 10, 60, 2880)] == [30, 60, 300, 300]


def test_the_last_line_of_a_log_is_its_own_not_slurms_echo(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("one\nValueError: two\n\nsrun: error: task 0: Exited\nslurmstepd: error: x\nsubmitit ERROR (x)\n")
    assert last_line(path) == "ValueError: two"
    assert last_line(tmp_path / "none") == ""
