"""A cell's key is the hash of everything that matters, and of nothing else."""

import json
from dataclasses import fields, replace

from backbones import preset
from harness.cells import MICRO, Cell, Costs, DataSource, Evaluate, Runtime, RunWeights, Speed, Train, Weights
from results.tables.paired import INCIDENTAL

FASHION = DataSource(name="fashion_mnist_14k")


def test_the_json_is_plain_and_holds_every_value():
    cell = Cell(preset("flatten_swin_t"), Speed(Runtime(batch=8)))
    plain = cell.to_json()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["backbone"]["attention"] == "focused(focusing_factor=3, kernel_size=5, positional_encoding=True)"
    assert plain["backbone"]["window"] == 56
    assert plain["task"]["name"] == "speed"
    assert plain["task"]["runtime"]["batch"] == 8


def test_what_changes_the_key():
    train = Train(recipe=MICRO, data=FASHION)
    cells = [
        Cell(preset("swin_micro"), Costs()),
        Cell(preset("swin_micro"), Speed()),
        Cell(preset("swin_micro"), Speed(Runtime(batch=8))),
        Cell(preset("swin_micro"), Speed(Runtime(precision="bf16"))),
        Cell(preset("swin_micro", attention="linear"), Costs()),
        Cell(preset("swin_micro", attention="linear(kernel_size=3)"), Costs()),
        Cell(preset("swin_micro", window=4), Costs()),
        Cell(preset("swin_micro"), train),
        Cell(preset("swin_micro"), replace(train, seed=1)),
        Cell(preset("swin_micro"), replace(train, recipe=replace(MICRO, epochs=2))),
        Cell(preset("pvt_v2_micro"), Costs()),
    ]
    assert len({cell.key for cell in cells}) == len(cells)


def test_what_does_not_change_the_key():
    """Labels, and how many processes read the images."""
    assert Cell(preset("flatten_deit_t", attention="softmax"), Costs()).key == Cell(preset("deit_t"), Costs()).key
    spelled = "focused(positional_encoding=True, kernel_size=5)"
    assert (
        Cell(preset("swin_t", attention=spelled), Costs()).key
        == Cell(preset("swin_t", attention="focused"), Costs()).key
    )
    train = Train(recipe=MICRO, data=FASHION)
    assert Cell(preset("swin_micro"), train).key == Cell(preset("swin_micro"), replace(train, workers=3)).key


def test_a_key_is_the_same_in_another_process():
    """Records outlive the process that wrote them; this value changes only if the meaning of a cell does."""
    key = Cell(preset("deit_micro"), Costs()).key
    assert len(key) == 16
    assert int(key, 16) >= 0
    import subprocess
    import sys

    code = (
        "from backbones import preset; from harness.cells import Cell, Costs;"
        "print(Cell(preset('deit_micro'), Costs()).key)"
    )
    assert subprocess.check_output([sys.executable, "-W", "ignore", "-c", code], text=True).strip() == key


def test_comparisons_ignore_what_keys_ignore() -> None:
    """`results` cannot ask the tasks which of their fields change no result: it has a list, which has to be theirs."""
    ignored = {
        f.name for part in (Train, Evaluate, DataSource, Weights, RunWeights) for f in fields(part) if not f.compare
    }
    assert ignored == set(INCIDENTAL)
