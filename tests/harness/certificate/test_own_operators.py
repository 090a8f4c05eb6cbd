"""The law `macs` for attentions whose file gives a formula for an operator of its own."""

from pathlib import Path

import pytest

from attentions import AttentionSpec, load
from harness.certificate.costs import growth_of_macs, macs
from harness.certificate.subject import Broken, Subject

FILE = """
import math
import torch
from attentions import Attention, Macs, register, register_operator

@torch.library.custom_op("attention_bench_tests::weighted", mutates_args=())
def weighted(k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return k.transpose(-2, -1) @ v

@weighted.register_fake
def _(k, v):
    return k.new_empty(k.shape[0], k.shape[-1], v.shape[-1])

@register_operator("attention_bench_tests::weighted")
def formula(k, v):
    return FORMULA

@register("mine")
class Mine(Attention):
    def __init__(self, site, *, own: bool = True):
        super().__init__(site)
        self.own = own

    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        return q @ (weighted(k, v) if self.own and CONDITION else k.mT @ v)

    def macs(self):
        n, m = self.site.queries.tokens, self.site.keys.tokens
        return Macs(attention=(n + m) * self.site.dim**2)
"""


def subject(folder: Path, formula: str = "math.prod(k) * v[-1]", condition: str = "True", more: str = "") -> Subject:
    path = folder / "mine.py"
    path.write_text(FILE.replace("FORMULA", formula).replace("CONDITION", condition) + more)
    load(str(path))
    return Subject(AttentionSpec("mine"))


@pytest.mark.usefixtures("users_attentions")
class TestOwnOperators:
    def test_a_true_formula_holds_and_is_named(self, tmp_path: Path) -> None:
        mine = subject(tmp_path)
        assert macs(mine).endswith("agree at 11 sites, with the registered formula of attention_bench_tests::weighted")
        assert growth_of_macs(mine) == "power 1.00, declared 1"

    def test_a_wrong_formula_disagrees_with_that_of_the_attention(self, tmp_path: Path) -> None:
        with pytest.raises(
            Broken, match=r"counts of multiply-adds of mine disagree.*torch 1,152, fvcore 1,152, formula"
        ):
            macs(subject(tmp_path, "2 * math.prod(k) * v[-1]"))

    def test_a_formula_that_grows_otherwise_is_found(self, tmp_path: Path) -> None:
        with pytest.raises(Broken, match=r"the cost grows with power 2\.\d\d of the number of tokens; declared"):
            growth_of_macs(subject(tmp_path, "k[-2]**2 * v[-1]"))

    def test_a_formula_that_raises_is_a_line(self, tmp_path: Path) -> None:
        with pytest.raises(Broken, match=r"the formula of operator \S+, .*mine.py, line 14, raises IndexError: tuple"):
            macs(subject(tmp_path, "k[7]"))

    def test_an_operator_that_is_not_called_has_an_untested_formula(self, tmp_path: Path) -> None:
        mine = subject(tmp_path, condition="q.is_cuda")
        with pytest.raises(Broken, match=r"^operator \S+::weighted has a formula and was not called at 11 sites"):
            macs(mine)

    def test_an_option_may_do_without_the_operator(self, tmp_path: Path) -> None:
        subject(tmp_path)
        without = Subject(AttentionSpec("mine", {"own": False}))
        assert macs(without) == "formula, torch and fvcore agree at 11 sites"

    def test_another_attention_of_the_file_may_call_it(self, tmp_path: Path) -> None:
        mine = subject(tmp_path, condition="False", more="\n\n@register('other')\nclass Other(Mine): pass\n")
        assert macs(mine) == "formula, torch and fvcore agree at 11 sites"
