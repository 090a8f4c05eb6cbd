"""Where cells stand, as people and machines are told it: on wide and narrow terminals, in a pipe, as JSON, watched."""

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from harness.jobs import submissions
from harness.process import attempts
from harness.status import watch
from harness.status.rows import ROWS, short_labels
from harness.sweeps.expand import expand
from results.wording import duration
from tests.harness.submitted import NOON, Slurm, attempt, job, record, submit

NAME = "deit_t focused(kernel_size=5) train cuda"


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Slurm:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)  # the age of a heartbeat, to the second
    return Slurm(monkeypatch)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


def labels(sweep: str) -> dict[str, str]:
    return {cell.key: cell.label for cell in expand(sweep)}


class Shown:
    """The exit status of a `show`, and what it printed; `width`: of a terminal, None for a pipe."""

    def __init__(self, sweep: str | None, out: Path, width: int | None = None, **options: object) -> None:
        self._out = io.StringIO()
        self.errors: list[str] = []
        console = Console(
            file=self._out, width=width, force_terminal=width is not None, color_system=None, highlight=False
        )
        self.status = watch.show_status(sweep, out, console, self.errors.append, labels, **options)  # type: ignore[arg-type]

    @property
    def text(self) -> str:
        return self._out.getvalue()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @property
    def words(self) -> str:
        """Without the breaks of lines."""
        return " ".join(self.text.split())


def mixed(out: Path, slurm: Slurm) -> None:
    """A cell of each kind, of a sweep `mine`."""
    kinds = ("done", "oom", "failed", "running", "short", "pending", "again", "cancelled", "dropped")
    made = submit(out, "mine", [{key: f"{NAME} {key}"} for key in kinds])
    record(out, "done")
    record(out, "oom", "oom", "Traceback\ntorch.OutOfMemoryError: out of memory")
    record(out, "failed", "failed", "Traceback\nRuntimeError: no finite gradient [in] step 7")
    attempt(out, "failed", job="70_2", ended="failed: no finite gradient")
    attempt(out, "running", 1, ago=5000, job="70_3", ended="stopped on SIGUSR2")
    attempt(out, "running", 2, ago=12, job="70_3", epoch=3, epochs=30, step=1420, steps=15000, images_per_s=2412.3)
    attempt(
        out,
        "running",
        3,
        ago=12,
        job="70_3",
        epoch=3,
        epochs=30,
        step=1420,
        steps=15000,
        images_per_s=2412.3,
        left_s=4800,
    )
    attempt(out, "short", job="70_4", text="round 2 of 5", images_per_s=None)
    slurm.tell(
        *(job(made, 3 + index, "RUNNING") for index in (0, 1)),
        *(job(made, 5 + index, "PENDING", "Resources") for index in (0, 1)),
        job(made, 7, "CANCELLED", "by nobody"),
        job(made, 8, "TIMEOUT"),
    )


def test_a_pipe_gets_a_plain_line_a_row(out: Path, slurm: Slurm) -> None:
    mixed(out, slurm)
    shown = Shown("mine", out)
    assert shown.status == 0
    assert shown.errors == []
    heading, totals, *rows, hint = shown.lines
    assert heading.startswith("mine on gpu, submitted 15 Jan ")
    assert totals == (
        "9 cells: 1 done, 1 out of memory, 1 failed, 2 running, 2 pending, 1 cancelled, 1 dropped; "
        "running at 2,412 images/s, 1 h 20 min to go"
    )
    assert rows == [
        f"running        running  {NAME} running: epoch 3/30, step 1,420/15,000, 2,412 images/s, 1 h 20 min to go, "
        "seen 12 s ago, job 70_3, interrupted twice",
        f"running        short  {NAME} short: round 2 of 5, seen 5 s ago, job 70_4",
        f"failed         failed  {NAME} failed: RuntimeError: no finite gradient [in] step 7 (job 70_2)",
        f"out of memory  oom  {NAME} oom: torch.OutOfMemoryError: out of memory",
        f"dropped        dropped  {NAME} dropped: its job reached its time limit: allow more time, or submit it again "
        "if it can continue where it was; attention-bench resume submits it again (job 70_8)",
        f"cancelled      cancelle  {NAME} cancelled: cancelled; attention-bench resume submits it again (job 70_7)",
        "pending        2 cells: waits until enough nodes or GPUs are free",
    ]
    assert "attention-bench logs CELL" in hint
    assert "retry --failed" in hint


@pytest.mark.parametrize("width", [80, 140])
def test_a_terminal_gets_everything_in_full_and_no_wider_than_it_is(out: Path, slurm: Slurm, width: int) -> None:
    mixed(out, slurm)
    shown = Shown("mine", out, width)
    assert max(map(len, shown.lines)) <= width
    for part in ("2,412 images/s, 1 h 20 min to go", "1/9 done", "1,420/15,000", "12 s ago", "70_3", "twice"):
        assert part in shown.words, part
    assert "2 cells: waits until enough nodes or GPUs are free" in shown.words
    assert "deit_t focused train cuda running" in shown.words, "options that all have are left out"
    assert "round 2 of 5" in shown.words
    (bar,) = [line for line in shown.lines if "━" in line]
    assert bar.endswith(" 1/9 done")


def test_a_wide_terminal_has_columns_and_a_narrow_one_sentences(out: Path, slurm: Slurm) -> None:
    mixed(out, slurm)
    (head,) = [line for line in Shown("mine", out, 140).lines if "images/s" in line and "together" not in line][1:]
    assert head.split() == ["cell", "running", "epoch", "step", "images/s", "to", "go", "seen", "job", "interrupted"]
    assert "epoch 3/30, step 1,420/15,000" in Shown("mine", out, 80).words
    error = "RuntimeError: no finite gradient [in] step 7 (job 70_2)"
    assert any("train cuda failed  " in line and error in line for line in Shown("mine", out, 140).lines)


def test_all_shows_a_line_for_each_cell_done_and_waiting_ones_too(out: Path, slurm: Slurm) -> None:
    mixed(out, slurm)
    rows = Shown("mine", out, everything=True).lines[2:-1]
    assert [row[:13].strip() for row in rows] == [
        *("running", "running", "failed", "out of memory", "dropped", "cancelled", "pending", "pending", "done")
    ]
    assert rows[6] == f"pending        pending  {NAME} pending: waits until enough nodes or GPUs are free (job 70_5)"
    assert rows[8] == f"done           done  {NAME} done"


def test_a_long_list_is_cut_and_no_kind_pushes_out_another(out: Path, slurm: Slurm) -> None:
    made = submit(out, "mine", [{f"{kind}{index:02}": "cell"} for kind in "abc" for index in range(60)])
    for index in range(60):
        record(out, f"a{index:02}", "failed", "planted")
        attempt(out, f"b{index:02}", job=f"70_{60 + index}")
    slurm.tell(
        *(job(made, 60 + index, "RUNNING") for index in range(60)),
        *(job(made, 120 + index, "PENDING", "JobHeldUser") for index in range(60)),
    )
    lines = Shown("mine", out).lines
    assert len(lines) <= ROWS + 6
    for kind in ("running", "failed", "pending"):
        rows = [line for line in lines if line.startswith(kind)]
        assert len(rows) == ROWS // 3 + 1
        assert rows[-1].endswith(f"and {60 - ROWS // 3} more: --all shows them")
    assert len(Shown("mine", out, everything=True).lines) == 180 + 3


def test_one_kind_alone_has_all_the_room(out: Path, slurm: Slurm) -> None:
    submit(out, "mine", [{f"{index:02}": "cell"} for index in range(ROWS + 2)])
    for index in range(ROWS + 2):
        record(out, f"{index:02}", "failed", "planted")
    rows = [line for line in Shown("mine", out).lines if line.startswith("failed")]
    assert len(rows) == ROWS + 1
    assert rows[-1].endswith("and 2 more: --all shows them")


def test_where_slurm_does_not_answer_that_is_said_and_the_folders_speak(out: Path, slurm: Slurm) -> None:
    mixed(out, slurm)
    slurm.unreachable = "Slurm does not answer: squeue took more than 30 s"
    shown = Shown("mine", out)
    assert shown.status == 0
    assert shown.lines[2] == (
        "Slurm does not answer (squeue took more than 30 s): states are from the run folders alone"
    )
    assert "2 running, 4 unknown" in shown.lines[1]
    assert "Slurm does not answer (squeue took" in Shown("mine", out, 80).words


def test_what_is_queued_again_says_how_it_ended_before_and_asks_for_nothing(out: Path, slurm: Slurm) -> None:
    made = submit(out, "mine", [{"a": "cell a"}])
    attempt(out, "a", job="70", ended="stopped on SIGUSR2 after 8 of 9 updates; the same command goes on with the rest")
    slurm.tell(job(made, 0, "PENDING", "Priority"))
    ended = "before: stopped on SIGUSR2 after 8 of 9 updates (job 70, interrupted once)"
    assert f"waits for jobs of higher priority; {ended}" in Shown("mine", out).words


def test_a_cell_that_another_sweep_submitted_is_told_where_it_is_part_of_the_sweep(out: Path, slurm: Slurm) -> None:
    first = submit(out, "mine", [{"a": "cell a"}], created=NOON, id="70")
    later = submit(out, "theirs", [{"b": "cell b"}], created=NOON + 1, id="71")
    replace(later, cells={"a": "cell a", "b": "cell b"}).write()
    slurm.tell(job(first, 0, "PENDING", "Resources"), job(later, 0, "PENDING", "Resources"))
    assert "2 cells: 2 pending" in Shown("theirs", out).lines[1]
    assert "1 cell: 1 pending" in Shown("mine", out).lines[1]


def test_a_suspended_job_is_said_to_be(out: Path, slurm: Slurm) -> None:
    made = submit(out, "mine", [{"a": "cell a"}])
    attempt(out, "a", job="70")
    slurm.tell(job(made, 0, "SUSPENDED"))
    assert "running a cell a: suspended by Slurm or an administrator, until they resume it" in Shown("mine", out).words


def test_what_slurm_holds_is_said_to_be_released_by_resume(out: Path, slurm: Slurm) -> None:
    made = submit(out, "mine", [{"a": "cell a"}])
    attempt(out, "a", job="70", ended="lost its node")
    slurm.tell(job(made, 0, "PENDING", "launch failed requeued held"))
    said = "held by Slurm, as its node could not start it; attention-bench resume releases it; before: lost its node"
    assert said in Shown("mine", out).words


def test_what_is_queued_again_does_not_run_whatever_its_last_sign_of_life(out: Path, slurm: Slurm) -> None:
    made = submit(out, "mine", [{"a": "cell a"}])
    attempt(out, "a", job="70", ago=3)
    slurm.tell(job(made, 0, "PENDING", "BeginTime"))
    assert "1 cell: 1 pending" in Shown("mine", out).lines[1]


def test_a_failure_that_was_tried_again_is_no_interruption(out: Path, slurm: Slurm) -> None:
    submit(out, "mine", [{"a": "cell a"}])
    for number in (1, 2):
        attempt(out, "a", number, job="70", ended="failed: RuntimeError: planted")
    record(out, "a", "failed", "planted")
    assert "interrupted" not in Shown("mine", out, everything=True).words


def test_what_a_command_took_over_from_a_job_that_is_gone_is_in_no_job(out: Path, slurm: Slurm) -> None:
    submit(out, "mine", [{"a": "cell a"}])
    attempt(out, "a", 1, job="70", ended="stopped: a newer attempt")
    attempt(out, "a", 2, job=None)
    words = Shown("mine", out).words
    assert "1 running" in words
    assert "job 70" not in words


@pytest.mark.parametrize(
    ("unaccounted", "told"),
    [
        (None, "cell a: Slurm no longer knows its job; attention-bench resume"),
        (
            "sacct: Connection refused",
            "its job, and cannot say how it ended (sacct: Connection refused); attention-bench",
        ),
    ],
)
def test_what_slurm_has_forgotten_is_dropped(out: Path, slurm: Slurm, unaccounted: str | None, told: str) -> None:
    submit(out, "mine", [{"a": "cell a"}])
    slurm.unaccounted = unaccounted
    assert told in Shown("mine", out).words


def test_a_training_without_a_sign_of_life_says_so(out: Path, slurm: Slurm) -> None:
    made = submit(out, "mine", [{"key": NAME}])
    attempt(out, "key", ago=attempts.STALE + 60, job="70", epoch=3, epochs=30, step=14, steps=150, images_per_s=9.6)
    slurm.tell(job(made, 0, "RUNNING"))
    (row,) = [line for line in Shown("mine", out).lines if line.startswith("running")]
    assert "no heartbeat for 150 s on node1, epoch 3/30, step 14/150, 9.6 images/s, seen 2 min ago" in row


def test_without_a_sweep_all_that_was_submitted_or_begun_is_shown(out: Path, slurm: Slurm) -> None:
    submit(out, "mine", [{"a": "cell a"}], created=NOON)
    submit(out, "files.py:theirs", [{"b": "cell b"}], created=NOON + 3600, cluster="cpu")
    attempt(out, "c", text="counting")
    lines = Shown(None, out, everything=True).lines
    assert lines[0].startswith("mine, files.py:theirs on gpu, cpu, submitted 2 times, last 15 Jan ")
    assert lines[0].endswith("; and 1 cell begun by other commands")
    assert lines[1] == "3 cells: 1 running, 2 dropped"
    assert lines[2] == "running        c  cell c: counting, seen 5 s ago"
    assert "cell b" not in Shown("mine", out).text
    assert "other commands" not in Shown("mine", out).lines[0]


def test_of_a_cell_that_two_sweeps_submitted_the_later_one_speaks(out: Path, slurm: Slurm) -> None:
    submit(out, "mine", [{"a": "cell a"}], created=NOON, id="70")
    later = submit(out, "theirs", [{"a": "cell a"}], created=NOON + 1, id="71")
    slurm.tell(job(later, 0, "PENDING", "Resources"))
    assert "1 pending" in Shown("mine", out).lines[1]


def test_a_sweep_run_by_hand_is_asked_for_its_cells(out: Path, slurm: Slurm) -> None:
    first, second, *others = expand("quickstart")
    record(out, first.key)
    attempt(out, second.key, text="counting")
    lines = Shown("quickstart", out).lines
    assert lines[0] == f"quickstart in {out}, never submitted"
    assert lines[1] == f"{len(others) + 2} cells: 1 done, 1 running, {len(others)} not started"
    assert lines[-1] == f"not started    {len(others)} cells"
    assert slurm.asked == 0


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        (None, "nothing was submitted or started in {out}"),
        ("quickstrat", "no sweep 'quickstrat' was submitted in {out}; nor was any other; unknown sweep"),
    ],
)
def test_where_there_is_nothing_one_line_says_so(out: Path, slurm: Slurm, sweep: str | None, said: str) -> None:
    with pytest.raises(ValueError, match=r"nothing|no sweep") as refused:
        Shown(sweep, out)
    assert str(refused.value).startswith(said.format(out=out))
    assert "\n" not in str(refused.value)


def test_damaged_files_are_a_line_each_and_the_rest_is_shown(out: Path, slurm: Slurm) -> None:
    submit(out, "mine", [{"a": "cell a"}], created=NOON)
    broken = submit(out, "mine", [{"b": "cell b"}], created=NOON + 1).folder / "submission.json"
    broken.write_text("{")
    attempt(out, "a", 1, ago=10)
    (out / "a" / attempts.FOLDER / "0002.json").write_text("[]")
    shown = Shown("mine", out)
    assert shown.status == 1
    assert len(shown.errors) == 2
    assert all(line.startswith("damaged, skipped: ") for line in shown.errors)
    assert str(broken) in shown.errors[0]
    assert "1 running" in shown.lines[1]
    warned: list[str] = []
    assert len(submissions.find_submissions("mine", out, warned.append)) == 1
    assert len(warned) == 1
    assert str(broken) in warned[0]


def test_json_has_every_field_and_nothing_else_is_printed(out: Path, slurm: Slurm) -> None:
    mixed(out, slurm)
    (out / "done" / attempts.FOLDER).mkdir(parents=True)
    (out / "done" / attempts.FOLDER / "0001.json").write_text("[]")
    shown = Shown("mine", out, 40, as_json=True)
    assert shown.status == 1
    assert shown.errors == []
    found = json.loads(shown.text)
    assert list(found) == ["sweep", "cells", "totals", "slurm", "problems", "time"]
    assert found["totals"] == {
        **{"done": 1, "oom": 1, "failed": 1, "running": 2, "pending": 2, "cancelled": 1, "dropped": 1}
    }
    assert found["slurm"] is None
    assert len(found["problems"]) == 1
    assert found["time"].endswith("+00:00")
    (running,) = [cell for cell in found["cells"] if cell["key"] == "running"]
    assert running.pop("beat_age_s") >= 12
    assert running == {
        **{"key": "running", "label": f"{NAME} running", "state": "running", "detail": "", "job": "70_3"},
        **{"held": False, "attempts": 3, "interrupted": 2, "epoch": 3, "epochs": 30, "step": 1420, "steps": 15000},
        **{"images_per_s": 2412.3, "left_s": 4800},
    }


def after_looks(monkeypatch: pytest.MonkeyPatch, *events: Callable[[], object]) -> None:
    """Has something happen whenever `status` waits for its next look."""
    left = list(events)

    def sleep(seconds: float) -> None:
        left.pop(0)()

    monkeypatch.setattr(time, "sleep", sleep)


def test_watching_a_pipe_says_what_changes_and_ends_with_the_last_view(
    out: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = submit(out, "mine", [{"a": "cell a"}, {"b": "cell b"}])
    slurm.tell(*(job(made, index, "PENDING", "Resources") for index in (0, 1)))
    after_looks(
        monkeypatch,
        lambda: None,
        lambda: record(out, "a"),
        lambda: record(out, "b", "failed", "planted failure"),
    )
    shown = Shown("mine", out, every=30.0)
    assert shown.status == 1, "a cell has failed"
    first, second, heading, totals, *_ = shown.lines
    assert first.endswith("  2 cells: 2 pending")
    assert second.endswith("  2 cells: 1 done, 1 pending")
    assert heading.startswith("mine on gpu")
    assert totals == "2 cells: 1 done, 1 failed"
    assert slurm.asked == 3, "once a look, and not about what is recorded"


def test_watching_a_terminal_leaves_the_last_view_whole(
    out: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = submit(out, "mine", [{"a": "cell a"}])
    slurm.tell(job(made, 0, "PENDING", "Resources"))
    after_looks(monkeypatch, lambda: record(out, "a"))
    shown = Shown("mine", out, 80, every=30.0)
    assert shown.status == 0
    assert "updated every 30 s; Ctrl-C stops watching, not the jobs" in shown.text
    last = shown.text[shown.text.rindex("mine on gpu") :]
    assert "1 cell: 1 done" in last
    assert "looks again" not in last


@pytest.mark.parametrize("width", [None, 80])
def test_ctrl_c_leaves_a_watch_to_the_command_line(
    out: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch, width: int | None
) -> None:
    made = submit(out, "mine", [{"a": "cell a"}])
    slurm.tell(job(made, 0, "PENDING", "Resources"))

    def interrupt() -> None:
        raise KeyboardInterrupt

    after_looks(monkeypatch, interrupt)
    with pytest.raises(KeyboardInterrupt):
        Shown("mine", out, width, every=30.0)


def test_a_damaged_file_is_said_once_in_a_watch(out: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    made = submit(out, "mine", [{"a": "cell a"}])
    slurm.tell(job(made, 0, "PENDING", "Resources"))
    (submit(out, "mine", [{"b": "cell b"}], created=NOON + 1).folder / "submission.json").write_text("{")
    after_looks(monkeypatch, lambda: None, lambda: record(out, "a"))
    shown = Shown("mine", out, every=1.0)
    assert len(shown.errors) == 1
    assert shown.status == 1


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.7, "1 min"), (3599, "1 h 0 min"), (4800, "1 h 20 min"), (3 * 86400 + 4 * 3600, "3 d 4 h")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_options_are_left_out_only_where_they_tell_nothing_apart() -> None:
    labels = {
        "a": "swin x(p=3, f=True) train",
        "b": "swin x(p=3, f=True) costs",
        "c": "swin y(p=1)",
        "d": "swin y(p=2)",
    }
    assert short_labels(labels) == {"a": "swin x train", "b": "swin x costs", "c": "swin y(p=1)", "d": "swin y(p=2)"}


def test_what_was_submitted_is_shown_without_torch(out: Path) -> None:
    submit(out, "mine", [{"a": "cell a"}], cluster="local")
    record(out, "a")
    code = (
        "import sys; from pathlib import Path; from rich.console import Console; from harness.status import watch; "
        "watch.show_status('mine', Path(sys.argv[1]), Console(), print, dict); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1 cell: 1 done" in done.stdout
