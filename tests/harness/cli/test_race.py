"""race: its table, its files, its status, and what is refused before anything is measured."""

import json
import shlex
from pathlib import Path

import pandas as pd
import pytest

from harness.runtimes import exports
from tests.harness.command_line import Ask, refused
from tests.pages import ROOT

pytestmark = pytest.mark.usefixtures("users_files")

SITE = "--site dim=16,heads=2,grid=4x5"
QUICK = "--seconds 0.001 --batch 2"


def test_a_table_with_a_row_per_place_and_the_mean(ask: Ask) -> None:
    answer = ask(f"race softmax linear --at swin_micro {QUICK}")
    assert answer.status == 0, answer.err
    lines = answer.out.splitlines()
    assert " ".join(lines[0].split()) == "place candidate ms (quartiles) x baseline (95 %) verdict peak MiB saved MiB"
    starts = [line.split()[:2] for line in lines[1:6]]
    assert starts[:4] == [[f"swin_micro.{stage}", name] for stage in (1, 2) for name in ("softmax", "linear")]
    assert lines[5].split()[:3] == ["geometric", "mean", "linear"]
    assert "measured in turn here" in answer.out
    assert "wrote" not in answer.err


def test_json_holds_what_the_numbers_rest_on(ask: Ask) -> None:
    assert ask(f"race softmax 'focused(kernel_size=3)@bf16' {SITE} {QUICK} -o race.json").status == 0
    plain = json.loads(Path("race.json").read_text())
    words = shlex.split(plain["command"])
    assert words[:4] == ["attention-bench", "race", "softmax", "focused(kernel_size=3)@bf16"]
    assert ask(f"{shlex.join(words[1:])}").status == 0
    assert {"torch", "device_name", "threads", "commit"} <= set(plain["environment"])
    (place,) = plain["places"]
    assert place["place"] == "dim=16,heads=2,grid=4x5"
    baseline, other = place["results"]
    assert baseline["ratio"] is None
    assert other["ratio_low"] <= other["ratio"] <= other["ratio_high"]
    assert other["own_share"] < 0.5
    assert "raced inputs" in other["checked"]
    assert place["blocks_over"] == "softmax"
    ratios = [r for block in place["blocks"] for r in block["ratios"]["focused(kernel_size=3)@bf16"]]
    assert len(ratios) == other["rounds"]
    assert {"clock", "power", "temperature", "throttles", "others_share"} <= set(place["blocks"][0])


def test_csv_and_markdown(ask: Ask) -> None:
    assert ask(f"race softmax linear {SITE} {QUICK} --work forward -o new/race.csv").status == 0
    frame = pd.read_csv("new/race.csv")
    assert frame["candidate"].tolist() == ["softmax", "linear"]
    assert frame["saved_mib"].isna().all()
    assert (frame["ms_p25"] <= frame["ms_p50"]).all()
    assert ask(f"race softmax linear {SITE} {QUICK} -o race.md").status == 0
    assert Path("race.md").read_text().startswith("| place | candidate |")


def test_the_roofline_is_shown_if_asked_for_and_always_in_files(ask: Ask) -> None:
    answer = ask(f"race softmax linear {SITE} {QUICK} --roofline -o race.csv")
    assert answer.status == 0, answer.err
    assert answer.out.splitlines()[0].endswith("bound by  of the roof")
    frame = pd.read_csv("race.csv")
    least = frame[["least_bytes", "operations"]] / frame[["roof_bytes_per_s", "roof_operations_per_s"]].to_numpy()
    assert (frame["roof_share"] * frame["ms_p50"] / 1e3).tolist() == pytest.approx(least.max(axis=1).tolist())


WRONG = """
def twice(site):
    return lambda q, k, v: 2 * v
"""


def test_a_wrong_candidate_has_no_number_and_the_status_says_so(ask: Ask) -> None:
    Path("wrong.py").write_text(WRONG)
    answer = ask(f"race softmax wrong.py:twice --reference softmax {SITE} {QUICK} -o race.csv")
    assert answer.status == 1
    assert "no number" in answer.out
    assert (
        "wrong.py:twice at dim=16,heads=2,grid=4x5: the output differs from the reference in float64 by" in answer.out
    )
    wrong = pd.read_csv("race.csv").iloc[1]
    assert wrong[["ms_p50", "ratio", "peak_mib"]].isna().all()
    assert "differs from the reference" in wrong["problem"]


def test_an_attention_of_the_users_own_is_in_the_command_that_repeats_it(ask: Ask) -> None:
    assert ask("new races_mine").status == 0
    assert ask(f"race softmax races_mine {SITE} {QUICK} --import races_mine.py -o race.json").status == 0
    command = json.loads(Path("race.json").read_text())["command"]
    assert command.endswith(f"--import {Path('races_mine.py').resolve()}")


def test_models(ask: Ask) -> None:
    answer = ask(f"race deit_micro 'deit_micro(attention=linear)' {QUICK} --work train")
    assert answer.status == 0, answer.err
    assert answer.out.splitlines()[0].split()[0] == "candidate"
    assert "a training step with AdamW of 2 images" in answer.out


def test_another_runtime_is_a_candidate(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "cache_folder", lambda: tmp_path / "exports")
    answer = ask(f"race linear linear@onnxruntime {SITE} {QUICK} --work forward -o race.json")
    assert answer.status == 0, answer.err
    assert [line.split()[1] for line in answer.out.splitlines()[1:3]] == ["linear", "linear@onnxruntime"]
    eager, other = json.loads(Path("race.json").read_text())["places"][0]["results"]
    assert eager["runtime"] is None
    assert other["runtime"]["runtime"] == "onnxruntime"
    assert other["runtime"]["export"]["operators"]["MatMul"] >= 2
    assert ": right: " in other["checked"]


def test_plain_forms_race_in_the_layers_of_several_presets(ask: Ask) -> None:
    focused = f"{ROOT}/tests/plain_forms.py:focused"
    line = f"race {focused} focused --reference focused --at swin_micro cswin_micro --layer layer {QUICK} -o race.json"
    answer = ask(line)
    assert answer.status == 0, answer.out + answer.err
    plain = json.loads(Path("race.json").read_text())
    places = [each["place"] for each in plain["places"]]
    assert places[:3] == ["swin_micro.1", "swin_micro.2", "cswin_micro.1"]
    assert len(set(places)) == len(places)
    assert "--at swin_micro cswin_micro" in plain["command"]
    assert all(
        "raced inputs: largest difference" in row["checked"] for each in plain["places"] for row in each["results"]
    )


REFUSED = {
    f"linear linear@onnxruntime {SITE}": "linear@onnxruntime: onnxruntime has no backward pass: --work forward",
    f"linear linear@openvino {SITE} --work forward --precision bf16": "openvino is raced in fp32, not bf16",
    "softmax linear": "attentions are raced somewhere: --at swin_t, or --site swin_t.1",
    f"softmax {SITE}": "a race takes two candidates or more",
    f"softmax linear {SITE} --work train": "--work train is for models; attentions take forward or both",
    "swin_t pvt_tiny --at swin_t": "models have no place: leave out --at, --site and --layer",
    "swin_t pvt_tiny --layer layer": "models have no place",
    f"softmax linear {SITE} --layer layer": "has no layer: --layer layer takes --at swin_t or --site swin_t.1",
    f"softmax linear {SITE} --seconds 0": "--seconds 0.0: it takes a number above 0",
    f"softmax linear {SITE} --seconds nan": "--seconds nan: it takes a number above 0",
    f"softmax linear {SITE} --batch 0": "--batch 0: it takes a number from 1 up",
    f"softmax linear {SITE} --device tpu": "unknown device 'tpu'",
    f"softmax linear {SITE} --precision fp8": "unknown precision 'fp8'",
    f"softmax linear {SITE} --work backward": "--work backward: allowed: forward, both, train",
    f"softmax linear {SITE} -o race.txt": "-o race.txt: its name must end in .json, .csv, .md",
    f"softmax linear {SITE} -o my_sweeps.py/race.md": "my_sweeps.py is a file",
    "softmax linear --site swin_t.9": "swin_t has no stage 9",
    "softmax linear --at nothing": "unknown preset 'nothing'",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_refused(ask: Ask, line: str) -> None:
    assert REFUSED[line] in refused(ask, f"race {line}")
