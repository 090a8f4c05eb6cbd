"""figure: a file of each kind with its numbers beside it, and refusals that write nothing."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from results.figures import ENDINGS
from tests.harness.command_line import Ask, refused
from tests.results.figures.common import FASHION, QUICKSTART


@pytest.fixture
def runs(ask: Ask) -> None:
    shutil.copytree(QUICKSTART, "runs")
    shutil.copytree(FASHION, "seeds")
    shutil.copytree(FASHION, "trained")
    for key in [path.stem for path in Path("trained").glob("*.json")]:
        lines = [f'{{"epoch": {epoch}, "top1": {70 + epoch}, "train_loss": 1.0}}\n' for epoch in (1, 2, 3)]
        Path(f"trained/{key}/metrics.jsonl").write_text("".join(lines))


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format(ask: Ask, ending: str) -> None:
    answer = ask(f"figure accuracy -o front{ending}")
    assert (answer.status, answer.out) == (0, "")
    assert answer.err.startswith(f"wrote front.csv\nwrote front{ending}\nTop-1 of 2,000 images.\n")
    assert Path(f"front{ending}").stat().st_size > 1000
    frame = pd.read_csv("front.csv", keep_default_na=False)
    assert len(frame) == 8
    assert sorted(frame["top1"].round(2)) == [71.8, 74.05, 76.45, 76.9, 78.2, 78.5, 79.75, 80.0]


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    "line",
    [
        "accuracy --x latency_ms_p50 -o figure.svg",
        "accuracy quickstart -o figure.svg",
        "accuracy runs --where backbone=cswin_micro -o figure.svg",
        "accuracy --out runs --out seeds --where seed=1 n_images=10000 -o figure.svg",
        "forest seeds --where seed=1,2 -o figure.svg",
        "forest --out seeds -o figure.svg",
        "ablation --out seeds --option kernel_size -o figure.svg",
        "grid -o figure.svg",
        "breakdown -o figure.svg",
        "curves --out trained -o figure.svg",
        'forest --out seeds --baseline "focused(kernel_size=None)" --title Gains -o figure.svg',
    ],
)
def test_every_kind(ask: Ask, line: str) -> None:
    answer = ask(f"figure {line}")
    assert answer.status == 0, answer.err
    text = Path("figure.svg").read_text()
    assert (">focused<" if "ablation" in line else "focused(kernel_size=5)") in text
    assert (">Gains<" in text) == ("--title" in line)
    assert len(pd.read_csv("figure.csv")) > 1


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("acuracy -o a.pdf", "unknown kind of figure 'acuracy'; did you mean accuracy?"),
        ("hay -o a.pdf", "unknown kind of figure 'hay'; there are: accuracy, "),
        ("accuracy -o a.gif", "a.gif: no format for '.gif'; a figure ends in .svg, .pdf, "),
        ("accuracy -o a.csv/a.pdf", "cannot write a.csv/a.pdf: a.csv is a file"),
        ("accuracy -o folder.pdf", "cannot write folder.pdf: it is a folder"),
        ("accuracy -o taken.pdf", "cannot write taken.csv: it is a folder"),
        ("accuracy --out nowhere -o a.pdf", "there is no folder nowhere"),
        ("accuracy --out empty -o a.pdf", "there are no records in empty"),
        ("accuracy fashion_mnist -o a.pdf", "no model here has both a top1 and a gmacs"),
        ("accuracy --where hay=1 -o a.pdf", "hay"),
        ("accuracy --where backbone=swin_t -o a.pdf", "no row has backbone=swin_t"),
        ("accuracy nowhere/runs -o a.pdf", "there is no folder nowhere/runs"),
        ("accuracy quikstart -o a.pdf", "unknown sweep 'quikstart'"),
        ("accuracy --out seeds -o a.pdf", "no model here has both a top1 and a gmacs"),
        ("accuracy --x hay -o a.pdf", "unknown x 'hay'; allowed: gmacs, "),
        ("accuracy --ema -o a.pdf", "no model here has both a top1_ema and a gmacs"),
        ("accuracy --baseline softmax -o a.pdf", "--baseline has no effect on accuracy; it is for: forest"),
        ("forest --x gmacs --out seeds -o a.pdf", "--x has no effect on forest; it is for: accuracy"),
        ("ablation -o a.pdf", "an ablation takes one option, as in --option kernel_size"),
        ("ablation --option hay -o a.pdf", "two values of hay; attentions here differ in: kernel_size"),
        ("grid --option kernel_size -o a.pdf", "a grid takes two options, or none"),
        ("breakdown --ema -o a.pdf", "--ema has no effect on breakdown; it is for: accuracy, forest, "),
        ("breakdown --out seeds -o a.pdf", "no model here has gmacs, "),
        ("curves -o a.pdf", "no training here has the epochs of its run folder"),
        ("forest --baseline hay --out seeds -o a.pdf", "no trained model here has the attention 'hay'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(ask: Ask, line: str, said: str) -> None:
    for folder in ("folder.pdf", "taken.csv", "empty"):
        Path(folder).mkdir()
    Path("a.csv").write_text("kept")
    assert said in refused(ask, f"figure {line}")


def test_what_scaling_has_written_is_drawn_and_kept(ask: Ask) -> None:
    line = "scaling --attention softmax linear --tokens 49:200 --dim 16 --heads 2 --seconds 0.001"
    assert ask(f"{line} -o scaling.json").status == 0
    written = Path("scaling.json").read_bytes()
    answer = ask("figure scaling scaling.json -o drawn.svg --title Growth")
    assert answer.status == 0, answer.err
    assert ">Growth<" in Path("drawn.svg").read_text()
    assert len(pd.read_csv("drawn.csv")) == 6
    assert "cannot write scaling.json: it is what is read" in refused(
        ask, "figure scaling scaling.json -o scaling.json"
    )
    assert "scaling takes one file" in refused(ask, "figure scaling -o a.svg")
    assert "nowhere.json: cannot be read" in refused(ask, "figure scaling nowhere.json -o a.svg")
    assert "--where has no effect on scaling" in refused(ask, "figure scaling scaling.json --where a=1 -o a.svg")
    # A figure for a page.
    assert ask("figure scaling scaling.json -o page.json").status == 0
    assert Path("scaling.json").read_bytes() == written


@pytest.mark.usefixtures("runs")
def test_bare_is_without_notes(ask: Ask) -> None:
    for bare in ("", " --bare"):
        answer = ask(f"figure accuracy -o a.svg{bare}")
        assert "Top-1 of 2,000 images." in answer.err
        assert (">Top-1 of 2,000 images.<" in Path("a.svg").read_text()) == (not bare)


@pytest.mark.usefixtures("runs")
def test_a_damaged_record_is_named_and_the_others_drawn(ask: Ask) -> None:
    next(Path("runs").glob("*.json")).write_text("{")
    answer = ask("figure accuracy -o a.pdf")
    assert answer.status == 1
    assert "damaged, skipped" in answer.err
    assert Path("a.pdf").exists()
