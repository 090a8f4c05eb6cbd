"""import-speed: a foreign time becomes a record that says so and has no rank; bad files are refused in one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.harness.command_line import Ask, records, refused

GIVEN = {
    "backbone": "deit_micro",
    "attention": "linear",
    "device": "Apple M3",
    "tool": "coremltools",
    "version": "8.1",
    "command": "python time.py",
    "precision": "fp16",
    "batch": 2,
    "milliseconds": 4.0,
}


def written(**changes: Any) -> str:
    Path("speed.json").write_text(json.dumps(GIVEN | changes))
    return "import-speed speed.json"


def test_a_foreign_time_is_a_record_with_its_provenance(ask: Ask) -> None:
    answer = ask(written())
    assert (answer.status, answer.err) == (0, "")
    (record,) = records()
    assert record.cell["task"] == {
        "name": "imported",
        **{name: GIVEN[name] for name in ("device", "tool", "version", "precision", "batch")},
    }
    assert record.cell["backbone"]["name"] == "deit_micro"
    assert record.metrics == {
        "imported_ms": 4.0,
        "imported_images_per_s": 500.0,
        "imported_command": "python time.py",
        "imported_from": "speed.json",
    }
    assert record.environment.keys() == {"date", "device_name"}, "nothing of this machine"
    before = Path(f"runs/{record.key}.json").read_bytes()
    assert f"{record.key} in runs already: 4 ms" in ask(written()).out
    said = refused(ask, written(milliseconds=5))
    assert "has 4.0 ms of the same model and circumstances: move it away first" in said
    assert Path(f"runs/{record.key}.json").read_bytes() == before


def test_it_is_never_ranked_neither_with_ours_nor_with_others(ask: Ask) -> None:
    for attention, time in (("linear", 4.0), ("softmax", 2.0)):
        assert ask(written(attention=attention, milliseconds=time)).status == 0
    assert ask("run --backbone deit_micro --attention linear softmax --task costs").status == 0
    answer = ask("table --format markdown")
    assert "imported_images_per_s" in answer.out
    lines = [line for line in answer.out.splitlines() if line.startswith("| deit_micro")]
    columns = [line.split("|") for line in lines]
    header = next(line for line in answer.out.splitlines() if line.startswith("| backbone")).split("|")
    at = next(number for number, name in enumerate(header) if name.strip() == "imported_images_per_s")
    assert sorted(each[at].strip() for each in columns) == ["-", "-", "1000", "500"]
    assert "imported, all rows: device Apple M3, tool coremltools, version 8.1, precision fp16, batch 2." in answer.out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch": 0}, "speed.json: batch is 0; allowed are whole numbers from 1 up"),
        ({"milliseconds": -1}, "speed.json: milliseconds is -1; allowed are numbers above 0"),
        ({"milliseconds": "4"}, "speed.json: milliseconds is '4'; allowed are numbers above 0"),
        ({"tool": ""}, "speed.json: tool is ''; allowed are texts"),
        ({"host": "mine"}, "speed.json: it has the unknown host; it takes backbone, attention, device, tool"),
        ({"backbone": "deit_x"}, "speed.json: unknown preset 'deit_x'"),
        ({"attention": "lineal"}, "speed.json: unknown attention 'lineal'"),
    ],
    ids=str,
)
def test_a_bad_file_is_refused(ask: Ask, changes: dict[str, Any], said: str) -> None:
    assert said in refused(ask, written(**changes))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "does not hold a JSON object"),
        ("{", "not a complete JSON file"),
        ("{}", "speed.json: it lacks attention, backbone, batch, command, device, milliseconds, precision, tool, ver"),
        (json.dumps(GIVEN).replace("4.0", "NaN"), "not a complete JSON file"),
    ],
)  # fmt: skip
def test_what_is_no_measurement_is_refused(ask: Ask, text: str, said: str) -> None:
    Path("speed.json").write_text(text)
    assert said in refused(ask, "import-speed speed.json")
    assert "cannot be read" in refused(ask, "import-speed nowhere.json")
