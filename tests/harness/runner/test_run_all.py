"""What is recorded is not measured again; what fails is a row; an interrupt loses only the running cell."""

import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import results
from backbones import preset
from harness.cells import MICRO, Cell, Costs, DataSource, Train
from harness.runner import run as module
from harness.runner.records import outcome, recorded
from harness.runner.run import run
from harness.runner.run_all import run_all
from results import Record
from slurm import JobDied

Make = Callable[..., Cell]


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def text_of(shown: Console) -> str:
    assert isinstance(shown.file, io.StringIO)
    return shown.file.getvalue()


def test_asking_twice_measures_once(counting, log, tmp_path):
    cells = [counting("softmax"), counting("linear")]
    first = run_all(cells, tmp_path / "out", console())
    again = console()
    assert run_all(cells, tmp_path / "out", again) == first
    assert log.read_text().splitlines() == [str(cell.backbone.attention) for cell in cells]
    assert "2 of 2 cells are recorded" in text_of(again)
    assert [record.key for record in first] == [cell.key for cell in cells]
    assert {record.status for record in first} == {"done"}
    assert first[0].cell == cells[0].to_json()
    assert first[0].environment["torch"]


def test_each_record_file_is_read_once(counting: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorded one to see that it is there, a new one for what is returned."""
    out = tmp_path / "out"
    cells = [counting("softmax"), counting("linear"), counting("focused"), counting("agent")]
    run_all(cells[:2], out, console())
    reads: Counter[str] = Counter()

    content = results.records._content

    def counted(path: str) -> bytes:
        found = content(path)  # raises where there is none
        reads[Path(path).stem] += Path(path).parent == out
        return found

    monkeypatch.setattr(results.records, "_content", counted)
    shown = console()
    records = run_all(cells, out, shown)
    assert [record.key for record in records] == [cell.key for cell in cells]
    assert "2 of 4 cells are recorded" in text_of(shown)
    assert {cell.key: reads[cell.key] for cell in cells} == dict.fromkeys((cell.key for cell in cells), 1)


def test_failures_are_records_and_the_rest_goes_on(counting, log, tmp_path):
    cells = [
        counting("softmax", "error"),
        counting("linear", "memory"),
        counting("focused"),
        counting("agent", "value"),
    ]
    records = run_all(cells, tmp_path, console())
    assert [record.status for record in records] == ["failed", "oom", "done", "failed"]
    assert records[3].reason.startswith("ValueError: metric model is a object; allowed: None, numbers, texts")
    assert records[0].error is not None
    assert "RuntimeError: planted failure" in records[0].error
    assert "Traceback" in records[0].error
    assert records[2].error is None


def test_a_failed_cell_runs_again_and_one_out_of_memory_does_not(counting, log, tmp_path):
    cells = [counting("softmax", "error"), counting("linear", "memory")]
    run_all(cells, tmp_path, console())
    run_all(cells, tmp_path, console())
    assert len(log.read_text().splitlines()) == 3


def test_an_interrupt_loses_only_the_running_cell(counting, log, tmp_path):
    cells = [counting("softmax"), counting("linear", "interrupt"), counting("focused")]
    with pytest.raises(KeyboardInterrupt):
        run_all(cells, tmp_path / "out", console())
    assert recorded(cells[0], tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob("*.json")] == [f"{cells[0].key}.json"]


def test_a_damaged_record_is_measured_anew_and_kept_aside(counting, log, tmp_path):
    cell = counting()
    path = tmp_path / f"{cell.key}.json"
    path.write_text("{")
    assert run(cell, tmp_path, lambda text: None).status == "done"
    assert results.read(path).status == "done"
    assert path.with_suffix(".damaged").read_text() == "{"


def test_an_altered_record_is_not_taken_for_the_cells(counting, log, tmp_path):
    cell = counting()
    run(cell, tmp_path, lambda text: None)
    path = tmp_path / f"{cell.key}.json"
    text = path.read_text().replace("softmax", "linear")
    path.write_text(text)
    assert recorded(cell, tmp_path) is None
    run(cell, tmp_path, lambda text: None)
    assert recorded(cell, tmp_path) is not None
    assert path.with_suffix(".damaged").read_text() == text


def test_an_output_folder_that_cannot_be_written_is_said_before_anything_is_measured(counting, log, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match=f"cannot write to the output folder {out}"):
            run_all([counting()], out, console())
    assert not log.exists()


def test_plain_progress_names_cells_and_outcomes(counting, log, tmp_path):
    shown = console()
    run_all([counting("softmax"), counting("linear", "error")], tmp_path, shown)
    lines = text_of(shown).splitlines()
    assert lines[0].startswith("[1/2] deit_micro softmax(fused=True) counting")
    assert lines[1:3] == ["    counting", "    done: params_m 1"]
    assert lines[3].startswith("[2/2] deit_micro linear(feature_map='relu', kernel_size=None) counting")
    assert lines[4:] == ["    counting", "    failed: RuntimeError: planted failure"]


def test_a_terminal_gets_a_bar(counting, log, tmp_path):
    shown = Console(file=io.StringIO(), width=120, force_terminal=True)
    run_all([counting("softmax"), counting("linear")], tmp_path, shown)
    assert "2/2" in text_of(shown)


def test_a_cell_in_a_process_of_its_own_has_the_same_record(tmp_path):
    cell = Cell(preset("deit_micro", attention="linear"), Costs())
    (apart,) = run_all([cell], tmp_path / "apart", console(), isolate=True)
    (here,) = run_all([cell], tmp_path / "here", console())
    assert apart.status == "done"
    ours, theirs = ({k: v for k, v in r.metrics.items() if k != "costs_seconds"} for r in (apart, here))
    assert ours == theirs


def test_a_death_in_a_process_of_its_own_is_a_failed_row(tmp_path, monkeypatch):
    def dies(function, folder, variables):
        raise JobDied("the process ended without a result")

    monkeypatch.setattr(module, "call_apart", dies)
    (record,) = run_all([Cell(preset("deit_micro"), Costs())], tmp_path, console(), isolate=True)
    assert (record.status, record.error) == ("failed", "the process ended without a result")


def test_a_training_that_does_not_fit_says_what_helps_and_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(task: Train, *arguments: object) -> dict[str, float]:
        if task.device_batch is None:
            raise MemoryError("planted shortage")
        return {"top1": 50.0}

    monkeypatch.setattr(module, "train", run_out)
    cell = Cell(preset("deit_micro"), Train(MICRO, DataSource("fashion_mnist_14k")))
    shown = console()
    (record,) = run_all([cell], tmp_path / "out", shown)
    assert record.status == "oom"
    assert "oom: the images of a step did not fit: --device-batch takes fewer at once" in text_of(shown)
    split = replace(cell, task=replace(cell.training, device_batch=16))
    assert split.key == cell.key
    (record,) = run_all([split], tmp_path / "out", shown)
    assert record.status == "done"


def plant_disturbed(out: Path, cell: Cell) -> Record:
    """Leave a record of a measurement that others disturbed."""
    metrics = {"images_per_s": 44.0, "infer_disturbed": "threads waited 90 % of their time for a core"}
    record = Record(cell.key, cell.to_json(), "done", metrics, {})
    results.write(out, record)
    return record


def test_a_disturbed_record_is_final_unless_it_is_to_be_measured_again(
    counting: Make, log: Path, tmp_path: Path
) -> None:
    disturbed, quiet = counting("linear"), counting("softmax")
    run_all([quiet], tmp_path, console())
    record = plant_disturbed(tmp_path, disturbed)
    assert run_all([disturbed, quiet], tmp_path, console())[0] == record
    assert outcome(record) == "done: images_per_s 44; disturbed: threads waited 90 % of their time for a core"
    shown = console()
    again, _ = run_all([disturbed, quiet], tmp_path, shown, retry_disturbed=True)
    assert (again.metrics["params_m"], again.disturbed) == (1.0, {})
    assert log.read_text().splitlines() == [str(cell.backbone.attention) for cell in (quiet, disturbed)]
    assert "1 of 2 cells are recorded" in text_of(shown)
    # Nothing is lost; and what is measured once more is no longer disturbed.
    aside = json.loads((tmp_path / f"{disturbed.key}.disturbed").read_text())
    assert (aside["key"], aside["metrics"]) == (record.key, record.metrics)
    run_all([disturbed, quiet], tmp_path, console(), retry_disturbed=True)
    assert len(log.read_text().splitlines()) == 2


def test_a_disturbed_record_stays_where_it_is_not_measured_anew(counting: Make, log: Path, tmp_path: Path) -> None:
    first, stopped, never = counting("linear"), counting("focused", "interrupt"), counting("softmax")
    records = [plant_disturbed(tmp_path, cell) for cell in (first, stopped, never)]
    with pytest.raises(KeyboardInterrupt):
        run_all([first, stopped, never], tmp_path, console(), retry_disturbed=True)
    assert recorded(first, tmp_path) not in (None, records[0])
    assert [recorded(cell, tmp_path) for cell in (stopped, never)] == records[1:]


def test_a_training_is_not_repeated_for_its_speed(tmp_path: Path) -> None:
    cell = Cell(preset("deit_micro"), Train(MICRO, DataSource("fashion_mnist_14k")))
    record = Record(cell.key, cell.to_json(), "done", {"loop_disturbed": "other processes took its cores"}, {})
    results.write(tmp_path, record)
    assert run_all([cell], tmp_path, console(), retry_disturbed=True) == [record]
