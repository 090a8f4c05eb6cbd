"""Which cells are submitted, in which order that is written down, and what is cancelled; Slurm is a stand-in."""

import os
import pickle
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

import results
import slurm as slurm_package
from attentions import load_file
from backbones import preset
from harness.cells import MICRO, Cell, DataSource, Runtime, Speed, Train
from harness.jobs import launch, submissions
from harness.jobs.cancelling import withdraw
from harness.jobs.launch import Choice, look_for, planned
from harness.jobs.lock import submission_lock
from harness.jobs.resubmit import cells_of, resubmit
from harness.jobs.states import CellState, State
from harness.jobs.submissions import FILE, Submission
from harness.jobs.work import CellsJob
from harness.process.waiting import IN_SHELL, wait_policy
from harness.training import checkpoints
from slurm import Cluster, Resources, SlurmUnreachable, Unconfirmed
from slurm.limits import Limits
from slurm.scontrol import Node
from tests.harness import submitted
from tests.harness.planted import FASHION, record
from tests.harness.processes import PATIENCE, SERVER
from tests.harness.submitted import NOON, Slurm, job, submit

Make = Callable[..., Cell]
GPU = Cluster("gpu", cpus_per_task=1)
LOCAL = Cluster("local")


def training(seed: int = 0, data: DataSource = FASHION) -> Cell:
    return Cell(preset("deit_micro"), Train(MICRO, data, seed=seed))


def speed_on_gpu() -> Cell:
    return Cell(preset("deit_micro"), Speed(Runtime(device="cuda")))


def choose(cells: Sequence[Cell], out: Path, *, failed: bool = False) -> Choice:
    return launch.choose(cells, look_for(cells, out), failed=failed)


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Slurm:
    return Slurm(monkeypatch)


@pytest.fixture
def out(tmp_path: Path, slurm: Slurm) -> Path:
    return tmp_path / "runs"


def line(action: Callable[[], object]) -> str:
    """Of a refusal."""
    with pytest.raises(ValueError) as refusal:
        action()
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


# Which cells


def plant(out: Path, slurm: Slurm, cell: Cell, state: str) -> None:
    """Leaves the cell in a state."""
    if state in ("done", "oom", "failed", "failed-by-hand"):
        results.write(out, record(cell, {}, status=state.removesuffix("-by-hand")))
    if state in ("unsubmitted", "failed-by-hand"):
        return
    submission = submit(out, "s", [{cell.key: cell.label}])
    if state == "running":
        submitted.attempt(out, cell.key, job="70")
        slurm.tell(job(submission, 0, "RUNNING"))
    if state in ("pending", "cancelled"):
        slurm.tell(job(submission, 0, state.upper()))


@pytest.mark.parametrize(
    ("state", "submit_", "retry"),
    [
        ("unsubmitted", True, False),
        ("dropped", True, False),
        ("cancelled", True, False),
        ("done", False, False),
        ("running", False, False),
        ("pending", False, False),
        ("failed", False, True),
        ("failed-by-hand", True, True),
        ("oom", False, False),
    ],
)
def test_which_cells_are_chosen(
    out: Path, slurm: Slurm, counting: Make, state: str, submit_: bool, retry: bool
) -> None:
    cell = counting()
    plant(out, slurm, cell, state)
    for failed, wanted in ((False, submit_), (True, retry)):
        found = choose([cell], out, failed=failed)
        assert found.cells == [cell] * wanted
        assert found.states[cell.key].state == state.removesuffix("-by-hand")


def test_a_training_that_ran_out_of_memory_may_be_split_otherwise(out: Path, slurm: Slurm) -> None:
    plant(out, slurm, training(), "oom")
    assert choose([training()], out).cells == []
    assert choose([training()], out, failed=True).cells == [training()]


def test_where_slurm_does_not_answer_nothing_is_submitted_twice(out: Path, slurm: Slurm, counting: Make) -> None:
    cell, other = counting(), counting("linear")
    plant(out, slurm, cell, "pending")
    slurm.unreachable = "squeue: Unable to contact slurm controller"
    said = line(lambda: choose([cell, other], out))
    assert said == "squeue: Unable to contact slurm controller; some of the cells were submitted, and may be running"
    assert choose([other], out).cells == [other], "of which nothing was submitted"
    results.write(out, record(cell, {}))
    assert choose([cell, other], out).cells == [other], "a record is a record"


def test_what_went_to_another_cluster_of_the_site_is_not_submitted_again(
    out: Path, slurm: Slurm, counting: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = counting()
    plant(out, slurm, cell, "pending")
    (submission,), _ = submissions.read_all(out)
    assert submission.slurm_cluster is None, "as submissions were before this was noted"
    monkeypatch.setenv("SLURM_CLUSTERS", "north")
    assert choose([cell], out).states[cell.key].state == "pending"
    for noted, how in (("", "unset SLURM_CLUSTERS and SBATCH_CLUSTERS"), ("south", "set SLURM_CLUSTERS=south")):
        replace(submission, slurm_cluster=noted).write()
        said = line(lambda: choose([cell], out))
        assert said == (
            f"{submission.id} was submitted to another of the site's clusters: {how}; "
            "some of the cells were submitted, and may be running"
        )
    replace(submission, slurm_cluster="north").write()
    assert choose([cell], out).states[cell.key].state == "pending"


@pytest.mark.parametrize("text", ["", "{}", '{"sweep": '])
def test_a_damaged_submission_may_be_at_work(out: Path, slurm: Slurm, counting: Make, text: str) -> None:
    plant(out, slurm, counting(), "pending")
    (path,) = out.glob(f"*/*/{FILE}")
    path.write_text(text)
    said = line(lambda: choose([counting("linear")], out))
    assert said.startswith(f"{path}: not the file of a submission")
    assert said.endswith("what it submitted may be running; mend or remove its folder")


def test_what_another_job_makes_is_waited_for(out: Path, slurm: Slurm) -> None:
    plant(out, slurm, training(), "pending")
    found = choose([training().evaluation()], out)
    assert found.waited_for == {training().key: "70"}
    assert found.cells == [training().evaluation()]
    assert list(found.states) == [training().evaluation().key], "the training was not asked for"
    both = choose([training().evaluation(), training()], out)
    assert both.cells == [training().evaluation()]
    assert both.waited_for == {training().key: "70"}


def test_what_the_same_submission_makes_is_no_other_job(out: Path) -> None:
    found = choose([training().evaluation(), training()], out)
    assert found.waited_for == {}
    assert len(found.cells) == 2


def test_what_is_done_is_not_waited_for(out: Path) -> None:
    results.write(out, record(training(), {}))
    results.write_text(checkpoints.path_of(out / training().key, 3), "")
    found = choose([training().evaluation()], out)
    assert (found.cells, found.waited_for) == ([training().evaluation()], {})


@pytest.mark.parametrize(("state", "said"), [("unsubmitted", "is not recorded"), ("failed", "failed")])
def test_weights_that_nobody_makes_are_one_line(out: Path, slurm: Slurm, state: str, said: str) -> None:
    plant(out, slurm, training(), state)
    refusal = line(lambda: choose([training().evaluation()], out))
    assert refusal.startswith(f"deit_micro evaluate needs the training deit_micro softmax(fused=True) {FASHION.name}")
    assert said in refusal
    assert refusal.endswith("nor is that training among the cells to run")


def test_what_a_process_of_this_machine_makes_cannot_be_waited_for(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number is no job's of Slurm's."""
    here = submit(out, "s", [{training().key: training().label}], id="4711", cluster="local")
    submitted.attempt(out, training().key, job="4711")
    monkeypatch.setattr(slurm_package, "local_job", lambda name, index, id: job(here, 0, "RUNNING"))
    assert choose([training()], out).states[training().key].state == "running"
    said = line(lambda: choose([training().evaluation()], out))
    assert said.endswith("nor is that training among the cells to run")


def submit_nothing(id: str | None) -> Submission:
    array = submissions.Array("s", [["k"]], {}, [], id)
    return Submission(Path("/"), "s", LOCAL, NOON, Path("/"), (), (), {}, {}, [array])


def test_a_training_whose_record_was_removed_does_not_matter_to_what_is_done(out: Path) -> None:
    results.write(out, record(training().evaluation(), {}))
    found = choose([training().evaluation()], out)
    assert found.cells == []
    assert [state.state for state in found.states.values()] == ["done"]


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_images_that_are_not_there_are_said_now(out: Path, tmp_path: Path, kind: str) -> None:
    """Of a folder that is seen here: others may lie on the nodes."""
    photos = tmp_path / "photos"
    cell = training(data=DataSource.folder(photos))
    results.write(out, record(cell, {}))
    results.write_text(checkpoints.path_of(out / cell.key, 3), "")
    cells = [cell.evaluation()] if kind == "evaluate" else [training(1, cell.task.data)]  # type: ignore[union-attr]
    assert choose(cells, out).cells == cells
    # Another split than the one that is needed; for a training the first of two is enough to say so.
    (photos / "train" if kind == "evaluate" else photos / "val").mkdir(parents=True)
    assert str(photos) in line(lambda: choose(cells, out))


# What would be submitted


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition with one node of 8 CPUs, and arrays of at most 3."""
    node = Node("n1", frozenset({"p"}), (), 8, 64000, frozenset())
    monkeypatch.setattr(slurm_package, "limits_of", lambda cluster: Limits("p", "UP", 600, None, (node,), 0, 3))


def test_arrays_are_split_and_what_could_never_run_is_refused(out: Path, limits: None, counting: Make) -> None:
    cells = [counting("linear", str(number)) for number in range(7)]
    chosen = choose(cells, out)
    found = planned(chosen, replace(GPU, pack=1))
    assert [len(array) for array in found] == [2, 2, 3]
    assert "9 CPUs per node" in line(lambda: planned(chosen, replace(GPU, cpus_per_task=9)))
    assert "minutes=601" in line(lambda: planned(chosen, replace(GPU, minutes=601)))


def test_each_kind_of_job_is_looked_at(out: Path, limits: None, counting: Make) -> None:
    big = replace(GPU, tasks_per_node=4, cpus_per_task=3)
    assert planned(choose([counting()], out), big)
    said = line(lambda: planned(choose([counting(), training()], out), big))
    assert "12 CPUs per node" in said


def test_on_this_machine_slurm_is_not_asked_and_cuda_must_be_there(
    out: Path, monkeypatch: pytest.MonkeyPatch, counting: Make
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert len(planned(choose([counting()], out), LOCAL)) == 1
    said = line(lambda: planned(choose([speed_on_gpu()], out), LOCAL))
    assert said == "device cuda was asked for, but torch finds no CUDA device here; allowed: cpu"


def test_on_this_machine_nothing_waits_for_a_job_of_slurms(out: Path, slurm: Slurm, limits: None) -> None:
    plant(out, slurm, training(), "pending")
    chosen = choose([training().evaluation()], out)
    assert planned(chosen, GPU)[0][0].after == (training().key,)
    said = line(lambda: planned(chosen, LOCAL))
    assert said.startswith("some cells need trainings that are not finished (job 70)")


def test_a_disturbed_record_is_submitted_again_when_asked_for(
    out: Path, limits: None, sbatch: "Sbatch", counting: Make
) -> None:
    cell, quiet = counting("linear"), counting("softmax")
    disturbed = record(cell, {"infer_disturbed": "others"})
    results.write(out, disturbed)
    results.write(out, record(quiet, {"infer_disturbed": None}))
    look = look_for([cell, quiet], out)
    assert [launch.choose([cell, quiet], look, retry_disturbed=retry).cells for retry in (False, True)] == [[], [cell]]

    def submit_again(retry: bool) -> list[Cell]:
        return launch.submit_alone([cell], GPU, out, "s", lambda text: None, retry_disturbed=retry)[0].cells

    assert submit_again(False) == []
    sbatch.refuses_at = 0
    assert line(lambda: submit_again(True)) == "Slurm refuses the job: planted"
    assert results.read(out / f"{cell.key}.json") == disturbed
    sbatch.refuses_at = None
    assert submit_again(True) == [cell]
    # The job finds no record, and so measures.
    assert sbatch.works[0][0]._left() == [cell]


# Submitting


class Sbatch:
    """In place of Slurm's: what it was given, and what stood on the disk at that moment."""

    def __init__(self, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.out = out
        self.calls: list[dict[str, Any]] = []
        self.works: list[list[CellsJob]] = []
        self.seen: list[list[str | None]] = []
        self.refuses_at: int | None = None
        self.refusal = ValueError("Slurm refuses the job: planted")
        monkeypatch.setattr(slurm_package, "submit_array", self._array)
        monkeypatch.setattr(slurm_package, "submit_local", self._local)
        self.code = out.resolve() / submissions.FOLDER / submissions.CODE / "now"
        monkeypatch.setattr(launch, "_code", lambda out: (self.code, (), (Path("/u"),)))

    def _array(self, works: Sequence[CellsJob], **how: Any) -> str:
        (found,) = (each for each in submissions.read_all(self.out)[0] if each.folder == how["folder"])
        assert len(pickle.loads((found.folder / submissions.CELLS).read_bytes())) == len(found.cells)
        self.seen.append([array.id for array in found.arrays])
        if self.refuses_at == len(self.calls):
            raise self.refusal
        self.calls.append(how)
        self.works.append(list(works))
        return str(90 + len(self.calls) - 1)

    def _local(self, works: Sequence[CellsJob], **how: Any) -> str:
        return self._array(works, **how)

    def submit(self, choice: Choice, cluster: Cluster, like: Submission | None = None) -> Submission:
        return launch.submit(choice, planned(choice, cluster), cluster, self.out, "sweeps.py:ten", like)


@pytest.fixture
def sbatch(out: Path, limits: None, monkeypatch: pytest.MonkeyPatch) -> Sbatch:
    return Sbatch(out, monkeypatch)


def ten(counting: Make) -> list[Cell]:
    return [counting("linear", str(number)) for number in range(10)]


def test_all_is_written_before_anything_is_submitted_and_each_id_after_its_array(
    out: Path, sbatch: Sbatch, counting: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = ten(counting)
    cluster = replace(GPU, pack=2, memory_per_cpu_gb=0.5, setup=("set -e",), sbatch={"nice": 1, "contiguous": True})
    monkeypatch.setenv("SLURM_CLUSTERS", "north")
    made = sbatch.submit(choose(cells, out), cluster)
    assert made.slurm_cluster == "north"
    assert sbatch.seen == [[None, None], ["90", None]]
    assert submissions.read_all(out) == ([made], [])
    assert [array.id for array in made.arrays] == ["90", "91"]
    assert [call["name"] for call in sbatch.calls] == [f"{made.id}.0", f"{made.id}.1"]
    assert [len(works) for works in sbatch.works] == [2, 3]
    held = [keys for _, _, keys in made.jobs()]
    assert held == [[cell.key for cell in work.cells()] for works in sbatch.works for work in works]
    assert made.cells == {cell.key: cell.label for cell in cells}
    with pytest.raises(
        ValueError, match=r"the code that sweep sweeps.py:ten was submitted with is gone .*submit it again"
    ):
        cells_of(made, as_now=False)
    sbatch.code.mkdir(parents=True)
    assert cells_of(made, as_now=False) == cells
    work = sbatch.works[0][0]
    assert (work.out, sbatch.calls[0]["code"]) == (out, sbatch.code)
    assert sbatch.calls[0]["cluster"].name == "gpu"
    assert sbatch.calls[0]["resources"] == Resources(1, 1, 1, 0, 240, memory_per_cpu_gb=0.5)
    assert sbatch.calls[0]["exports"] == [IN_SHELL]


def test_what_slurm_refuses_at_once_leaves_nothing(out: Path, sbatch: Sbatch, counting: Make) -> None:
    sbatch.refuses_at = 0
    assert line(lambda: sbatch.submit(choose(ten(counting), out), GPU)) == "Slurm refuses the job: planted"
    assert submissions.read_all(out) == ([], [])
    assert list((out / submissions.FOLDER).iterdir()) == []


def test_what_it_refuses_later_says_how_much_is_submitted_and_keeps_it(
    out: Path, slurm: Slurm, sbatch: Sbatch, counting: Make
) -> None:
    cells = ten(counting)
    sbatch.refuses_at = 2
    said = line(lambda: sbatch.submit(choose(cells, out), replace(GPU, pack=1)))
    assert said == "Slurm refuses the job: planted; 2 of 4 arrays are submitted: the same command submits the others"
    (found,), _ = submissions.read_all(out)
    assert [array.id for array in found.arrays] == ["90", "91", None, None]
    first, second, *_ = found.arrays
    jobs = [
        replace(job(replace(found, arrays=[array]), index, "PENDING"), name=array.name)
        for array in (first, second)
        for index in range(len(array.jobs))
    ]
    slurm.tell(*jobs)
    held = {key for array in (first, second) for keys in array.jobs for key in keys}
    assert {cell.key for cell in choose(cells, out).cells} == {cell.key for cell in cells} - held


def test_what_may_be_queued_all_the_same_is_kept_and_asked_for_by_its_name(
    out: Path, slurm: Slurm, sbatch: Sbatch, counting: Make
) -> None:
    """Submitted again only where Slurm answers that there is no such job."""
    cells = ten(counting)
    sbatch.refuses_at, sbatch.refusal = 1, Unconfirmed("sbatch: planted")
    said = line(lambda: sbatch.submit(choose(cells, out), replace(GPU, pack=1)))
    assert said.startswith("sbatch: planted; 1 of 4 arrays are submitted: the same command asks for the next one again")
    (found,), _ = submissions.read_all(out)
    assert [array.id for array in found.arrays] == ["90", None, None, None]
    first, second, *others = found.arrays
    queued = [
        replace(job(replace(found, arrays=[replace(array, id=id)]), index, "PENDING"), name=array.name)
        for array, id in ((first, "90"), (second, "91"))
        for index in range(len(array.jobs))
    ]
    slurm.unreachable = "squeue: planted"
    assert line(lambda: choose(cells, out)).endswith("may be running")
    slurm.unreachable = None
    slurm.tell(*queued)
    states = {state.key: state for state in look_for(cells, out).standing.cells}
    assert [states[key].job for (key,) in second.jobs] == [f"91_{index}" for index in range(len(second.jobs))]
    left = {key for array in others for (key,) in array.jobs}
    assert {cell.key for cell in choose(cells, out).cells} == left
    slurm.tell(*queued[: len(first.jobs)])
    assert {cell.key for cell in choose(cells, out).cells} == left | {key for (key,) in second.jobs}


def test_the_first_that_may_be_queued_is_kept_too(out: Path, sbatch: Sbatch, counting: Make) -> None:
    sbatch.refuses_at, sbatch.refusal = 0, Unconfirmed("sbatch: planted")
    assert "0 of 1 arrays are submitted" in line(lambda: sbatch.submit(choose([counting()], out), GPU))
    (found,), _ = submissions.read_all(out)
    assert [array.id for array in found.arrays] == [None]


def test_a_dependency_is_the_job_of_the_training(out: Path, slurm: Slurm, sbatch: Sbatch) -> None:
    plant(out, slurm, training(7), "pending")
    chosen = choose([training(7).evaluation(), training(0).evaluation(), training(0), training(1)], out)
    made = sbatch.submit(chosen, GPU)
    assert [len(array.jobs) for array in made.arrays] == [1, 2, 1]
    assert [work.cells() for work in sbatch.works[0]] == [[training(7).evaluation()]]
    assert [call["after"] for call in sbatch.calls] == [["70"], [], ["91_0"]]


def test_what_had_failed_before_is_told_to_the_jobs(out: Path, sbatch: Sbatch, counting: Make) -> None:
    results.write(out, record(counting(), {}, status="failed"))
    made = sbatch.submit(choose([counting(), counting("linear")], out), GPU)
    assert made.failed == {counting().key: "2026-01-01T00:00:00+00:00"}
    assert sbatch.works[0][0].failed == made.failed
    assert sbatch.works[0][0].left() == f"{counting().label} and 1 more"


def test_like_another_it_takes_the_code_of_then(out: Path, sbatch: Sbatch, counting: Make) -> None:
    then = replace(
        submit_nothing("60"), code=Path("/code/then"), files=(Path("/code/then/u"),), originals=(Path("/v"),)
    )
    made = sbatch.submit(choose([counting()], out), GPU, like=then)
    assert (made.code, made.files, made.originals) == (then.code, then.files, then.originals)
    assert sbatch.calls[0]["code"] == then.code
    assert sbatch.works[0][0].files == then.files


def test_on_this_machine_a_process_has_its_share_of_cores_and_a_gpu_if_any_of_its_cells_wants_one(
    out: Path, sbatch: Sbatch, counting: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "cores", lambda: 9)
    monkeypatch.setattr("harness.jobs.plan.cores", lambda: 2)
    sbatch.submit(choose(ten(counting), out), LOCAL)
    assert [(call["cpus"], call["gpus"]) for call in sbatch.calls] == [(4, []), (4, [])]
    assert [call["variables"] for call in sbatch.calls] == [wait_policy(os.environ)] * 2
    assert [len(works) for works in sbatch.works] == [5, 5]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    sbatch.calls.clear()
    # The first cell of the first process needs no GPU, its second does.
    cells = [counting(), counting("focused"), speed_on_gpu()]
    sbatch.submit(choose(cells, out), LOCAL)
    assert [call["gpus"] for call in sbatch.calls] == [["6"], []]


def test_a_folder_that_cannot_be_written_is_one_line(out: Path, sbatch: Sbatch, counting: Make) -> None:
    chosen = choose([counting()], out)
    out.write_text("")
    assert line(lambda: sbatch.submit(chosen, GPU)).startswith(f"cannot write {out}/submissions/")


# Cells of a former submission


def test_cells_that_cannot_be_read_are_one_line(out: Path, counting: Make) -> None:
    made = submit(out, "ten", [{"k": "K"}])
    for content in (None, b"", pickle.dumps([counting()])[:-20], b"nothing"):
        if content is not None:
            (made.folder / submissions.CELLS).write_bytes(content)
        said = line(lambda: cells_of(made, as_now=False))
        assert said.startswith(f"{made.folder / submissions.CELLS} cannot be read: ")


@pytest.mark.usefixtures("users_files")
def test_tasks_that_have_changed_since_are_said_and_the_copy_still_has_them(out: Path, tmp_path: Path) -> None:
    text = "class Mine:\n    def __eq__(self, other): return type(other) is type(self)\n"
    original, copy = tmp_path / "now" / "mine.py", tmp_path / "then" / "mine.py"
    for path in (original, copy):
        path.parent.mkdir()
        path.write_text(text + f"# {tmp_path}\n")
    module = load_file(original)
    made = replace(submit(out, "ten", [{"k": "K"}]), files=(copy,), originals=(original,))
    (made.folder / submissions.CELLS).write_bytes(pickle.dumps([module.Mine()]))
    assert cells_of(made, as_now=True) == [module.Mine()]
    # As another process finds it.
    del sys.modules[module.__name__]
    original.write_text(f"# nothing of {tmp_path}\n")
    said = line(lambda: cells_of(made, as_now=True))
    assert said.startswith("the tasks of sweep ten have changed since it was submitted (")
    (found,) = cells_of(made, as_now=False)
    assert type(found).__name__ == "Mine"
    copy.unlink()
    assert "there is no Python file" in line(lambda: cells_of(made, as_now=False))


# Resubmitting


def dropped(out: Path, sweep: str, created: float, *cells: Cell) -> Submission:
    """A submission that Slurm has forgotten."""
    made = submit(out, sweep, [{cell.key: cell.label for cell in cells}], id="60", created=created)
    (made.folder / submissions.CELLS).write_bytes(pickle.dumps(list(cells)))
    return made


def resumed(out: Path, sweep: str | None = None) -> list[Submission]:
    found: list[Submission] = []
    resubmit(sweep, out, failed=False, warn=print, on_release=print, on_submit=found.append)
    return found


def test_however_many_submissions_are_resumed_slurm_is_asked_twice(
    out: Path, slurm: Slurm, sbatch: Sbatch, counting: Make
) -> None:
    """Once to refuse before the lock, and once under it."""
    cells = ten(counting)[:5]
    for number, cell in enumerate(cells):
        dropped(out, f"s{number}", NOON + number, cell)
    assert [each.sweep for each in resumed(out)] == ["s0", "s1", "s2", "s3", "s4"]
    assert slurm.asked == 2


def test_each_record_is_read_once_a_look(
    out: Path, sbatch: Sbatch, counting: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = ten(counting)[:3]
    for number, cell in enumerate(cells):
        dropped(out, f"s{number}", NOON + number, cell)
    done = counting()
    submit(out, "done", [{done.key: done.label}], created=NOON + 9)
    results.write(out, record(done, {}))
    read: list[str] = []
    original = results.read

    def noted(path: Path) -> results.Record:
        read.append(path.stem)
        return original(path)

    monkeypatch.setattr(results, "read", noted)
    resumed(out)
    assert read.count(done.key) == 2
    # A second time after Slurm was asked: the job may have written it meanwhile.
    assert [read.count(cell.key) for cell in cells] == [4, 4, 4]


def test_what_is_resumed_waits_for_a_training_that_is_resumed_before_it(
    out: Path, slurm: Slurm, sbatch: Sbatch
) -> None:
    dropped(out, "first", NOON, training())
    dropped(out, "second", NOON + 1, training().evaluation())
    made = resumed(out)
    assert [each.sweep for each in made] == ["first", "second"]
    assert [call["after"] for call in sbatch.calls] == [[], ["90"]]
    assert slurm.asked == 2


def test_a_training_of_another_sweep_is_waited_for_and_not_resumed(out: Path, slurm: Slurm, sbatch: Sbatch) -> None:
    other = submit(out, "other", [{training().key: training().label}], created=NOON)
    slurm.tell(job(other, 0, "PENDING"))
    dropped(out, "mine", NOON + 1, training().evaluation())
    assert [each.sweep for each in resumed(out, "mine")] == ["mine"]
    assert [call["after"] for call in sbatch.calls] == [["70"]]
    assert slurm.asked == 2


def test_one_submit_asks_slurm_once_before_the_lock_and_once_under_it(
    out: Path, slurm: Slurm, sbatch: Sbatch, counting: Make
) -> None:
    cells = ten(counting)
    dropped(out, "ten", NOON, *cells)
    choice, made = launch.submit_alone(cells, GPU, out, "ten", print)
    assert made is not None
    assert made.submitted == {cell.key for cell in choice.cells} == {cell.key for cell in cells}
    assert slurm.asked == 2


def test_what_may_not_fit_is_submitted_if_asked_and_resumed_without_being_asked(
    out: Path, slurm: Slurm, sbatch: Sbatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_package, "check_fits", lambda cluster, limits, resources: None)  # the node has no GPU
    cells, small, said = [speed_on_gpu()], Cluster("gpu", gpus_per_node=1, gpu_memory_gb=1.001), list[str]()
    assert "submit --ignore-memory submits it all the same" in line(
        lambda: launch.submit_alone(cells, small, out, "big", said.append)
    )
    _, made = launch.submit_alone(cells, small, out, "big", said.append, ignore_memory=True)
    assert made is not None
    assert made.submitted == {cells[0].key}
    (text,) = said
    assert text.endswith("(estimated, unchecked on CUDA): submitted all the same")
    made.code.mkdir(parents=True)
    assert [each.sweep for each in resumed(out, "big")] == ["big"]


# Cancelling


@pytest.fixture
def cancelled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(slurm_package, "cancel", lambda ids: found.append(("slurm", list(ids))))
    monkeypatch.setattr(slurm_package, "cancel_local", lambda ids: found.append(("local", list(ids))))
    return found


def state(key: str, how: State, job: str | None = None) -> CellState:
    return CellState(key, key.upper(), how, job=job)


def test_the_jobs_of_live_cells_are_cancelled_and_no_others(out: Path, cancelled: list[tuple[str, list[str]]]) -> None:
    known = [
        submit(out, "s", [{"a": "A", "b": "B"}, {"c": "C"}, {"d": "D"}]),
        submit(out, "t", [{"e": "E"}], id="4711", cluster="local"),
        submit(out, "u", [{"f": "F"}], id="80"),
    ]
    stand = [
        state("a", "done"),
        state("b", "pending", "70_0"),
        state("c", "running", "70_1"),
        state("d", "cancelled", "70_2"),
        state("e", "running", "4711"),
        state("f", "failed", "80"),
    ]
    assert withdraw(stand, known) == ["70_0", "70_1", "4711"]
    assert cancelled == [("slurm", ["70_0", "70_1"]), ("local", ["4711"])]


def test_a_job_whose_id_was_never_written_down_is_cancelled_by_what_slurm_says(
    out: Path, cancelled: list[tuple[str, list[str]]]
) -> None:
    known = [submit(out, "s", [{"a": "A"}], id=None)]
    assert withdraw([state("a", "pending", "71")], known) == ["71"]
    assert cancelled[0] == ("slurm", ["71"])
    assert submissions.read_all(out)[0][0].cancelled == ["a"]


def test_where_nothing_is_live_slurm_is_not_asked(out: Path, cancelled: list[tuple[str, list[str]]]) -> None:
    assert withdraw([state("a", "done")], [submit(out, "s", [{"a": "A"}])]) == []
    assert cancelled == [("local", [])]


def test_a_slurm_that_does_not_answer_cancels_nothing_silently(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SlurmUnreachable):
        withdraw([state("a", "pending", "70")], [submit(out, "s", [{"a": "A"}])])


# One shell at a time


def one_after_the_other(out: Path, log: Path) -> None:
    with submission_lock(out, print):
        for word in ("begins", "ends"):
            with open(log, "a") as stream:
                stream.write(f"{word}\n")
            time.sleep(0.15)


def test_two_shells_submit_one_after_the_other(tmp_path: Path) -> None:
    arguments = (tmp_path / "runs", tmp_path / "log")
    shells = [SERVER.Process(target=one_after_the_other, args=arguments) for _ in range(3)]
    for shell in shells:
        shell.start()
    for shell in shells:
        shell.join(PATIENCE)
    assert [shell.exitcode for shell in shells] == [0, 0, 0]
    assert (tmp_path / "log").read_text().split() == ["begins", "ends"] * 3


def hold(out: Path, told: Connection) -> None:
    with submission_lock(out, print):
        told.send("held")
        time.sleep(PATIENCE)


def test_a_second_shell_is_told_that_it_waits_and_continues_when_the_first_is_killed(tmp_path: Path) -> None:
    here, there = SERVER.Pipe()
    shell = SERVER.Process(target=hold, args=(tmp_path, there))
    shell.start()
    assert here.recv() == "held"
    told: list[str] = []

    def warn(line: str) -> None:
        told.append(line)
        shell.kill()

    with submission_lock(tmp_path, warn):
        assert told == [f"another command is submitting or cancelling in {tmp_path}: this one continues when it ends"]
    with submission_lock(tmp_path, told.append):
        assert len(told) == 1, "nobody is waited for"


def test_an_output_folder_that_cannot_be_written_is_one_line_and_other_errors_stay_what_they_are(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()

    def enter(out: Path, error: Exception | None = None) -> None:
        with submission_lock(out, print):
            if error is not None:
                raise error

    assert line(lambda: enter(tmp_path / "file")).startswith(f"cannot write to the output folder {tmp_path}/file: ")
    with pytest.raises(FileNotFoundError, match="planted"):
        enter(tmp_path / "runs", FileNotFoundError("planted"))
    enter(tmp_path / "runs")
