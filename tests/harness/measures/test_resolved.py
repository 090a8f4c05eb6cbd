"""The resolved table says of every stage what the official code builds, and its columns add up."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from backbones import preset
from harness.measures.resolved import HEADERS, resolved_table
from results.tables import Sheet

GOLDEN = Path(__file__).parents[2] / "golden"
MODELS = sorted(path.stem for path in GOLDEN.glob("*.json") if not path.stem.endswith("_op"))
STRIDES = {"deit": (16,), "other": (4, 8, 16, 32)}
CLASSES = {
    "FocusedLinearAttention": "focused",
    "AgentAttention": "agent",
    "InLineAttention": "inline",
    "PolaLinearAttention": "polaformer",
}


class Block(NamedTuple):
    """What the table says of a block; `shift` and all else as it is printed."""

    stage: int
    map: str
    tokens: int
    dim: int | None
    heads: int
    attention: str
    keys: str
    meets: str
    shift: str


def golden(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def official_blocks(reference: dict[str, Any]) -> Iterator[Block]:
    """The blocks of an official model, from the modules found in it."""
    architecture = reference["architecture"]
    windows = {path: rest for path, *rest in architecture.get("blocks_path_resolution_window_shift", [])}
    positions = {key: shape for key, shape, *_ in reference["state_dict"] if "pos_embed" in key}
    branches: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for module in architecture["attention_modules"]:
        numbers = [int(number) for number in re.findall(r"\d+", module["path"])]
        match module["path"].split(".")[0]:
            case "layers":
                place = (numbers[0] + 1, numbers[1])
            case "blocks":
                place = (1, numbers[0])
            case _:
                place = (numbers[0], numbers[1])
        branches.setdefault(place, []).append(module)
    for (stage, _), modules in branches.items():
        first = modules[0]
        stride = STRIDES["deit" if first["path"].startswith("blocks") else "other"][stage - 1]
        side = reference["img_size"] // stride
        keys, meets, shift = f"{side}x{side}", "whole map", 0
        prefix = 0
        if windows:
            resolution, window, shift = windows[first["path"].removesuffix(".attn")]
            assert resolution == [side, side]
            assert first["window_size"] == [window, window]
            keys = f"{window}x{window}"
            meets = "whole map" if window == side else keys
        elif "H_sp" in first:
            tiles = [(module["H_sp"], module["W_sp"]) for module in modules]
            keys = "{}x{}".format(*tiles[0])
            meets = " and ".join("whole map" if tile == (side, side) else "{}x{}".format(*tile) for tile in tiles)
        elif "sr_ratio" in first:
            reduced = side // first["sr_ratio"]
            prefix = positions.get(f"pos_embed{stage}", [1, side * side])[1] - side * side
            keys = f"{reduced}x{reduced}" + (f" (1/{first['sr_ratio']})" if first["sr_ratio"] > 1 else "")
        else:
            prefix = positions["pos_embed"][1] - side * side
        mark = f"+{prefix}" if prefix else ""
        yield Block(
            stage=stage,
            map=f"{side}x{side}{mark}",
            tokens=side * side + prefix,
            dim=sum(module["dim"] for module in modules) if "dim" in first else None,
            heads=sum(module["num_heads"] for module in modules),
            attention=CLASSES.get(first["class"], "softmax"),
            keys=f"{keys}{mark}",
            meets=meets,
            shift=str(shift),
        )


def rows(sheet: Sheet) -> list[dict[str, str]]:
    return [dict(zip(HEADERS, row, strict=True)) for row in sheet.rows]


def shown_blocks(sheet: Sheet) -> Iterator[Block]:
    """Each row as many times as it has blocks; shifts 0/3 alternate, beginning without."""
    for row in rows(sheet):
        if not row["stage"].isdigit():
            continue
        shifts = row["shift"].split("/")
        for block in range(int(row["blocks"])):
            yield Block(
                stage=int(row["stage"]),
                map=row["map"],
                tokens=int(row["tokens"]),
                dim=int(row["dim"]),
                heads=int(row["heads"]),
                attention=row["attention"].partition("(")[0],
                keys=row["keys"],
                meets=row["meets"],
                shift=shifts[block % len(shifts)],
            )


def notes(name: str, **overrides: object) -> str:
    return "\n".join(resolved_table(preset(name, **overrides)).notes)


@pytest.mark.parametrize("name", MODELS)
def test_the_table_is_the_official_architecture(name: str) -> None:
    official = list(official_blocks(golden(name)))
    shown = list(shown_blocks(resolved_table(preset(name))))
    assert len(official) > 4
    for ours, theirs in zip(shown, official, strict=True):
        assert ours._replace(dim=theirs.dim if theirs.dim is None else ours.dim) == theirs


@pytest.mark.parametrize("name", MODELS)
def test_the_total_is_the_official_count(name: str) -> None:
    reference = golden(name)
    total = rows(resolved_table(preset(name)))[-1]
    assert total["params (M)"] == f"{reference['n_params'] / 1e6:.3f}"
    assert total["GMACs"] == f"{reference['flops']['fvcore']['matmul_conv_only'] / 1e9:.4f}"


@pytest.mark.parametrize("name", [*MODELS, "pvt_v2_b2_li", "flatten_deit_t", "swin_micro", "cswin_micro"])
def test_columns_add_up(name: str) -> None:
    *parts, total = rows(resolved_table(preset(name)))
    assert [part["stage"] for part in parts][-1] == "head"
    assert total["stage"] == "all"
    for column, half_a_digit in (("params (M)", 0.0005), ("GMACs", 0.00005)):
        numbers = [float(part[column]) for part in parts if part[column]]
        assert len(numbers) == len({part["stage"] for part in parts}), "a number a stage, and one of the head"
        assert sum(numbers) == pytest.approx(float(total[column]), abs=half_a_digit * (len(numbers) + 1))


def test_pooled_keys() -> None:
    """PVTv2-b2-li pools the keys of every stage to 7 x 7; its table prints 22.6 M and 3.9 G."""
    *stages, _, total = rows(resolved_table(preset("pvt_v2_b2_li")))
    assert [row["keys"].split()[0] for row in stages] == ["7x7"] * 4
    assert [(row["map"], row["dim"], row["heads"], row["blocks"]) for row in stages] == [
        ("56x56", "64", "1", "3"),
        ("28x28", "128", "2", "4"),
        ("14x14", "320", "5", "6"),
        ("7x7", "512", "8", "3"),
    ]
    assert float(total["params (M)"]) == pytest.approx(22.6, abs=0.05)
    assert float(total["GMACs"]) == pytest.approx(3.9, abs=0.05)


def test_a_mixed_stage_has_a_row_for_each_kind_of_block_and_its_counts_once() -> None:
    table = rows(resolved_table(preset("flatten_swin_t", stages="LLMS3")))
    third = [row for row in table if row["stage"] == "3"]
    assert [(row["blocks"], row["attention"].partition("(")[0], row["meets"]) for row in third] == [
        ("3", "focused", "whole map"),
        ("3", "softmax", "7x7"),
    ]
    assert [bool(row["params (M)"]) for row in third] == [True, False]


def test_every_option_of_the_attention_is_spelled_out() -> None:
    table = rows(resolved_table(preset("swin_micro", attention="focused(kernel_size=None)")))
    assert table[0]["attention"] == "focused(focusing_factor=3, kernel_size=None, positional_encoding=True)"


def test_maps_that_are_not_square() -> None:
    table = rows(resolved_table(preset("pvt_t", image_size=(192, 256))))
    assert [row["map"] for row in table[:4]] == ["48x64", "24x32", "12x16", "6x8+1"]
    assert "3x192x256 -> 1000 classes" in notes("pvt_t", image_size=(192, 256))


@pytest.mark.parametrize(
    ("overrides", "policy"),
    [({"window": 7}, "ignored"), ({"window": 7, "honour_shift_mask": True}, "honoured")],
    ids=["default", "honoured"],
)
def test_what_becomes_of_the_shift_mask_in_small_windows(overrides: dict[str, Any], policy: str) -> None:
    said = notes("flatten_swin_t", **overrides)
    assert re.findall(r"Shift mask of focused in shifted windows: (\w+)", said) == [policy]
    assert re.findall(r"Shift mask of softmax in shifted windows: (\w+)", said) == ["honoured"]


def test_nothing_is_said_of_a_mask_where_nothing_shifts() -> None:
    assert "Shift mask of focused" not in notes("flatten_swin_t")
    assert "Shift mask" not in notes("flatten_pvt_t")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("flatten_swin_t", "window=56 is larger than the map of stage 2"),
        ("flatten_pvt_t", "never used, as in the official code: norm.weight, norm.bias"),
        ("deit_t", "class token"),
        ("pvt_tiny", "class token"),
    ],
)
def test_notes(name: str, said: str) -> None:
    assert said in notes(name)


@pytest.mark.parametrize(
    ("name", "unsaid"), [("swin_t", "larger than"), ("pvt_tiny", "never used"), ("flatten_pvt_t", "class token")]
)
def test_notes_that_do_not_apply_are_left_out(name: str, unsaid: str) -> None:
    assert unsaid not in notes(name)
