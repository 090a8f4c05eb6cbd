"""The design, held against the code: which folder may import which, and what no file may do.

Every import counts, those inside functions and those for type checking too.
"""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

LAYERS: tuple[tuple[str, ...], ...] = (
    ("attentions", "results", "slurm"),
    ("backbones", "harness.process"),
    ("harness.cells",),
    ("harness.images", "harness.measures", "harness.runtimes"),
    ("harness.training", "harness.certificate"),
    ("harness.racing",),
    ("harness.runner", "harness.published", "harness.estimates", "harness.seeing"),
    ("harness.jobs", "harness.sweeps"),
    ("harness.status",),
    ("harness.cli",),
    ("harness",),  # __init__ and __main__
)
"""Lowest first: a file imports its own room and the rooms of lower layers."""

FLOOR = {room: floor for floor, rooms in enumerate(LAYERS) for room in rooms}

ALLOWED = {"attentions": set(), "results": set(), "slurm": set(), "backbones": {"attentions"}}
"""What the folders beside harness may import of ours, themselves apart."""

WITHOUT = {
    "results": {"torch", "timm", "fvcore"},
    "slurm": {"torch", "timm", "pandas"},
    "attentions": {"timm"},
    "harness.cells": {"timm", "torchvision"},
}
"""What a folder must not import of others."""

LATE = {
    "timm",
    "torchvision",
    "torch.utils.tensorboard",
    "pyarrow",
    "scipy",
    "vl_convert",
    "pynvml",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
}
"""Libraries that are slow to import, or need not be there: these alone are imported inside functions outside cli."""

FACES = {
    "attentions",
    "backbones",
    "results",
    "results.figures",
    "results.report",
    "results.statistics",
    "results.tables",
    "slurm",
    "harness.cells",
}
"""Packages whose `__init__` re-exports; that of any other is a docstring."""

LIGHT = (
    "results",
    "slurm",
    "harness.process.attempts",
    "harness.jobs.states",
    "harness.jobs.submissions",
    "harness.status.watch",
    "harness.status.logs",
    "harness.cli.main",
    "harness.cli.catalogue",
)
"""What answers at once, and so must not load torch."""

NO_TIMM = (
    "harness.cells",
    "harness.runner.run_all",
    "harness.jobs.launch",
    "harness.jobs.work",
    "harness.cli.selection",
)
"""What builds no model: timm takes as long to import as all the rest, torch included."""


class Import(NamedTuple):
    """One name imported by `file` (a module) from `module`, and whether inside a function."""

    file: str
    module: str
    line: int
    inside: bool


def module_of(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources(root: Path) -> dict[str, Path]:
    """The files of the five packages, by module."""
    folders = ("attentions", "backbones", "harness", "results", "slurm")
    return {module_of(path, root): path for folder in folders for path in sorted((root / folder).rglob("*.py"))}


@cache
def parsed(text: str) -> ast.Module:
    """Copies of the tree have the same files but for one."""
    return ast.parse(text)


def imports_of(module: str, path: Path, known: Mapping[str, Path]) -> Iterator[Import]:
    """Everything that a file imports; `from package import module` is an import of that module."""

    def walk(node: ast.AST, inside: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(module, alias.name, child.lineno, inside)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}:{child.lineno}: relative import"
                assert child.module is not None
                for alias in child.names:
                    full = f"{child.module}.{alias.name}"
                    yield Import(module, full if full in known else child.module, child.lineno, inside)
            else:
                yield from walk(child, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    yield from walk(parsed(path.read_text()), False)


def room_of(module: str) -> str:
    """The room that a module is in: its top-level package, or the package below harness."""
    parts = module.split(".")
    if parts[0] == "harness" and len(parts) > 1 and ".".join(parts[:2]) in FLOOR:
        return ".".join(parts[:2])
    return parts[0]


def is_ours(module: str) -> bool:
    return module.partition(".")[0] in {"attentions", "backbones", "harness", "results", "slurm"}


def below(module: str, names: set[str]) -> bool:
    """Whether a module is one of these, or in one of them."""
    return any(module == name or module.startswith(f"{name}.") for name in names)


def broken_rules(root: Path) -> list[str]:
    """A line for each import, or file, that breaks one of the rules."""
    known = sources(root)
    found = [each for module, path in known.items() for each in imports_of(module, path, known)]
    lines = []
    for each in found:
        where = f"{known[each.file].relative_to(root)}:{each.line}: {each.module}"
        room, of = room_of(each.file), room_of(each.module)
        if is_ours(each.module) and of != room:
            if room in ALLOWED and of not in ALLOWED[room]:
                lines.append(f"{where}: {room} imports {', '.join(sorted(ALLOWED[room])) or 'nothing of ours'}")
            elif FLOOR[of] >= FLOOR[room]:
                lines.append(f"{where}: {of} is not below {room}")
            if room == "harness.cells" and of.startswith("harness"):
                lines.append(f"{where}: harness.cells imports nothing of harness")
            if of == "harness.cli" and each.file != "harness.__main__":
                lines.append(f"{where}: nothing but __main__ imports harness.cli")
        if below(each.module, WITHOUT.get(room, set())):
            lines.append(f"{where}: {room} does without it")
        if each.inside and room != "harness.cli" and each.file != "harness.__main__":
            if is_ours(each.module):
                lines.append(f"{where}: an import of ours is at the top of its file")
            elif each.module.partition(".")[0] not in sys.stdlib_module_names and not below(each.module, LATE):
                lines.append(f"{where}: an import inside a function is of {', '.join(sorted(LATE))}")
    lines += [f"{' -> '.join(circle)}: a circle" for circle in circles(found)]
    for module, path in known.items():
        statements = parsed(path.read_text()).body
        defined = any(isinstance(each, ast.FunctionDef | ast.ClassDef) for each in statements)
        if path.name == "__init__.py" and (defined or (module not in FACES and len(statements) > 1)):
            lines.append(f"{path.relative_to(root)}: an __init__ is a docstring; a face ({FACES_NAMED}) re-exports")
    return lines


FACES_NAMED = ", ".join(sorted(FACES))


def circles(found: list[Import]) -> list[list[str]]:
    """Files that import each other, one after the other, back to the first."""
    arrows: dict[str, set[str]] = {}
    for each in found:
        if is_ours(each.module) and each.module != each.file:
            arrows.setdefault(each.file, set()).add(each.module)
    done: set[str] = set()
    closed = []

    def visit(file: str, trail: list[str]) -> None:
        if file in trail:
            closed.append([*trail[trail.index(file) :], file])
        elif file not in done:
            for imported in sorted(arrows.get(file, ())):
                visit(imported, [*trail, file])
            done.add(file)

    for file in sorted(arrows):
        visit(file, [])
    return closed


def test_every_import_is_allowed() -> None:
    assert broken_rules(ROOT) == []


PLANTED = {
    "a room imports a higher one": ("harness/images/tars.py", "from harness.training import loop", "is not below"),
    "a room imports its neighbour": ("harness/images/tars.py", "from harness.measures import speed", "is not below"),
    "for type checking": (
        "harness/process/errors.py",
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from harness.cells import Cell",
        "harness.cells is not below harness.process",
    ),
    "inside a function": (
        "harness/estimates/disk.py",
        "def late():\n    from harness.jobs import plan",
        "harness.jobs is not below harness.estimates",
    ),
    "cells imports of harness": ("harness/cells/recipe.py", "from harness.process import errors", "imports nothing of"),
    "something imports the command line": ("harness/status/rows.py", "import harness.cli.app", "nothing but __main__"),
    "attentions import backbones": ("attentions/dwc.py", "import backbones", "attentions imports nothing of ours"),
    "slurm imports results": ("slurm/limits.py", "from results import Record", "slurm imports nothing of ours"),
    "results import torch": ("results/records.py", "import torch", "results does without it"),
    "attentions import timm, late": (
        "attentions/dwc.py",
        "def late():\n    import timm",
        "attentions does without it",
    ),
    "a circle of two files": (
        "backbones/_layers.py",
        "import backbones.deit",
        "backbones._layers -> backbones.deit -> backbones._layers: a circle",
    ),
    "ours, late": (
        "harness/jobs/plan.py",
        "def late():\n    from harness.cells import Cell",
        "an import of ours is at the top of its file",
    ),
    "a library, late": (
        "harness/jobs/plan.py",
        "def late():\n    import rich.table",
        "an import inside a function is of",
    ),
    "an __init__ that imports": ("harness/jobs/__init__.py", "import os", "an __init__ is a docstring"),
    "a face that defines": ("harness/cells/__init__.py", "def late(): ...", "re-exports"),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_each_rule_is_held(planted: str, tmp_path: Path) -> None:
    file, code, said = PLANTED[planted]
    for path in sources(ROOT).values():
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    (tmp_path / file).write_text((tmp_path / file).read_text() + f"\n{code}\n")
    broken = broken_rules(tmp_path)
    assert any(said in line for line in broken), broken


def test_tests_are_where_the_code_is() -> None:
    """tests/harness has the folders of harness, and no file of tests beside them."""
    folders = {path.name for path in (ROOT / "harness").iterdir() if (path / "__init__.py").exists()}
    mirrored = {path.name for path in (ROOT / "tests/harness").iterdir() if (path / "__init__.py").exists()}
    assert mirrored == folders
    assert [path.name for path in (ROOT / "tests/harness").glob("test_*.py")] == []


def loaded_by(modules: Iterable[str], *libraries: str) -> list[str]:
    """Import modules one after the other in a new process: the first that loads one of the libraries, if any does."""
    code = (
        "import importlib, sys\n"
        f"for module in {list(modules)}:\n"
        "    importlib.import_module(module)\n"
        f"    if any(name in sys.modules for name in {libraries}):\n"
        "        sys.exit(module)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stderr.split("\n")[-2:-1] if done.returncode else []


def test_what_answers_at_once_does_not_load_torch() -> None:
    assert loaded_by(LIGHT, "torch") == []
    assert loaded_by(["results", "harness.cells"], "torch") == ["harness.cells"]


def test_what_builds_no_model_does_not_load_timm() -> None:
    assert loaded_by(NO_TIMM, "timm", "torchvision") == []


def test_what_shows_no_table_does_not_load_pandas() -> None:
    assert loaded_by([*LIGHT, "harness.jobs.work", "harness.cli.specs", "harness.measures.resolved"], "pandas") == []


def test_a_model_is_built_and_described_without_what_takes_longer_than_torch() -> None:
    """Neither timm nor torch's compiler, which torch loads with its first operator of some kinds on the meta device."""
    slow = {"timm", "torchvision", "torch._dynamo", "sympy", "fvcore"}
    code = f"""
import sys, torch, backbones
from harness.measures.resolved import resolved_table
backbones.build(backbones.preset("deit_micro"))
for name in backbones.presets():
    resolved_table(backbones.preset(name))
    loaded = {slow} & set(sys.modules)
    assert not loaded, f"{{name}} loads {{loaded}}"
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-300:]
