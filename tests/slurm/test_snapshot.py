"""The copy of the code that jobs run: named after what is in it, whole or not there, and deaf to later changes."""

import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from slurm import copy_code

FILES = {"user/0/sweeps.py": "ten = 10\n", "checkout.json": "{}\n"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with two packages, and more that no job needs."""
    folder = tmp_path / "checkout"
    for name in ("one/__init__.py", "one/deep/data.csv", "two/__init__.py", "other/__init__.py", "notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"# {name}\n")
    return folder


def copy(root: Path, files: Mapping[str, str] = FILES) -> Path:
    content = {name: text.encode() for name, text in files.items()}
    return copy_code(root, ["one", "two"], root.parent / "copies", content)


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_it_holds_the_packages_and_the_further_files_and_nothing_else(root: Path) -> None:
    names = ("one/__init__.py", "one/deep/data.csv", "two/__init__.py")
    assert tree(copy(root)) == {name: f"# {name}\n" for name in names} | FILES


def test_the_same_code_is_copied_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = copy(root)
    monkeypatch.setattr(shutil, "copytree", None)
    assert copy(root) == first
    assert list(first.parent.iterdir()) == [first]


@pytest.mark.parametrize("name", ["two/__init__.py", "one/deep/data.csv", "one/new.py"])
def test_other_code_is_another_copy_and_the_first_stays_as_it_was(root: Path, name: str) -> None:
    first = copy(root)
    before = tree(first)
    (root / name).write_text("changed\n")
    second = copy(root)
    assert second != first
    assert (second / name).read_text() == "changed\n"
    assert tree(first) == before


def test_a_file_that_moves_or_another_further_file_is_another_copy(root: Path) -> None:
    first = copy(root)
    assert copy(root, FILES | {"user/0/sweeps.py": "ten = 11\n"}) != first
    assert copy(root, {"user/1/sweeps.py": FILES["user/0/sweeps.py"], "checkout.json": "{}\n"}) != first
    (root / "one" / "deep" / "data.csv").rename(root / "one" / "deep" / "date.csv")
    assert copy(root) != first


def test_what_python_keeps_beside_the_code_is_no_part_of_it(root: Path) -> None:
    first = copy(root)
    cache = root / "one" / "__pycache__"
    cache.mkdir()
    # The second is what Python writes before it renames it: it may be gone at the next look.
    for name in ("one.cpython-311.pyc", "one.cpython-311.pyc.140234"):
        (cache / name).write_bytes(b"\0")
    assert copy(root) == first
    shutil.rmtree(first)
    assert not list(copy(root).rglob("__pycache__"))


def test_several_shells_at_once_make_one_copy(root: Path) -> None:
    for number in range(100):
        (root / "one" / f"{number}.py").write_text("pass\n" * 100)
    start = threading.Barrier(6)
    found: list[Path | Exception] = []

    def make() -> None:
        start.wait()
        try:
            found.append(copy(root))
        except Exception as problem:
            found.append(problem)

    makers = [threading.Thread(target=make) for _ in range(6)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert found == [found[0]] * 6
    assert isinstance(found[0], Path)
    assert list(found[0].parent.iterdir()) == [found[0]], "and nothing beside it"
    assert len(tree(found[0])) == 103 + len(FILES)


def test_another_shell_that_is_quicker_with_the_same_copy_is_no_error(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def late(partial: Path, target: Path) -> None:
        shutil.copytree(partial, target)
        rename(partial, target)

    monkeypatch.setattr(os, "rename", late)
    found = copy(root)
    assert list(found.parent.iterdir()) == [found]
    assert "one/__init__.py" in tree(found)


def test_a_folder_that_cannot_be_written_is_one_line_and_nothing_is_left(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=rf"^cannot copy the code to {tmp_path}/file/\w{{12}}: ") as refusal:
        copy_code(root, ["one"], tmp_path / "file", {})
    assert "\n" not in str(refusal.value)

    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(ValueError, match="No space left on device"):
        copy(root)
    assert list((tmp_path / "copies").iterdir()) == []
