"""The hash of an attention's code covers what runs and all that it is made of, and nothing else."""

import sys
from pathlib import Path

import pytest

from attentions import (
    Grid,
    Site,
    copied_files,
    load,
    loaded_files,
    lookup,
    source_digest,
    temporary_registry,
)
from attentions._source import OURS, class_digest
from harness.process.environment import PACKAGES
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


BESIDE = """
from attentions import Attention, Macs, register

@register("mine")
class Mine(Attention):
    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        return f(v)

    def macs(self):
        return Macs()
"""
DEEP = "def f(x):\n    return x\n"


@pytest.mark.parametrize(
    ("main", "line", "files"),
    [
        ("mine.py", "from piece_a import f", {"piece_a.py": DEEP, "unused.py": ""}),
        (
            "mine.py",
            "from piece_b import f",
            {"piece_b.py": "from piece_c import f", "piece_c.py": DEEP, "unused.py": ""},
        ),
        ("mine.py", "from piece_d.e import f", {"piece_d/__init__.py": DEEP, "piece_d/e.py": "from piece_d import f"}),
        ("mine.py", "import piece_n.e; f = piece_n.e.f", {"piece_n/e.py": DEEP}),
        (
            "piece_p/mine.py",
            "from .pieces import f",
            {"piece_p/pieces.py": "from . import f", "piece_p/__init__.py": DEEP},
        ),
        ("piece_q/r/mine.py", "from ..pieces import f", {"piece_q/pieces.py": DEEP}),
        ("piece_s/mine.py", "from piece_s.t.u import f", {"piece_s/t/u.py": DEEP}),
        ("mine.py", "import importlib; f = importlib.import_module('piece_v').f", {"piece_v.py": DEEP}),
        (
            "piece_w/mine.py",
            "from importlib import import_module; from . import x; f = import_module('.pieces', 'piece_w').f",
            {"piece_w/pieces.py": DEEP, "piece_w/__init__.py": "x = 1"},
        ),
    ],
    ids=[
        *("beside it", "beside that", "package", "folder", "in a package", "above", "by the name of its folder"),
        *("by a function", "by a function in a package"),
    ],
)
def test_what_lies_beside_it_and_is_imported_belongs_to_it_and_is_copied(
    tmp_path: Path, main: str, line: str, files: dict[str, str]
) -> None:
    """The copy of a user's file has all of its files, and is the same code."""
    texts = {main: line + BESIDE, **files}

    def write(folder: Path) -> Path:
        for name, text in texts.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return folder / main

    def found(folder: Path) -> tuple[str, dict[str, Path]]:
        with temporary_registry():
            assert load(str(folder / main)) == ["mine"]
            assert lookup("mine")(Site(4, 2, Grid(2, 2), Grid(2, 2)))(1, 2, 3) == 3
            return source_digest("mine"), copied_files(folder / main)

    write(tmp_path / "here")
    digest, copies = found(tmp_path / "here")
    texts.pop("unused.py", None)
    assert next(iter(copies)) == main
    assert copies == {name: tmp_path / "here" / name for name in texts}
    write(tmp_path / "there")
    assert found(tmp_path / "there") == (digest, {name: tmp_path / "there" / name for name in texts})
    for name in texts:
        texts[name] += "\n"
        write(tmp_path / "there")
        assert found(tmp_path / "there")[0] != digest, name
        texts[name] = texts[name][:-1]


def test_what_lies_in_a_folder_that_it_adds_to_the_path_belongs_to_it(tmp_path: Path) -> None:
    """The copy has it beside the file, where the folder is not."""
    line = "import os, sys; sys.path.insert(0, os.path.join(os.path.dirname(__file__), 'lib'))\nfrom piece_x import f"
    (tmp_path / "here/lib").mkdir(parents=True)
    (tmp_path / "here/mine.py").write_text(line + BESIDE)
    (tmp_path / "here/lib/piece_x.py").write_text("from piece_y import f")
    (tmp_path / "here/lib/piece_y.py").write_text(DEEP)
    path = list(sys.path)
    with temporary_registry():
        load(str(tmp_path / "here/mine.py"))
        digest, copies = source_digest("mine"), copied_files(tmp_path / "here/mine.py")
    assert sys.path == path
    assert copies.keys() == {"mine.py", "piece_x.py", "piece_y.py"}
    (tmp_path / "there").mkdir()
    for name, file in copies.items():
        (tmp_path / "there" / name).write_bytes(file.read_bytes())
    with temporary_registry():
        load(str(tmp_path / "there/mine.py"))
        assert source_digest("mine") == digest
    (tmp_path / "there/piece_y.py").write_text(TWICE)
    with temporary_registry():
        load(str(tmp_path / "there/mine.py"))
        assert source_digest("mine") != digest


def test_what_is_typed_later_beside_it_changes_nothing_that_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from piece_f import f\n" + BESIDE)
    (tmp_path / "piece_f.py").write_text(DEEP)
    load(str(tmp_path / "mine.py"))
    found = source_digest("mine")
    (tmp_path / "piece_f.py").write_text(TWICE)
    assert source_digest("mine") == found != anew("mine")


def test_a_module_in_the_folder_of_the_command_is_loaded_as_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs, which have only the copies of files, could not import it by its name."""
    (tmp_path / "piece_g").mkdir()
    (tmp_path / "piece_g" / "mine.py").write_text("from piece_h import f\n" + BESIDE)
    (tmp_path / "piece_h.py").write_text(DEEP)
    monkeypatch.chdir(tmp_path)
    assert load("piece_g.mine") == ["mine"]
    assert loaded_files() == [tmp_path / "piece_g" / "mine.py"]
    assert copied_files(*loaded_files()) == {"mine.py": loaded_files()[0], "piece_h.py": tmp_path / "piece_h.py"}


def test_our_folders_are_those_of_the_project() -> None:
    assert OURS == PACKAGES


def test_what_was_typed_in_is_known_again_nowhere() -> None:
    exec(WHOLE, {"__name__": "typed"})
    assert anew("mine") != source_digest("mine")
    assert len(source_digest("mine")) == 16
