"""The hash of an attention's code covers what runs and all that it is made of, and nothing else."""

import sys
from pathlib import Path

import pytest

from attentions import load, lookup, source_digest
from attentions._source import class_digest
from tests.attentions.test_registry import WHOLE

pytestmark = pytest.mark.usefixtures("users_attentions")

TWICE = "def f(x):\n    return 2 * x\n"


def anew(name: str) -> str:
    """Return the hash that a process loading the files now would find."""
    return class_digest.__wrapped__(lookup(name))


@pytest.mark.parametrize("later", [WHOLE.replace("return v", "return 2 * v"), "def half(", None])
def test_it_is_of_what_was_loaded_whatever_becomes_of_the_file(tmp_path: Path, later: str | None) -> None:
    path = tmp_path / "mine.py"
    path.write_text(WHOLE)
    load(str(path))
    if later is None:
        path.unlink()
    else:
        path.write_text(later)
    found = source_digest("mine")
    path.write_text(WHOLE)
    assert found == anew("mine")
    path.write_text(WHOLE + "# another\n")
    assert found != anew("mine")


def test_a_copy_elsewhere_is_the_same_code(tmp_path: Path) -> None:
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        (folder / "mine.py").write_text(WHOLE.replace('"mine"', f'"{folder.name}"'))
        load(str(folder / "mine.py"))
        (folder / "mine.py").write_text(WHOLE)
        found.append(anew(folder.name))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbf" + WHOLE.encode(), b"# -*- coding: latin-1 -*-\n# caf\xe9\n" + WHOLE.encode()],
    ids=["byte order mark", "latin-1"],
)
def test_it_is_of_bytes_whatever_their_encoding(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine.py").write_bytes(content)
    load(str(tmp_path / "mine.py"))
    assert source_digest("mine") == anew("mine")


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("plugin_e", "from plugin_e.pieces import f"),
        ("plugin_f", "from plugin_f import pieces"),
        ("plugin_g", "import plugin_g.pieces"),
        ("plugin_h", "from .pieces import f"),
        ("plugin_i", "from . import pieces"),
        ("plugin_j", "from .deep.further import g"),
        ("plugin_k", "from .deep import g"),
    ],
)
def test_what_it_imports_of_its_own_package_belongs_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, line: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / package
    (folder / "deep").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "attention.py").write_text(f"{line}\n{WHOLE}")
    (folder / "pieces.py").write_text("def f(x):\n    return x\n")
    (folder / "unused.py").write_text("")
    (folder / "deep" / "__init__.py").write_text("from .further import g\n")
    (folder / "deep" / "further.py").write_text("from ..pieces import f as g\n")
    assert load(f"{package}.attention") == ["mine"]
    before = source_digest("mine")
    (folder / "unused.py").write_text(TWICE)
    assert anew("mine") == before
    (folder / "pieces.py").write_text(TWICE)
    assert anew("mine") != before


@pytest.mark.parametrize("line", ["from attentions.focused import FocusedAttention", "import attentions.focused"])
def test_what_it_imports_of_ours_belongs_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """A class derived from one of ours changes its results when that one does."""
    path = tmp_path / "mine.py"
    path.write_text(f"{line}\n{WHOLE}")
    load(str(path))
    before, read = source_digest("mine"), Path.read_bytes
    for name, changes in (("focused", True), ("_linear", True), ("_contract", False), ("softmax", False)):
        file = Path(sys.modules[f"attentions.{name}"].__file__ or "")
        with monkeypatch.context() as edited:
            edited.setattr(Path, "read_bytes", lambda self, file=file: read(self) + b"#" * (self == file))
            assert (anew("mine") != before) is changes, name


def test_what_was_typed_in_is_known_again_nowhere() -> None:
    exec(WHOLE, {"__name__": "typed"})
    assert anew("mine") != source_digest("mine")
    assert len(source_digest("mine")) == 16
