"""The log of a cell: which file it is, whose cell is meant, what is said where there is none, and following it."""

import io
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from harness.jobs.submissions import Submission
from harness.status import logs
from tests.harness.submitted import NOON, Slurm, attempt, job, record, submit


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Slurm:
    return Slurm(monkeypatch)


def shown(cell: str, out: Path, *, follow: bool = False, rank: int = 0) -> tuple[int, str]:
    stream = io.StringIO()
    status = logs.show_logs(cell, out, Console(file=stream, width=40, highlight=False), print, follow=follow, rank=rank)
    return status, stream.getvalue()


def log(submission: Submission, name: str, text: str) -> Path:
    path = submission.folder / "logs" / f"{name}_log.out"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_the_log_of_the_job_is_printed_as_it_is(tmp_path: Path, slurm: Slurm) -> None:
    made = submit(tmp_path, "mine", [{"a1": "cell one"}, {"b2": "cell two"}])
    text = "[1/1] cell two [bold] :smile:\n" + "x" * 100 + "\n\x1b[31mred\x1b[0m 3 %\r4 %"
    log(made, "70_0_0", "of another\n")
    log(made, "70_1_0", text)
    attempt(tmp_path, "b2", job="70_1", ended="done")
    record(tmp_path, "b2")
    assert shown("b2", tmp_path) == (0, text)
    assert slurm.asked == 0


def test_a_single_job_has_no_index_and_a_rank_has_a_log_of_its_own(tmp_path: Path, slurm: Slurm) -> None:
    made = submit(tmp_path, "mine", [{"a1": "cell one"}], processes=2)
    log(made, "70_0", "first\n")
    log(made, "70_1", "second\n")
    assert shown("a1", tmp_path) == (0, "first\n")
    assert shown("a1", tmp_path, rank=1) == (0, "second\n")
    for rank in (-1, 2):
        with pytest.raises(
            ValueError, match=rf"--rank {rank}: allowed: 0 to 1, as the job of this cell has 2 processes$"
        ):
            shown("a1", tmp_path, rank=rank)


def test_the_newest_submission_that_has_a_log_speaks(tmp_path: Path, slurm: Slurm) -> None:
    older = submit(tmp_path, "mine", [{"a1": "cell one"}], id="70")
    newer = submit(tmp_path, "mine", [{"a1": "cell one"}], id="71", created=NOON + 60)
    log(older, "70_0", "older\n")
    assert shown("a1", tmp_path) == (0, "older\n")
    log(newer, "71_0", "newer\n")
    assert shown("a1", tmp_path) == (0, "newer\n")


def test_a_job_whose_id_was_not_written_down_is_known_from_its_attempt(tmp_path: Path, slurm: Slurm) -> None:
    made = submit(tmp_path, "mine", [{"a1": "cell one"}, {"b2": "cell two"}], id=None)
    log(made, "70_1_0", "found\n")
    attempt(tmp_path, "b2", job="70_1")
    assert shown("b2", tmp_path) == (0, "found\n")


def test_a_cell_that_was_isolated_by_hand_has_its_log_in_the_output_folder(tmp_path: Path, slurm: Slurm) -> None:
    attempt(tmp_path, "a1", job="4711")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "4711_0_log.out").write_text("apart\n")
    assert shown("a1", tmp_path) == (0, "apart\n")


@pytest.mark.parametrize("name", ["a1", "a1b2", "a1b2c3d4", "swin one", "swin x(p=3) one", "swin x one", "(p=3) one"])
def test_a_cell_is_named_by_digits_of_its_key_or_a_part_of_its_name(tmp_path: Path, slurm: Slurm, name: str) -> None:
    labels = {"a1b2c3d4": "swin x(p=3) one", "a2b2c3d4": "swin x(p=3) two", "a3b2c3d4": "swin one"}
    made = submit(tmp_path, "mine", [{key: label} for key, label in labels.items()])
    for index, label in enumerate(labels.values()):
        log(made, f"70_{index}_0", label)
    wanted = "swin one" if name == "swin one" else "swin x(p=3) one"
    assert shown(name, tmp_path) == (0, wanted)


def test_a_name_of_several_cells_or_none_is_refused_in_a_line(tmp_path: Path) -> None:
    submit(tmp_path, "mine", [{f"a{index}": f"swin seed {index}" for index in range(7)}])
    with pytest.raises(ValueError, match="7 cells") as refused:
        shown("swin", tmp_path)
    assert re.findall(r"a\d swin seed \d", str(refused.value)) == [f"a{n} swin seed {n}" for n in range(5)]
    assert str(refused.value).endswith(" and 2 more")
    with pytest.raises(ValueError, match=r"no cell submitted or started in .* 'pvt'"):
        shown("pvt", tmp_path)
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere"):
        shown("pvt", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("state", "reason", "said"),
    [
        ("PENDING", "Resources", "cell one: pending: waits until enough nodes or GPUs are free\n"),
        ("CANCELLED", "", "cell one: cancelled: cancelled; attention-bench resume submits it again\n"),
    ],
)
def test_a_cell_that_has_not_begun_says_what_it_waits_for(
    tmp_path: Path, slurm: Slurm, state: str, reason: str, said: str
) -> None:
    made = submit(tmp_path, "mine", [{"a1": "cell one"}])
    slurm.tell(job(made, 0, state, reason))
    assert shown("a1", tmp_path) == (1, said)


@pytest.mark.parametrize("follow", [False, True])
def test_a_cell_run_by_hand_has_no_log_and_it_is_said_where_it_spoke(
    tmp_path: Path, slurm: Slurm, follow: bool
) -> None:
    attempt(tmp_path, "a1", label="cell one", text="counting")
    status, text = shown("a1", tmp_path, follow=follow)
    assert status == 1
    first, second = text.splitlines()
    assert first == "run by hand: its output went to the terminal of process 4711 on node1"
    assert second == "cell one: running: counting"


def polls(monkeypatch: pytest.MonkeyPatch, *events: Callable[[], object]) -> None:
    """Has something happen at each pause between two looks."""
    left = list(events)

    def sleep(seconds: float) -> None:
        left.pop(0)()

    monkeypatch.setattr(time, "sleep", sleep)


def add(path: Path, content: bytes) -> None:
    with path.open("ab") as stream:
        stream.write(content)


def test_following_prints_what_is_added_until_the_cell_is_done(
    tmp_path: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = submit(tmp_path, "mine", [{"a1": "cell one"}])
    path = log(made, "70_0", "one\n")
    attempt(tmp_path, "a1", job="70")

    def end() -> None:
        attempt(tmp_path, "a1", job="70", ended="done")
        record(tmp_path, "a1")
        add(path, b"the end\n")

    # A sign of several bytes may be written in two parts.
    polls(monkeypatch, lambda: add(path, b"two \xc3"), lambda: None, lambda: add(path, b"\xa9\n"), end)
    assert shown("a1", tmp_path, follow=True) == (0, "one\ntwo é\nthe end\ncell one: done\n")
    assert slurm.asked == 0, "a cell that lives is not asked after"


def test_following_a_log_that_is_cut_begins_anew(tmp_path: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    made = submit(tmp_path, "mine", [{"a1": "cell one"}])
    path = log(made, "70_0", "a long first line\n")
    attempt(tmp_path, "a1", job="70")

    def fail() -> None:
        attempt(tmp_path, "a1", job="70", ended="failed")
        record(tmp_path, "a1", "failed", "Traceback\nRuntimeError: planted")

    polls(monkeypatch, lambda: path.write_text("anew\n"), fail)
    expected = "a long first line\nanew\ncell one: failed: RuntimeError: planted\n"
    assert shown("a1", tmp_path, follow=True) == (1, expected)


def test_following_waits_for_a_job_that_begins_later_and_goes_on_with_the_next_one(
    tmp_path: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = submit(tmp_path, "mine", [{"a1": "cell one"}])
    slurm.tell(job(made, 0, "PENDING", "Priority"))

    def begin() -> None:
        log(made, "70_0", "begun\n")
        attempt(tmp_path, "a1", job="70")

    def fall() -> None:
        attempt(tmp_path, "a1", job="70", ended="stopped on SIGTERM")
        again = submit(tmp_path, "mine", [{"a1": "cell one"}], id="71", created=NOON + 60)
        slurm.tell(job(again, 0, "PENDING", "Priority"))

    def begin_again() -> None:
        log(submit(tmp_path, "mine", [{"a1": "cell one"}], id="71", created=NOON + 60), "71_0", "begun again\n")
        attempt(tmp_path, "a1", 2, job="71")

    def end() -> None:
        attempt(tmp_path, "a1", 2, job="71", ended="done")
        record(tmp_path, "a1")

    polls(monkeypatch, lambda: None, begin, fall, lambda: None, begin_again, end)
    status, text = shown("a1", tmp_path, follow=True)
    assert status == 0
    assert text.splitlines() == [
        "cell one: pending: waits for jobs of higher priority",
        "begun",
        "cell one: pending: waits for jobs of higher priority",
        "begun again",
        "cell one: done",
    ]
    assert slurm.asked == 3, "before following, and whenever it begins to wait, but not at each pause"
