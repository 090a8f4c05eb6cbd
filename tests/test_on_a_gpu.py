"""The list of what only a GPU shows is that of the tests with its marker, and they are skipped without one."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.on_a_gpu import ONLY_THERE

TESTS = Path(__file__).parent


def marked(source: str) -> Iterator[str]:
    """The test functions whose decorators name the marker `gpu`, or the devices of which one has it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            decorators = " ".join(map(ast.unparse, node.decorator_list))
            if "mark.gpu" in decorators or "DEVICES" in decorators:
                yield node.name


def test_the_list_is_that_of_the_marked_tests() -> None:
    found = {
        f"{path.relative_to(TESTS)}::{name}" for path in TESTS.rglob("test_*.py") for name in marked(path.read_text())
    }
    assert found == set(ONLY_THERE)
    assert list(ONLY_THERE) == sorted(ONLY_THERE)


def test_a_marker_is_found() -> None:
    source = """
@pytest.mark.gpu
def test_there(): ...
@pytest.mark.parametrize("device", DEVICES)
def test_on_both(device): ...
@pytest.mark.parametrize("x", [1, pytest.param(2, marks=pytest.mark.gpu)])
def test_one_there(x): ...
@pytest.mark.slow
def test_here(): ...
"""
    assert list(marked(source)) == ["test_there", "test_on_both", "test_one_there"]
