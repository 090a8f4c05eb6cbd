"""maps and analyze: files of each form, several models on one scale, and refusals in one line that write nothing."""

import json
import shutil
import warnings
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from backbones import build, preset
from tests.harness.command_line import Ask, refused
from tests.results.figures.common import FASHION


@pytest.fixture
def photo(ask: Ask) -> None:
    Image.effect_noise((40, 30), 80).convert("RGB").save("photo.png")
    Path("text.png").write_text("no image")


KEY = "42ead137b9000bb7"
"""A training among those of Fashion-MNIST."""

MICRO = "maps --preset deit_micro --image photo.png"


@pytest.mark.usefixtures("photo")
@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf", ".html", ".json"])
def test_a_map_in_every_form(ask: Ask, ending: str) -> None:
    answer = ask(f"{MICRO} --attention softmax focused --query 5 -o maps{ending}")
    assert (answer.status, answer.out) == (0, ""), answer.err
    assert "the product of the map and the values is the output" in answer.err
    assert "random weights, seed 0" in answer.err
    assert Path(f"maps{ending}").stat().st_size > 5000
    frame = pd.read_csv("maps.csv")
    assert set(frame["query"]) == {5}
    assert set(frame["model"]) == {"deit_micro softmax", "deit_micro focused"}
    sums = frame[frame["model"] == "deit_micro softmax"].groupby("head")["weight"].sum()
    assert ((sums > 0.9) & (sums < 1)).all(), "the rest is at the class token"


@pytest.mark.usefixtures("photo")
def test_a_slider_over_all_queries_has_the_maps_of_each(ask: Ask) -> None:
    assert ask(f"{MICRO} --query all -o all.json").status == 0
    spec = json.loads(Path("all.json").read_text())
    (slider,) = spec["params"]
    assert (slider["name"], slider["bind"]["input"], slider["bind"]["max"]) == ("query", "range", 63)
    assert ask(f"{MICRO} --query 7 -o one.svg").status == 0
    all_of_them, one = pd.read_csv("all.csv"), pd.read_csv("one.csv")
    assert len(all_of_them) == 64 * len(one)
    assert all_of_them[all_of_them["query"] == 7]["weight"].tolist() == pytest.approx(one["weight"].tolist())


@pytest.mark.usefixtures("photo")
def test_weights_of_files_are_looked_at(ask: Ask) -> None:
    torch.manual_seed(5)
    torch.save({"model": build(preset("deit_micro")).state_dict()}, "five.pth")
    assert ask("maps --checkpoint deit_micro=five.pth --image photo.png --query class -o file.svg").status == 0
    assert ask(f"{MICRO} --seed 5 --query class -o seed.svg").status == 0
    file, seed = pd.read_csv("file.csv"), pd.read_csv("seed.csv")
    assert file["weight"].tolist() == seed["weight"].tolist()
    focused = build(preset("deit_micro", attention="focused")).state_dict()
    torch.save({"model": focused}, "focused.pth")
    line = "maps --preset deit_micro --attention focused --checkpoint focused.pth --image photo.png -o focused.svg"
    assert ask(line).status == 0
    answer = ask("maps --checkpoint deit_micro=five.pth --against deit_micro --image photo.png -o both.svg")
    assert answer.status == 0
    assert {"deit_micro softmax, five.pth", "deit_micro softmax, random weights, seed 0"} <= {
        label.partition(" (")[0] for label in pd.read_csv("both.csv")["model"]
    }


@pytest.mark.usefixtures("photo")
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("maps --image photo.png -o a.png", "name a model: --checkpoint FILE, or --preset PRESET for random weights"),
        (f"{MICRO} --stage 2 -o a.png", "there is no stage 2; the model has 1 stage, counted from 1"),
        (f"{MICRO} --block 9 -o a.png", "stage 1 has no block 9; it has"),
        (f"{MICRO} --query 64 -o a.png", "query '64' is not on the map of 8x8 cells; allowed: 0 to 63"),
        (f"{MICRO} --query -1 -o a.png", "query '-1' is not on the map"),
        (f"{MICRO} --query all -o a.png", "--query all needs a slider: -o FILE.html or FILE.json, not .png"),
        (f"{MICRO} --part convolution -o a.png", "has no depthwise convolution of the values here"),
        (f"{MICRO} --attention dwc --part attention -o a.png", "has no part here but its depthwise convolution"),
        (f"{MICRO} --set image_size=1000000 -o a.png", "memory ran out: "),
        (
            "analyze --preset deit_micro --set image_size=1000000 --data fashion_mnist_14k --images 2 -o out",
            "memory ran out: ",
        ),
        (f"{MICRO} -o a.gif", "a.gif: no format for '.gif'"),
        ("maps --preset swin_micro --query class --image photo.png -o a.png", "there is no class token in this block"),
        (
            "maps --preset deit_micro --image text.png -o a.png",
            "unreadable image text.png: not an image that Pillow can read",
        ),
        ("maps --preset deit_micro --image nowhere.png -o a.png", "unreadable image nowhere.png: No such file"),
        ("maps --preset deit_micro --attention external --image photo.png -o a.png", "does not read v"),
        (f"{MICRO} --attention softmax softmax -o a.png", "twice"),
        ("maps --checkpoint deit_micro= --image photo.png -o a.png", "a file of weights has no name"),
        (f'{MICRO} --against "" -o a.png', "unknown"),
        (f"{MICRO} --attention softmax external -o a.png", "deit_micro external: ExternalAttention does not read v"),
        (f"{MICRO} --checkpoint text.png --attention softmax focused -o a.png", "name one, or leave out --checkpoint"),
        ("maps --preset nonsense --image photo.png -o a.png", "nonsense"),
        (f"{MICRO} -o photo.png", "cannot write photo.png: it is what is read"),
        (f"{MICRO} --seed -1 -o a.png", "--seed -1: it takes a number from 0 to"),
        (f"{MICRO} --seed {10**30} -o a.png", f"--seed {10**30}: it takes a number from 0 to"),
        (f"{MICRO} --set in_channels=4 -o a.png", "the model takes 4 channels; images have 3, or 1 in grey"),
        (
            "analyze --preset deit_micro --set in_channels=2 --data fashion_mnist_14k --images 2 -o out",
            "the model takes 2 channels; images have 3, or 1 in grey",
        ),
        ("maps --checkpoint text.png --image photo.png -o a.png", "text.png"),
        ("maps --checkpoint swin_micro=text.png --image photo.png -o a.png", "text.png"),
        (
            "analyze --preset deit_micro --data fashion_mnist_14k --images 1 -o out",
            "--images 1: it takes a number from 2",
        ),
        (
            "analyze --preset deit_micro --data fashion_mnist_14k --images 99999 -o out",
            "val images; 99,999 are asked for",
        ),
        (
            "analyze --preset deit_micro --data fashion_mnist_14k -o text.png",
            "text.png is a file",
        ),
    ],
)
def test_refusals(ask: Ask, line: str, said: str) -> None:
    before = sorted(Path().iterdir())
    assert said in refused(ask, line)
    assert sorted(Path().iterdir()) == before


@pytest.mark.usefixtures("photo")
def test_a_checkpoint_of_another_model_is_refused(ask: Ask) -> None:
    torch.save({"model": build(preset("swin_micro")).state_dict()}, "swin.pth")
    assert "does not fit deit_micro" in refused(ask, "maps --checkpoint deit_micro=swin.pth --image photo.png -o a.png")


@pytest.mark.usefixtures("photo")
@pytest.mark.parametrize(
    ("line", "said", "file"),
    [
        (f"{MICRO} -o seeds/a.json", "any .json file in", "seeds/a.json"),
        (f"{MICRO} -o seeds/{KEY}/config.json", "it is there already", f"seeds/{KEY}/config.json"),
        ("analyze --preset deit_micro --data fashion_mnist_14k --images 2 -o seeds", "any .json", "seeds/analysis.csv"),
    ],
)
def test_records_and_runs_stay_as_they_are(ask: Ask, line: str, said: str, file: str) -> None:
    Path("seeds", KEY).mkdir(parents=True)
    shutil.copy(FASHION / f"{KEY}.json", "seeds")
    Path("seeds", KEY, "config.json").write_text("{}")
    before = Path(file).read_text() if Path(file).exists() else None
    assert said in refused(ask, line)
    assert (Path(file).read_text() if Path(file).exists() else None) == before


@pytest.mark.usefixtures("photo")
def test_notes_say_what_is_drawn(ask: Ask) -> None:
    line = f"{MICRO} --attention focused -o a.svg"
    product, mean = "the product of the map and the values", "what its convolution adds is the mean over the channels"
    both, attention, convolution = (ask(f"{line} --part {p}").err for p in ("together", "attention", "convolution"))
    assert (product in both, mean in both) == (True, True)
    assert (product in attention, mean in attention) == (True, False)
    assert (product in convolution, mean in convolution) == (False, False)
    assert mean not in ask(f"{MICRO} -o a.svg").err
    answer = ask(f"{MICRO} --query class -o a.svg")
    assert ("Marked" in answer.err, "The query is the class token." in answer.err) == (False, True)


def test_a_large_image_is_read_without_a_warning(ask: Ask) -> None:
    Image.new("1", (10_000, 9_000)).save("large.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ask("maps --preset deit_micro --image large.png -o a.svg").err.startswith("wrote a.csv\n")


def test_analyze(ask: Ask) -> None:
    line = "analyze --preset deit_micro --attention softmax focused --data fashion_mnist_14k --images 4 -o out"
    answer = ask(line)
    assert answer.status == 0, answer.err
    assert "Means over 4 images, ± half the 95 % interval (Student)." in answer.out
    frame = pd.read_csv("out/analysis.csv")
    depth = len(preset("deit_micro").mounts())
    assert frame["model"].tolist() == ["deit_micro softmax"] * depth + ["deit_micro focused"] * depth
    assert ((frame["rank_low"] <= frame["rank"]) & (frame["rank"] <= frame["rank_high"])).all()
    about = json.loads(Path("out/analysis.json").read_text())
    assert (about["seed"], len(about["images"]), len(about["models"])) == (0, 4, 2)
    assert Path("out/analysis.svg").read_text().count(">rank of the map<") == 1
    assert Path("out/analysis.pdf").read_bytes().startswith(b"%PDF")
