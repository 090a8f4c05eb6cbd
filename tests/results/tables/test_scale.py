"""Tables of very many records: time grows as their number does, and memory stays small."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import results
from tests.nightly import LONG

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "results" / "fashion_mnist" / "10f7b29026c6c95f.json"

TABLE = r"""
import re, sys, time
from pathlib import Path
import results
from results import tables
began = time.process_time()
records, problems = results.read_all(Path(sys.argv[1]))
text = tables.to_plain(tables.sheet(tables.table(records)))
print(len(records), len(problems), text.count(chr(10)), time.process_time() - began)
# Unlike ru_maxrss, this forgets the process that started this one.
print(int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
"""

COMMAND = r"""
import contextlib, json, sys, time
from pathlib import Path
from harness.cli import main
folder, table = map(Path, sys.argv[1:])
def seconds(function, *given):
    began = time.process_time()
    function(*given)
    return time.process_time() - began
def parse():
    for path in folder.iterdir():
        with contextlib.suppress(ValueError):
            json.loads(path.read_text())
before = seconds(parse)
command = seconds(main.main, ["table", str(folder), "-o", str(table)])
print(command / ((before + seconds(parse)) / 2))
"""


def many_records(folder: Path, number: int, models: int = 20) -> None:
    sample: Any = json.loads(SAMPLE.read_text())
    folder.mkdir()
    for each in range(number):
        sample["key"] = f"k{each:06}"
        sample["cell"]["task"]["seed"] = each // models
        sample["cell"]["backbone"]["attention"] = f"focused(focusing_factor={each % models})"
        sample["metrics"]["top1"] = 80 + each % 997 / 100
        sample["environment"]["date"] = f"2026-01-01T00:00:{each % 60:02}+00:00"
        (folder / f"{sample['key']}.json").write_text(json.dumps(sample, indent=2))
    (folder / "broken.json").write_text("{")
    (folder / "foreign.json").write_text('{"a": 1}')


def table_of(folder: Path) -> tuple[list[int], float, float]:
    """What was counted, CPU seconds, MiB at most."""
    ran = subprocess.run([sys.executable, "-c", TABLE, folder], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    *counted, seconds, memory = ran.stdout.split()
    return list(map(int, counted)), float(seconds), float(memory)


def test_time_and_memory_grow_as_the_number_of_records(tmp_path: Path) -> None:
    few, many = (1_000, 10_000)
    for number in (few, many):
        many_records(tmp_path / str(number), number)
    found = {number: table_of(tmp_path / str(number)) for number in (few, many)}
    for number, (counted, _, _) in found.items():
        assert counted[:2] == [number, 2]
        assert counted[2] > number
    assert found[many][1] < 20 * found[few][1]
    assert found[many][2] < 400


@LONG
@pytest.mark.parametrize("models", [20, 100_000])
def test_a_hundred_thousand_records_take_a_gigabyte_and_ten_times_the_time_of_a_tenth(
    tmp_path: Path, models: int
) -> None:
    found = {}
    for number in (10_000, 100_000):
        many_records(tmp_path / str(number), number, models)
        found[number] = table_of(tmp_path / str(number))
    counted, seconds, memory = found[100_000]
    assert counted[:2] == [100_000, 2]
    assert seconds < 15 * found[10_000][1]
    assert memory < 1024


@LONG
def test_the_command_takes_not_much_longer_than_json_does_for_its_files(tmp_path: Path) -> None:
    number = 100_000
    many_records(tmp_path / "many", number, models=number)
    command = [sys.executable, "-c", COMMAND, str(tmp_path / "many"), str(tmp_path / "table.csv")]
    ran = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert (tmp_path / "table.csv").read_bytes().count(b"\n") == 1 + number
    for damaged in ("broken.json", "foreign.json"):
        assert ran.stderr.count(damaged) == 1
    assert float(ran.stdout) < 2.5


def test_records_share_what_is_equal_in_them(tmp_path: Path) -> None:
    many_records(tmp_path / "few", 40)
    records, problems = results.read_all(tmp_path / "few")
    assert [Path(line.partition(": ")[0]).name for line in problems] == ["broken.json", "foreign.json"]
    assert len({id(record.cell["backbone"]) for record in records}) == 20
    assert len({id(record.cell["task"]["recipe"]) for record in records}) == 1
    assert {record.folder for record in records} == {tmp_path / "few"}
