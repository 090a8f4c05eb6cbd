"""The committed reproduction of the FLatten paper is what its command makes of the committed records."""

import shutil
from pathlib import Path

import pytest

import results
from harness.cli import main

COMMITTED = Path(__file__).parents[2] / "results" / "flatten"


def test_the_command_makes_the_table_and_the_figures_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "flatten"
    out.mkdir()
    for file in COMMITTED.glob("*.json"):
        shutil.copy(file, out)
    line = ["reproduce", "flatten", "--out", str(out), "--figures", str(tmp_path), "-o", str(tmp_path / "table.csv")]
    assert main.main(line) == 0
    assert "done:" not in capsys.readouterr().err, "nothing is counted again"
    made = ["table.csv", *(f"flatten_{name}.{end}" for name in ("cost", "time", "ablations") for end in ("csv", "svg"))]
    for name in made:
        assert (tmp_path / name).read_bytes() == (COMMITTED / name).read_bytes(), name


def test_the_records_are_of_one_clean_commit() -> None:
    records, problems = results.read_all(COMMITTED)
    assert problems == []
    assert {(record.status, record.environment["dirty"]) for record in records} == {("done", False)}
    assert len({record.environment["commit"] for record in records}) == 1
