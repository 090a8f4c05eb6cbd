"""What was submitted is known again from the disk alone."""

import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from harness.jobs.submissions import FILE, FOLDER, Array, Submission, find_submissions, name_of, read_all, slug
from slurm import Cluster, Resources
from tests.harness.submitted import NOON, submit

RESOURCES = asdict(Resources(nodes=2, tasks_per_node=4, cpus_per_task=6, gpus_per_node=4, minutes=90, memory_gb=1.5))


def test_all_of_it_comes_back(tmp_path: Path) -> None:
    cluster = Cluster("gpu", partition="a100", gpus_per_node=4, setup=("module load cuda", "conda activate x"))
    arrays = [
        Array("s.0", [["a", "b"], ["c"]], RESOURCES, [], "70"),
        Array("s.1", [["d"]], RESOURCES, ["a"]),
    ]
    written = Submission(
        tmp_path / FOLDER / "s",
        "my sweeps.py:ten ",
        cluster,
        NOON + 0.25,
        tmp_path / FOLDER / "code" / "1f",
        (tmp_path / FOLDER / "code" / "1f" / "user" / "0" / "my sweeps.py",),
        (tmp_path / "my sweeps.py",),
        {"a": "deit_micro ☃", "b": "B", "c": "C", "d": "D"},
        {"b": "2026-01-01T00:00:00+00:00"},
        arrays,
    )
    written.write()
    assert read_all(tmp_path) == ([written], [])
    assert written.submitted == {"a", "b", "c", "d"}
    assert written.id == "s"
    assert list(written.jobs()) == [
        (arrays[0], 0, ["a", "b"]),
        (arrays[0], 1, ["c"]),
        (arrays[1], 0, ["d"]),
    ]


def test_a_single_job_is_known_by_a_number_and_one_of_several_by_its_index_too() -> None:
    single = Array("s.0", [["a"]], RESOURCES, [], "70")
    several = replace(single, jobs=[["a"], ["b"]])
    assert single.job_id(0) == "70"
    assert [several.job_id(index) for index in (0, 1)] == ["70_0", "70_1"]
    assert replace(several, id=None).job_id(1) is None


def test_they_come_oldest_first_whatever_they_are_called(tmp_path: Path) -> None:
    for sweep, created in (("a", NOON + 2), ("b", NOON), ("c", NOON + 1)):
        submit(tmp_path, sweep, [{"k": "K"}], created=created)
    assert [each.sweep for each in read_all(tmp_path)[0]] == ["b", "c", "a"]


def test_where_nothing_was_submitted_there_is_nothing(tmp_path: Path) -> None:
    assert read_all(tmp_path / "nowhere") == ([], [])


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "{}", "CUT", "\0", '{"cluster": 3}', "BAD-CLUSTER", "ODD-CLUSTER", "ODD-ARRAY"],
)
def test_a_damaged_file_is_a_line_and_hides_no_other(tmp_path: Path, text: str) -> None:
    whole = submit(tmp_path, "whole", [{"k": "K"}])
    path = submit(tmp_path, "broken", [{"k": "K"}]).folder / FILE
    values = json.loads(path.read_text())
    if text == "BAD-CLUSTER":
        values["cluster"]["minutes"] = -1
    elif text == "ODD-CLUSTER":
        values["cluster"]["colour"] = "blue"
    elif text == "ODD-ARRAY":
        values["arrays"] = [{"name": "x"}]
    damaged = path.read_text()[:100] if text == "CUT" else json.dumps(values) if text.isupper() else text
    path.write_text(damaged)
    found, problems = read_all(tmp_path)
    assert found == [whole]
    (problem,) = problems
    assert problem.startswith(f"{path}: not the file of a submission: ")
    assert "\n" not in problem


def test_a_file_that_is_not_text_or_cannot_be_read_is_a_line_too(tmp_path: Path) -> None:
    (tmp_path / FOLDER / "bytes").mkdir(parents=True)
    (tmp_path / FOLDER / "bytes" / FILE).write_bytes(b"\xff\xfe")
    (tmp_path / FOLDER / "folder" / FILE).mkdir(parents=True)
    found, problems = read_all(tmp_path)
    assert found == []
    assert [problem.partition(": ")[2].partition(":")[0] for problem in problems] == [
        "not the file of a submission",
        "cannot be read",
    ]


@pytest.mark.parametrize(
    ("sweep", "name"),
    [
        ("quickstart", "quickstart"),
        ("my_sweeps.py:batches", "batches"),
        ("/data/my sweeps.py:ten-9", "ten-9"),
        ("a b/c,d", "a-b-c-d"),
        ("x" * 60, "x" * 40),
    ],
)
def test_a_sweep_names_files_and_jobs_in_what_both_take(sweep: str, name: str) -> None:
    assert slug(sweep) == name
    assert name_of(sweep).startswith(f"{name}-20")


def test_two_submissions_of_one_second_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda form: "20270115-120000")
    assert len({name_of("ten") for _ in range(20)}) > 15


def test_a_folder_that_was_moved_has_its_code_beside_it(tmp_path: Path) -> None:
    made = submit(tmp_path / "runs", "mine", [{"a": "A"}])
    replace(made, files=(made.code / "user" / "0" / "mine.py",)).write()
    (tmp_path / "runs").rename(tmp_path / "moved")
    ((found,), _) = read_all(tmp_path / "moved")
    assert found.code == tmp_path / "moved" / FOLDER / "code" / made.code.name
    assert found.code.is_dir()
    assert found.files == (found.code / "user" / "0" / "mine.py",)


@pytest.mark.parametrize(
    ("name", "value"), [("created", "abc"), ("arrays", [{"name": "s.0", "jobs": 7}]), ("cells", 3)]
)
def test_values_of_another_kind_are_a_damaged_file(tmp_path: Path, name: str, value: object) -> None:
    path = submit(tmp_path, "mine", [{"a": "A"}]).folder / FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    assert read_all(tmp_path)[0] == []
    assert "not the file of a submission" in read_all(tmp_path)[1][0]


def test_submissions_of_a_sweep_oldest_first_or_what_there_is_instead(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere; --out names"):
        find_submissions(None, tmp_path / "nowhere", print)
    with pytest.raises(ValueError, match="nothing was submitted"):
        find_submissions(None, tmp_path, print)
    names = ("mine", "theirs", "mine")
    made = [submit(tmp_path, sweep, [{"a": "cell"}], created=NOON + at) for at, sweep in enumerate(names)]
    assert find_submissions("mine", tmp_path, print) == [made[0], made[2]]
    assert find_submissions(None, tmp_path, print) == made
    with pytest.raises(ValueError, match=r"no sweep 'other' was submitted in .*; these were: mine, theirs$"):
        find_submissions("other", tmp_path, print)
    broken = submit(tmp_path, "mine", [{"b": "cell"}], created=NOON + 3).folder / FILE
    broken.write_text("{")
    warnings: list[str] = []
    assert find_submissions("mine", tmp_path, warnings.append) == [made[0], made[2]]
    assert [str(broken) in warning for warning in warnings] == [True]
