"""scaling: a row per candidate, its files, and what is refused."""

import json
from pathlib import Path

import pandas as pd
import pytest

from harness.cli.scaling import _shown
from harness.racing.scaling import Crossover
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
    assert [each["tokens"] for each in plain["sizes"]] == [49, 100, 196]
    assert plain["fitted"]["softmax"]["faster_from"] is None
    assert set(plain["fitted"]["linear"]["exponent_of_seconds"]) == {"value", "low", "high"}
    assert ask(f"{LINE} --work forward -o scaling.csv").status == 0
    frame = pd.read_csv("scaling.csv")
    assert frame["tokens"].tolist() == [49, 49, 100, 100, 196, 196]
    assert frame["ms_p50"].gt(0).all()


MODELS = "scaling --attention softmax linear --backbone swin_micro --image-size 32:128 --seconds 0.001"


def test_models_at_growing_images(ask: Ask) -> None:
    answer = ask(f"{MODELS} --work forward -o models.json")
    assert answer.status == 0, answer.err
    assert answer.out.splitlines()[0].split()[:4] == ["candidate", "32x32", "64x64", "128x128"]
    assert "64x64: tokens meet in 8x8 of 16x16, whole map of 8x8." in answer.out
    plain = json.loads(Path("models.json").read_text())
    assert "--backbone swin_micro --image-size 32:128" in plain["command"]
    assert "--tokens" not in plain["command"]
    assert [(each["image_size"], each["tokens"]) for each in plain["sizes"]] == [(32, 64), (64, 256), (128, 1024)]
    assert plain["sizes"][1]["windows"] == "8x8 of 16x16, whole map of 8x8"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Crossover(150.4, 100, 200), "150 (100 to 200)"),
        (Crossover(1500, 1000, None), "1,500 (more than 1,000)"),
        (Crossover(150, None, 200), "150 (at most 200)"),
        (Crossover(150, None, None), "150 (not decided)"),
        (Crossover(None, 100, None), "more than 100"),
        (Crossover(None, None, 100), "at most 100"),
        (Crossover(None, None, None), "not decided"),
    ],
)
def test_a_crossover_is_said_with_what_is_decided_of_it(found: Crossover, said: str) -> None:
    assert _shown(found) == said


REFUSED = {
    f"{MODELS} --tokens 49:100": "--tokens is for attentions by themselves; --backbone takes --image-size",
    MODELS.replace("32:128", "32:33"): "it takes a range with two or more sizes of swin_micro, not 32",
    MODELS.replace("32:128", "64:32"): "--image-size 64:32: write it as in 224:1024",
    MODELS.replace("swin_micro", "nothing"): "unknown preset 'nothing'",
    MODELS.replace("swin_micro", "swin_micro(image_size=64)"): "image_size is what --image-size says",
    MODELS.replace("softmax linear", "softmax operator:itemgetter")
    + " --reference softmax": "it takes attentions by name",
    f"{LINE} --image-size 32:64": "--image-size is for models: name one, as in --backbone swin_t",
    f"{LINE} --work train": "--work train is for models (--backbone); attentions take forward or both",
    "scaling --attention softmax": "a race takes two candidates or more",
    "scaling --attention swin_t pvt_tiny": "--attention swin_t: it takes attentions, not presets",
    LINE.replace("49:200", "49"): "--tokens 49: write it as in 49:16384",
    LINE.replace("49:200", "50:60"): "it takes a range with two or more of 49, 100",
    LINE.replace("heads 2", "heads 3"): "3 heads do not divide 16 channels",
    LINE.replace("dim 16", "dim 0"): "--dim 0: it takes a number from 1 up",
    LINE.replace("seconds 0.001", "seconds 0"): "--seconds 0.0: it takes a number above 0",
    f"{LINE} -o scaling.png": "its name must end in .json, .csv, .md",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_refused(ask: Ask, line: str) -> None:
    assert REFUSED[line] in refused(ask, line)
