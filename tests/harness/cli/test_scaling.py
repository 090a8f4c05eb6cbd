"""scaling: a row per candidate, its files, and what is refused."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.harness.command_line import Ask, refused

LINE = "scaling --attention softmax linear --tokens 49:200 --dim 16 --heads 2 --seconds 0.001"


def test_a_row_per_candidate_and_its_files(ask: Ask) -> None:
    answer = ask(f"{LINE} -o scaling.json")
    assert answer.status == 0, answer.err
    lines = answer.out.splitlines()
    assert lines[0].split()[:4] == ["candidate", "49", "100", "196"]
    assert [line.split()[0] for line in lines[1:3]] == ["softmax", "linear"]
    plain = json.loads(Path("scaling.json").read_text())
    assert plain["command"].startswith("attention-bench scaling --attention softmax linear --tokens 49:200 --dim 16")
    assert [each["place"] for each in plain["tokens"]] == ["49", "100", "196"]
    assert plain["fitted"]["softmax"]["faster_from"] is None
    assert set(plain["fitted"]["linear"]["exponent"]) == {"value", "low", "high"}
    assert ask(f"{LINE} --work forward -o scaling.csv").status == 0
    frame = pd.read_csv("scaling.csv")
    assert frame["tokens"].tolist() == [49, 49, 100, 100, 196, 196]
    assert frame["ms_p50"].gt(0).all()


REFUSED = {
    "scaling --attention softmax": "a race takes two candidates or more",
    "scaling --attention swin_t pvt_tiny": "--attention swin_t: it takes attentions, not presets",
    f"{LINE} --tokens 49": "--tokens 49: write it as in 49:16384",
    f"{LINE} --tokens 50:60": "it takes a range with two or more of 49, 100",
    f"{LINE} --heads 3": "3 heads do not divide 16 channels",
    f"{LINE} --dim 0": "--dim 0: it takes a number from 1 up",
    f"{LINE} --seconds 0": "--seconds 0.0: it takes a number above 0",
    f"{LINE} -o scaling.png": "its name must end in .json, .csv, .md",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_refused(ask: Ask, line: str) -> None:
    assert REFUSED[line] in refused(ask, line)
