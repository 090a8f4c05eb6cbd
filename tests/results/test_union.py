"""Several folders: a record that two of them share is one, unlike ones are all shown and said, and no file changes."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import results
from results.tables import table


def test_the_union_of_two_folders(make: Any, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    same = make.record("same", make.cell("a", "softmax", make.costs), {"params_m": 1.0, "loss": math.nan})
    mine = make.record("speed", make.cell("a", "softmax", make.speed()), {"images_per_s": 10.0, "x": 1})
    theirs = replace(mine, metrics={"images_per_s": 12.5, "x": 1})
    own = make.record("own", make.cell("b", "linear", make.costs, depth=2), {"params_m": 2.0})
    for folder, records in ((one, [same, mine]), (two, [same, theirs, own])):
        for record in records:
            results.write(folder, record)
    (two / "broken.json").write_text("{")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    found = results.read_folders([one, two])
    assert [(record.key, record.folder) for record in found.records] == [
        ("same", one), ("speed", one), ("speed", two), ("own", two)
    ]  # fmt: skip
    assert len(found.problems) == 1
    (conflict,) = found.conflicts
    assert conflict.startswith(
        f"a, softmax, speed: speed is in {one} and {two} with unlike numbers, and all are shown: "
    )
    assert conflict.endswith(": images_per_s 10.0 and 12.5.")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before
    frame = table(found.records)
    assert frame["images_per_s"].dropna().tolist() == [10.0, 12.5]
    assert frame["folder"].tolist() == [str(one), f"{one}, {two}", str(two)]


def test_one_folder_is_not_named(make: Any, tmp_path: Path) -> None:
    results.write(tmp_path, make.record("a", make.cell("a", "softmax", make.costs), {"params_m": 1.0}))
    assert "folder" not in table(results.read_folders([tmp_path]).records)
