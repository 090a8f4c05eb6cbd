"""`attention-bench check`: laws on the screen, a certificate on disk, and what tables make of it."""

import json
import re
from pathlib import Path

import pytest

import results
from attentions import AttentionSpec, _registry
from harness.certificate.certify import LAWS, SLOW
from tests.harness.command_line import Ask, refused

# Linear attention that forgets to count half of what it does.
MINE = '''
"""Attention of mine."""

from torch import Tensor

from attentions import Attention, Macs, Site, register


@register("mine")
class MineAttention(Attention):
    exponent = 2

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, bias=None, x=None, regions=None) -> Tensor:
        heads = [t.unflatten(-1, (self.site.heads, -1)).transpose(1, 2) for t in (q, k, v)]
        scores = (heads[0].double() @ heads[1].double().transpose(-2, -1)).softmax(-1).to(v.dtype)
        return (scores @ heads[2]).transpose(1, 2).flatten(2).to(v.dtype)

    def macs(self) -> Macs:
        return Macs(self.site.queries.tokens * self.site.keys.tokens * self.site.dim)
'''


@pytest.fixture(autouse=True)
def a_registry_of_its_own(monkeypatch: pytest.MonkeyPatch, users_files: None) -> None:
    monkeypatch.setattr(_registry, "_REGISTRY", dict(_registry._REGISTRY))


def test_a_sound_attention_gets_a_certificate(ask: Ask) -> None:
    answer = ask("check linear --quick --out runs")
    assert answer.status == 0
    assert answer.err == ""
    first, *lines, last, _ = answer.out.splitlines()
    assert first == str(AttentionSpec("linear"))
    laws = [name for name in LAWS if name not in SLOW]
    assert [re.split("  +", line)[:2] for line in lines] == [[law, "pass"] for law in laws]
    path = Path(last.rpartition(" ")[2])
    assert last == f"{len(laws)}/{len(laws)} quick, in {path}"
    certificate = results.read_certificate(path)
    assert certificate.form == "quick"
    assert [verdict.law for verdict in certificate.laws] == laws
    assert certificate.environment["torch"]
    assert sorted(path.name for path in Path().iterdir()) == ["my_sweeps.py", "runs"]


def test_a_file_of_ones_own_is_tested_and_a_broken_law_says_where(ask: Ask) -> None:
    Path("mine.py").write_text(MINE)
    answer = ask("check mine.py --quick")
    assert answer.status == 1
    assert answer.err == "attention-bench: 1 attention of 1 failed\n"
    verdicts = {re.split("  +", line)[0]: line for line in answer.out.splitlines()}
    where = r"class token \(B 2, C 48, 3 heads, queries 3x5 after 1 prefix token\)"
    assert re.search(rf"macs +fail +{where}: the counts of multiply-adds", verdicts["macs"])
    assert re.search("reference +exempt +declares no definition", verdicts["reference"])
    assert re.search("mask +exempt +declares that it takes no mask", verdicts["mask"])
    (path,) = Path("runs/certificates").glob("mine-*.json")
    assert results.read_certificate(path).short == "fails macs"


def test_what_asks_for_a_gpu_is_said_and_the_others_are_tested(ask: Ask) -> None:
    kernel = MINE.replace("heads = [t", "raise RuntimeError('0 active drivers ([])')\n        heads = [t")
    Path("kernel.py").write_text(kernel.replace('"mine"', '"kernel"'))
    answer = ask("check kernel.py dwc --quick")
    assert answer.status == 2
    assert answer.err == (
        "attention-bench: kernel asks for a GPU, and cannot be tested on the CPU "
        "(RuntimeError: 0 active drivers ([])): check it with --device cuda, on a machine that has one\n"
    )
    assert [path.name.partition("-")[0] for path in Path("runs/certificates").iterdir()] == ["dwc"]


def test_an_output_that_is_no_tensor_is_one_line_of_check_and_of_run(ask: Ask) -> None:
    Path("mine.py").write_text(MINE.replace(".flatten(2).to(v.dtype)", ".flatten(2).to(v.dtype), scores"))
    answer = ask("check mine.py --quick")
    assert answer.status == 1
    assert re.search(r"\nshape +fail .*: returned a tuple of 2, must be one tensor \(B, N, C\)\n", answer.out)
    assert len(list(Path("runs/certificates").iterdir())) == 1
    for backbone in ("deit_micro", "pvt_micro", "pvt_v2_micro", "swin_micro", "cswin_micro"):
        answer = ask(f"run --import mine.py --backbone {backbone} --attention mine --task costs")
        assert answer.status == 1
        assert "TypeError: forward of MineAttention returned a tuple, not one tensor (B, N, C)" in answer.out


def test_several_are_tested_once_each_with_their_options(ask: Ask) -> None:
    answer = ask("check 'linear(feature_map=elu)' linear 'linear(kernel_size=None)' --quick")
    assert answer.status == 0
    assert len(list(Path("runs/certificates").glob("linear-*.json"))) == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("check", "check takes a file, or names of attentions (agent"),
        ("check focsed", "unknown attention 'focsed'; did you mean focused"),
        ("check linear 'focused(kernel=3)'", "unknown option of focused 'kernel'"),
        ("check linear --device gpu", "unknown device 'gpu'; allowed: cpu, cuda"),
        ("check nothing.py", "there is no Python file 'nothing.py'"),
        ("check my_sweeps.py", "no attention is registered in my_sweeps.py: decorate a class with @register"),
    ],
)
def test_what_is_no_attention_is_refused_before_any_is_tested(ask: Ask, line: str, said: str) -> None:
    assert said in refused(ask, line)


def test_tables_show_the_certificate_of_the_code_that_was_measured(ask: Ask) -> None:
    ask("check 'dwc(kernel_size=3)' --quick")
    ask("run --backbone deit_micro --attention dwc 'dwc(kernel_size=3)' 'dwc(kernel_size=7)' --task costs")
    answer = ask("table --csv table.csv")
    rows = [line for line in answer.out.splitlines() if line.startswith("deit_micro")]
    said = {size: next(row for row in rows if f"kernel_size={size}" in row) for size in (3, 5, 7)}
    quick = f"{len(LAWS) - len(SLOW)}/{len(LAWS) - len(SLOW)} quick"
    assert quick in said[3]
    assert f"{len(LAWS)}/{len(LAWS)}" in said[5], "the project's own"
    assert "/2" not in said[7]
    assert quick in Path("table.csv").read_text()
    (path,) = Path("runs/certificates").iterdir()
    path.write_text(json.dumps({**json.loads(path.read_text()), "source": "0" * 16}))
    assert "of other code" in ask("table").out


def test_the_list_shows_it_and_a_quick_one_does_not_hide_the_full_one(ask: Ask) -> None:
    Path("mine.py").write_text(MINE)
    for line in ("check dwc --quick", "check mine.py --quick"):
        ask(line)
    listed = ask("list attentions --import mine.py").out
    assert re.search(r"\ndwc\(kernel_size=5\)\n +O\(N\) +25/25 +Depthwise convolution", listed)
    assert re.search(r"\nmine\n +O\(N\^2\) +fails macs +Attention of mine", listed)


def test_what_was_measured_with_other_code_is_said_when_it_is_asked_for_again(ask: Ask) -> None:
    Path("mine.py").write_text(MINE)
    line = "run --import mine.py --backbone deit_micro --attention mine dwc --task costs"
    assert ask(line).status == 1  # its count is wrong
    Path("sound.py").write_text(MINE.replace("Macs(", "Macs(2 * ").replace('"mine"', '"sound"'))
    line = "run --import sound.py --backbone deit_micro --attention sound dwc --task costs"
    assert ask(line).status == 0
    assert "another version" not in ask(line).out
    for path in Path("runs").glob("*.json"):
        values = json.loads(path.read_text())
        if values["cell"]["backbone"]["attention"] == "sound":
            path.write_text(json.dumps({**values, "environment": {**values["environment"], "attention_source": "0"}}))
    answer = ask(line)
    assert answer.out.splitlines()[:2] == [
        "2 of 2 cells are recorded in runs already",
        "1 of them with another version of sound than there is now: with another --out they are measured again",
    ]
