"""The cells that the options of a command line mean, from outside: what reaches the records, and what is refused."""

from pathlib import Path

import pytest

import backbones
from harness.cells import Speed
from harness.cli import selection
from tests.harness.command_line import Ask, records, refused


def test_a_grid(ask: Ask) -> None:
    answer = ask("run --backbone deit_micro pvt_micro --attention softmax 'linear(kernel_size=3)' --task costs")
    assert (answer.status, answer.err) == (0, "")
    found = {(r.cell["backbone"]["name"], r.cell["backbone"]["attention"]) for r in records()}
    linear = "linear(feature_map='relu', kernel_size=3)"
    assert found == {(name, text) for name in ("deit_micro", "pvt_micro") for text in ("softmax(fused=True)", linear)}
    table = answer.out.splitlines()
    assert len([line for line in table if line.startswith(("deit_micro ", "pvt_micro "))]) == 4


def test_set(ask: Ask) -> None:
    assert ask("run --backbone swin_micro --task costs --set window=4 image_size=64").status == 0
    (record,) = records()
    assert record.cell["backbone"]["window"] == 4
    assert record.cell["backbone"]["image_size"] == [64, 64]
    spec = backbones.preset("swin_micro", window=4, image_size=64)
    assert record.metrics["gmacs"] == pytest.approx(backbones.macs(spec).total / 1e9, rel=1e-3)


def test_flags_reach_the_record(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(selection.TASKS, "speed", Speed(min_seconds=0.1))
    speed = "run --backbone deit_micro --task speed --set image_size=8 --batch 2 --precision bf16 --channels-last"
    answer = ask(speed)
    # Other work on the machine may disturb so short a measurement.
    advice = "attention-bench run --retry-disturbed measures again what was disturbed.\n"
    assert (answer.status, answer.err.replace(advice, "")) == (0, "")
    (record,) = records()
    expected = {"device": "cpu", "precision": "bf16", "mode": "eager", "channels_last": True, "batch": 2}
    assert record.cell["task"]["runtime"] == expected
    assert record.metrics["images_per_s"] > 0
    assert "latency: measuring" in answer.out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("run --backbone pvt_x --task costs", "unknown preset 'pvt_x'; did you mean pvt_"),
        ("run quikstart", "unknown sweep 'quikstart'; did you mean quickstart?"),
        ("run --backbone swin_t --task cost", "unknown task 'cost'; did you mean costs? (allowed: costs, speed, tr"),
        ("run --backbone swin_micro --task costs --set image_size=33", "must be multiples of 4 (near: 32x32)"),
    ],
)
def test_unknown_names_and_what_does_not_divide_are_refused(ask: Ask, line: str, said: str) -> None:
    assert said in refused(ask, line)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--task costs --device cpu", "--device has no effect"),
        ("--task costs --epochs 1", "--epochs has no effect"),
        ("--task costs --seed 0", "--seed has no effect"),
        ("--task speed --data fashion_mnist_14k", "--data has no effect"),
        ("--task speed --epochs 1", "--epochs has no effect"),
        ("--task speed --workers 2", "--workers has no effect"),
        ("--task speed --device-batch 2", "--device-batch has no effect"),
        ("--task train --batch 8", "--batch has no effect"),
        ("--task train --channels-last", "--channels-last has no effect"),
        ("--task speed --device tpu", "unknown device 'tpu'; allowed"),
        ("--task train --device tpu", "unknown device 'tpu'; allowed"),
        ("--task speed --precision int8", "unknown precision 'int8'; allowed"),
        ("--task speed --mode fast", "unknown mode 'fast'; allowed"),
        ("--task speed --batch 0", "batch is 0; allowed"),
        ("--task train --epochs 0", "epochs and batch of at least 1, got 0 and 64"),
        ("--task train --seed -1", "seed is -1; allowed are numbers from 0 up"),
        (
            "--task costs --only nonsense",
            "--only nonsense: no cell holds this; the first is called 'deit_micro ",
        ),
    ],
)
def test_flags_without_effect_or_with_values_not_allowed_are_refused(ask: Ask, flags: str, said: str) -> None:
    assert said in refused(ask, f"run --backbone deit_micro {flags}")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("run", "name a sweep, or --backbone and --task"),
        ("run --backbone swin_t", "name a sweep, or --backbone and --task"),
        ("run --task costs", "name a sweep, or --backbone and --task"),
        ("run quickstart --backbone swin_t", "a sweep brings its own cells"),
        ("run quickstart --set window=7", "a sweep brings its own cells"),
        ("run quickstart --only nonsense", "--only nonsense: no cell holds this"),
    ],
)
def test_neither_sweep_nor_grid_or_both_are_refused(ask: Ask, line: str, said: str) -> None:
    assert said in refused(ask, line)


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ("nowhere.py:costs", "there is no Python file 'nowhere.py'"),
        ("notes.txt:costs", "there is no Python file 'notes.txt'"),
        ("folder.py:costs", "there is no Python file 'folder.py'"),
        ("my_sweeps.py:cost", "has no function 'cost'"),
        ("my_sweeps.py:constant", "has no function 'constant'"),
        ("my_sweeps.py:", "my_sweeps.py is a file: add the name of the function in it, as in my_sweeps.py:my_sweep"),
        ("my_sweeps.py", "my_sweeps.py is a file: add the name of the function in it, as in my_sweeps.py:my_sweep"),
        ("my_sweeps.py:number", "does not return a list of cells"),
        ("my_sweeps.py:nothing", "has no cells"),
        ("my_sweeps.py:Costs", "does not return a list of cells"),
        ("my_sweeps.py:needs_an_argument", "missing 1 required positional argument: 'backbone'"),
        ("my_sweeps.py:raises", "failed: RuntimeError: planted"),
        ("my_sweeps.py:leaves", "failed: SystemExit: 3"),
        ("my_sweeps.py:unknown_override", "unknown override of deit_micro (deit) 'window'"),
        ("syntax.py:costs", "syntax.py cannot be loaded: SyntaxError"),
        ("imports.py:costs", "imports.py cannot be loaded: ModuleNotFoundError: No module named 'nowhere'"),
        ("leaves.py:costs", "leaves.py cannot be loaded: SystemExit"),
        ("binary.py:costs", "binary.py cannot be loaded"),
    ],
)
@pytest.mark.parametrize("command", ["run", "table"])
def test_sweeps_of_the_users_own_that_are_wrong_are_refused(ask: Ask, command: str, sweep: str, said: str) -> None:
    Path("notes.txt").write_text("")
    Path("folder.py").mkdir()
    Path("syntax.py").write_text("def costs(:\n")
    Path("imports.py").write_text("import nowhere\n")
    Path("leaves.py").write_text("raise SystemExit(3)\n")
    Path("binary.py").write_bytes(bytes(range(256)))
    assert said in refused(ask, f"{command} {sweep} --out .")
