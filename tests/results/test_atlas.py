"""The committed atlas is complete, of one clean commit, and its files are what the named commands make of it."""

from pathlib import Path

import pytest

import results
from attentions import names
from harness.cli import main
from harness.sweeps.atlas import HOSTS, atlas

COMMITTED = Path(__file__).parents[2] / "results" / "atlas"


def test_every_cell_is_recorded_by_one_clean_commit() -> None:
    records, problems = results.read_all(COMMITTED)
    assert problems == []
    assert {record.key for record in records} == {cell.key for cell in atlas()}
    assert {(record.status, record.environment["dirty"]) for record in records} == {("done", False)}
    assert len({record.environment["commit"] for record in records}) == 1
    assert {record.cell["backbone"]["name"] for record in records} == set(HOSTS)
    assert {record.cell["backbone"]["attention"].partition("(")[0] for record in records} == set(names())


@pytest.mark.parametrize(
    ("line", "made"),
    [
        (["table", "atlas", "--csv", "atlas.csv"], "atlas.csv"),
        (["figure", "ranks", "atlas", "--x", "gmacs", "-o", "cheapest.svg"], "cheapest.svg"),
        (["figure", "breakdown", "atlas", "--where", "backbone=swin_t", "-o", "swin_t.svg"], "swin_t.svg"),
    ],
)
def test_the_files_are_made_of_the_records(
    line: list[str], made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main([*line, "--out", str(COMMITTED)]) == 0
    assert Path(made).read_bytes() == (COMMITTED / made).read_bytes()
