"""`register_operator`: what it takes, and what it refuses in one line. How it counts: tests/harness/measures."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from attentions import load, operator_macs, operators, register_operator

pytestmark = pytest.mark.usefixtures("users_attentions")


@torch.library.custom_op("attention_bench_tests::double", mutates_args=())
def double(x: Tensor) -> Tensor:
    return 2 * x


NAME = "attention_bench_tests::double"


def first(x: tuple[int, ...]) -> int:
    return x[0]


def test_a_formula_is_returned_as_it_was_and_gets_shapes() -> None:
    assert register_operator(NAME)(first) is first
    assert operators()[NAME] is first
    assert operator_macs(NAME, [(3, 4)]) == 3


def test_the_same_formula_again_changes_nothing() -> None:
    """As where two files load the same operator, each from a copy of one file."""
    copies: list[dict] = [{}, {}]
    for scope in copies:
        exec("def copied(x):\n    return 0", scope)
        register_operator(NAME)(scope["copied"])
    assert operators() == {NAME: copies[0]["copied"]}


def test_another_formula_is_refused_and_says_where_the_first_is() -> None:
    register_operator(NAME)(first)
    with pytest.raises(ValueError) as error:
        register_operator(NAME)(lambda x: 1)
    line = first.__code__.co_firstlineno
    assert str(error.value) == f"operator {NAME} has another formula already, {__file__}, line {line}"
    assert operators()[NAME] is first


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (double, r'^register_operator takes a name, as in @register_operator\("my_ops::mix"\)$'),
        (
            "attention_bench_tests::dubble",
            r"^torch has no operator '.*dubble'; did you mean attention_bench_tests::double",
        ),
        ("nowhere", r"^torch has no operator 'nowhere'.*\(define it before its formula\)$"),
        ("", r"^torch has no operator ''"),
    ],
)
def test_what_is_no_operator_is_refused(name, said) -> None:
    with pytest.raises(ValueError, match=said):
        register_operator(name)(first)
    assert not operators()


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(ValueError, match=f"^the formula of operator {NAME} is no function: 3$"):
        register_operator(NAME)(3)  # type: ignore[arg-type]


def test_a_file_that_cannot_be_loaded_leaves_no_formula(tmp_path: Path) -> None:
    text = f"from attentions import register_operator\nregister_operator('{NAME}')(lambda x: 1)\n"
    (tmp_path / "mine.py").write_text(f"{text}register_operator('no::such')(lambda x: 1)\n")
    with pytest.raises(
        ValueError, match=r"mine.py cannot be loaded: torch has no operator 'no::such'.*\(mine.py, line 3\)"
    ):
        load(str(tmp_path / "mine.py"))
    assert not operators()
