"""submit, status, resume, retry and cancel as users call them: a refusal is one line; jobs run on this machine."""

import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import attentions
from backbones import preset
from harness.cells import Cell, Costs
from harness.jobs import launch, resubmit, submissions
from harness.jobs.submissions import Submission
from harness.sweeps.expand import expand
from results import Record
from slurm import Cluster, local_job
from tests.attentions.test_registry import WHOLE
from tests.harness import submitted
from tests.harness.command_line import Answer, Ask, records, refused, tree
from tests.slurm.cluster import wait_for

SWEEPS = '''
"""Cells that note that they are run, wait as long as a file is there, and fail as a file says."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from backbones import preset
from harness.cells import Cell

HERE = Path("{here}")


@dataclass(frozen=True)
class Count:
    name: ClassVar[str] = "counting"

    number: int

    @property
    def label(self):
        return f"counting {{self.number}}"

    def run(self, spec, folder, report):
        with open(HERE / "runs_of", "a") as log:
            log.write(f"{{self.number}}\\n")
        while (HERE / "hold").exists():
            time.sleep(0.05)
        if str(self.number) in (HERE / "fail").read_text().split():
            raise RuntimeError("planted failure")
        return {{"params_m": float(self.number)}}


def four():
    return [Cell(preset("deit_micro"), Count(number)) for number in range(4)]
'''

CLUSTERS = """
[gpu]
gpus_per_node = 2

[cpu]
minutes = 60
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Ask, users_files: None) -> Path:
    """The user's folder: a sweep, clusters, and no Slurm on the machine."""
    (tmp_path / "clusters.toml").write_text(CLUSTERS)
    (tmp_path / "sweeps.py").write_text(SWEEPS.format(here=tmp_path))
    (tmp_path / "fail").write_text("")
    tools = tmp_path / "empty"
    tools.mkdir()
    # What starts a process of this machine needs.
    (tools / "env").symlink_to("/usr/bin/env")
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("SLURM_CONF", "SLURM_JOB_ID", "SUBMITIT_LOCAL_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("submit sweeps.py:four --cluster gpv", "unknown cluster 'gpv'; did you mean gpu? (allowed: gpu, cpu, local)"),
        ("submit sweeps.py:four --cluster cpu", "no scontrol on the PATH: this machine has no Slurm; use --cluster lo"),
        ("submit sweeps.py:for --cluster local", "has no function 'for'"),
        ("submit sweeps.py --cluster local", "add the name of the function in it"),
        ("submit quickstrt --cluster local", "unknown sweep 'quickstrt'; did you mean quickstart?"),
        ("submit sweeps.py:four --cluster local --only nothing", "--only nothing: no cell holds this"),
        ("submit sweeps.py:four --cluster local --probe", "--probe has no effect without --dry-run"),
        (
            "submit sweeps.py:four --cluster local --ignore-memory",
            "--ignore-memory has no effect: cluster local has no gpu_memory_gb, so nothing is refused",
        ),
        (
            "submit --backbone deit_micro --task speed --device cuda --cluster local",
            "device cuda was asked for, but torch finds no CUDA device here; allowed: cpu",
        ),
        (
            "submit --backbone deit_micro --task speed --device cuda --cluster cpu",
            "needs a GPU, and cluster cpu has none: set gpus_per_node in its table, or give --device cpu",
        ),
        ("submit sweeps.py:four --cluster local --out clusters.toml", "cannot write to the output folder clusters.tom"),
        ("retry", "retry --failed runs the failed cells again; resume continues what was"),
        ("retry --failed", "there is no folder runs; --out names the folder of the records"),
        ("resume", "there is no folder runs; --out names the folder of the records"),
        ("resume sweeps.py:four", "there is no folder runs"),
        ("cancel", "there is no folder runs"),
        ("status", "there is no folder runs"),
        ("logs deit", "there is no folder runs"),
        ("status --watch --every 0", "--every 0: allowed are 1 to 86400 seconds"),
        ("status --watch --every inf", "--every inf: allowed are 1 to 86400 seconds"),
        ("status --every 5", "--every has no effect without --watch"),
        ("status --watch --json", "--watch and --json exclude each other"),
        ("cluster detect", "clusters.toml exists: move it away, or give another --out"),
        ("cluster detect --out new.toml", "no scontrol on the PATH: this machine has no Slurm"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, line: str, said: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert said in refused(ask, line)
    if line.startswith("submit") and "--probe" not in line and "--out" not in line:
        assert said in refused(ask, f"{line} --dry-run")


@pytest.mark.parametrize("command", ["status", "resume", "cancel", "retry --failed"])
def test_where_nothing_was_submitted_it_is_said(ask: Ask, here: Path, command: str) -> None:
    (here / "runs").mkdir()
    said = refused(ask, f"{command} --out runs")
    assert said == "nothing was submitted or started in runs\n"
    submitted.submit(here / "runs", "sweeps.py:ten", [{"k": "K"}])
    if command != "status":
        said = refused(ask, command.replace(" ", " sweeps.py:twelve ", 1) if " " in command else f"{command} twelve")
        assert "was submitted in runs; these were: sweeps.py:ten" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[gpu\n", "clusters.toml is not TOML: "),
        ("[cpu]\nminuts = 3\n", "clusters.toml: cluster cpu: unknown key 'minuts'; did you mean minutes?"),
        ("[cpu]\nminutes = 'x'\n", "clusters.toml: cluster cpu: minutes must be a whole number"),
        ("minutes = 3\n", "clusters.toml: 'minutes' is outside a table"),
        (None, "cluster 'cpu': there is no clusters.toml here and no "),
    ],
    ids=["not-toml", "key", "value", "no-table", "no-file"],
)
def test_a_damaged_clusters_toml_is_one_line(ask: Ask, here: Path, text: str | None, said: str) -> None:
    (here / "clusters.toml").unlink()
    if text is not None:
        (here / "clusters.toml").write_text(text)
    assert refused(ask, "submit sweeps.py:four --cluster cpu").startswith(said)


def test_a_damaged_submission_is_one_line(ask: Ask, here: Path) -> None:
    whole = submitted.submit(here / "runs", "ten", [{"k": "K"}])
    path = whole.folder / "submission.json"
    path.write_text("{")
    said = refused(ask, "submit sweeps.py:four --cluster local --dry-run")
    assert "submission.json: not the file of a submission" in said
    assert "mend or remove its folder" in refused(ask, "submit sweeps.py:four --cluster local")


def test_where_slurm_does_not_answer_nothing_is_cancelled_or_resumed_and_status_still_tells(
    ask: Ask, here: Path
) -> None:
    (cell, *_) = expand("sweeps.py:four")
    submitted.submit(here / "runs", "sweeps.py:four", [{cell.key: cell.label}])
    assert refused(ask, "cancel") == (
        "no squeue on the PATH: this machine has no Slurm; use --cluster local; nothing is cancelled\n"
    )
    assert "may be running" in refused(ask, "submit sweeps.py:four --cluster local")
    assert "some of the cells may be running; nothing is submitted" in refused(ask, "resume")
    shown = ask("status")
    assert (shown.status, shown.err) == (0, "")
    assert "no squeue on the PATH" in shown.out


def test_what_was_dropped_twice_goes_where_it_was_submitted_last(
    ask: Ask, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = expand("sweeps.py:four")
    jobs = [{cell.key: cell.label for cell in cells}]
    for sweep, created in (("second", submitted.NOON + 1), ("first", submitted.NOON)):
        made = submitted.submit(here / "runs", sweep, jobs, id="999999999", created=created, cluster="local")
        (made.folder / submissions.CELLS).write_bytes(pickle.dumps(cells))
    asked = []

    def submit(
        choice: launch.Choice, planned: object, cluster: Cluster, out: Path, sweep: str, like: Submission
    ) -> Submission:
        asked.append((sweep, len(choice.cells), like.sweep))
        return like

    monkeypatch.setattr(resubmit, "submit", submit)
    assert ask("resume").status == 0
    assert asked == [("second", 4, "second")]


def test_submissions_with_other_versions_of_one_file_are_resumed_together(
    ask: Ask, here: Path, monkeypatch: pytest.MonkeyPatch, users_attentions: None
) -> None:
    """Each goes on with the code of then, though both have an attention of that name."""
    for number, (version, scale) in enumerate((("first", 1), ("second", 2))):
        file = here / version / "mine.py"
        file.parent.mkdir()
        file.write_text(WHOLE.replace("return v", f"return {scale} * v"))
        with attentions.temporary_registry():
            attentions.load(str(file))
            cells = [Cell(preset("deit_micro", attention=f"mine(depth={scale})"), Costs())]
            labels = {cell.key: cell.label for cell in cells}
            made = submitted.submit(here / "runs", version, [labels], id="999999999", cluster="local")
            replace(made, files=(file,), originals=(file,), created=submitted.NOON + number).write()
            (made.folder / submissions.CELLS).write_bytes(pickle.dumps(cells))
    asked = []

    def submit(
        choice: launch.Choice, planned: object, cluster: Cluster, out: Path, sweep: str, like: Submission
    ) -> Submission:
        asked.append((sweep, attentions.loaded_files(), attentions.source_digest("mine")))
        return like

    monkeypatch.setattr(resubmit, "submit", submit)
    answer = ask("resume")
    assert (answer.status, answer.err) == (0, "")
    assert [(sweep, files) for sweep, files, _ in asked] == [
        (version, [here / version / "mine.py"]) for version in ("first", "second")
    ]
    assert len({digest for _, _, digest in asked}) == 2
    assert not attentions.loaded_files()


def test_a_dry_run_says_what_would_be_and_writes_nothing(ask: Ask) -> None:
    before = tree()
    answer = ask("submit --backbone deit_micro --attention softmax linear --task costs speed --cluster local --dry-run")
    assert (answer.status, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert [line.split()[1:4] for line in lines[:4]] == [["to", "submit", "deit_micro"]] * 4
    assert lines[4] == "4 cells, 4 to submit"
    assert re.fullmatch(r"process 0: 4 cells in sequence on this CPU of \d+ cores", lines[5])
    assert lines[6].startswith("estimate: ")
    assert "2 from the model's size" in lines[6]
    assert lines[6].endswith(" of disk")
    assert tree() == before


# Jobs on this machine


def ended(out: Path) -> Callable[[], bool]:
    """Whether the processes of all submissions have."""
    ids = [array.id for submission in submissions.read_all(out)[0] for array in submission.arrays]
    return lambda: all(local_job("", 0, id) is None for id in ids)


def told(answer: Answer) -> str:
    assert (answer.status, answer.err) == (0, "")
    return answer.out


def comparable(record: Record) -> Record:
    """Without times."""
    environment = {name: value for name, value in record.environment.items() if name not in ("date", "threads")}
    metrics = {name: value for name, value in record.metrics.items() if name != "counting_seconds"}
    return replace(record, environment=environment, metrics=metrics, created="")


def test_what_processes_of_this_machine_record_is_what_run_records(ask: Ask, here: Path) -> None:
    (here / "clusters.toml").write_text("[local]\nslots = 1\n")
    said = told(ask("submit sweeps.py:four --cluster local")).splitlines()
    assert said[0] == "4 cells, 4 to submit"
    assert re.fullmatch(r"submitted 4 cells in 1 job on this machine \(\d+\)", said[1])
    assert said[2] == "watch it with: attention-bench status sweeps.py:four --watch"
    wait_for(lambda: len(records()) == 4)
    wait_for(ended(here / "runs"))
    assert sorted((here / "runs_of").read_text().split()) == ["0", "1", "2", "3"]
    before = tree()
    again = told(ask("submit sweeps.py:four --cluster local"))
    assert again == "4 cells, 0 to submit\n  4 recorded in runs\n"
    assert tree() == before
    assert "4 cells: 4 done" in told(ask("status sweeps.py:four"))
    told(ask("run sweeps.py:four --out by_hand"))
    assert [comparable(record) for record in records("runs")] == [comparable(record) for record in records("by_hand")]
    (submission,), _ = submissions.read_all(here / "runs")
    assert submission.originals == (here / "sweeps.py",)
    assert (submission.code / "user" / "0" / "sweeps.py").read_text() == (here / "sweeps.py").read_text()


def test_what_was_cancelled_is_resumed_with_the_code_of_then_and_what_fails_is_retried(ask: Ask, here: Path) -> None:
    (here / "hold").touch()
    (here / "fail").write_text("2")
    (here / "clusters.toml").write_text("[local]\nslots = 2\n")
    assert "submitted 4 cells in 2 jobs" in told(ask("submit sweeps.py:four --cluster local"))
    wait_for(lambda: (here / "runs_of").exists() and len((here / "runs_of").read_text().split()) == 2)
    assert told(ask("submit sweeps.py:four --cluster local")).splitlines()[0] == "4 cells, 0 to submit"
    assert "nothing to submit: no cell was dropped or cancelled" in told(ask("resume"))
    assert "--only nothing: no cell holds this; the first is called" in refused(ask, "cancel --only nothing")
    # Two cells share each job.
    assert told(ask("cancel --only 'counting 0'")) == "cancelled: 1 job with 2 unfinished cells\n"
    told(ask("cancel"))
    wait_for(ended(here / "runs"))
    assert records() == []
    assert told(ask("cancel sweeps.py:four")) == "cancelled: 0 jobs with 0 unfinished cells\n"
    assert "attention-bench resume submits it again" in told(ask("status --all"))

    text = (here / "sweeps.py").read_text()
    (here / "sweeps.py").write_text("raise RuntimeError('edited since')")
    (here / "hold").unlink()
    assert "submitted 4 cells in 2 jobs" in told(ask("resume sweeps.py:four"))
    wait_for(lambda: len(records()) == 4)
    wait_for(ended(here / "runs"))
    assert sorted(record.status for record in records()) == ["done", "done", "done", "failed"]
    assert "nothing to submit: no cell was dropped or cancelled" in told(ask("resume"))

    (here / "sweeps.py").write_text(text)
    (here / "fail").write_text("")
    refusal = told(ask("submit sweeps.py:four --cluster local"))
    assert "1 failed: attention-bench retry --failed resubmits them" in refusal
    assert "submitted 1 cell in 1 job" in told(ask("retry --failed"))
    wait_for(lambda: [record.status for record in records()] == ["done"] * 4)
    wait_for(ended(here / "runs"))
    assert "nothing to submit: no cell has failed" in told(ask("retry --failed"))
    assert (here / "runs_of").read_text().split().count("2") in (2, 3)
