"""The committed runs on Fashion-MNIST: the table beside them is what they say."""

from pathlib import Path

import results
from results import tables

FOLDER = Path(results.__file__).parent / "fashion_mnist"


def test_the_table_is_what_the_records_say() -> None:
    records, problems = results.read_all(FOLDER)
    assert problems == []
    assert [record.status for record in records] == ["done"] * 20
    table = tables.to_markdown(tables.paired_sheet(tables.comparisons(records)))
    assert table in (FOLDER / "README.md").read_text()


def test_they_are_of_one_commit_without_changes_and_one_machine() -> None:
    environments = [record.environment for record in results.read_all(FOLDER)[0]]
    assert {environment["dirty"] for environment in environments} == {False}
    for name in ("commit", "torch", "timm", "pillow", "device_name"):
        assert len({environment[name] for environment in environments}) == 1, name
