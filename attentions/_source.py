"""The code an attention is made of: its file, and the modules of the user's that lie beside it; and a hash of it all.

A certificate holds for this code, and for no other.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

# The contract and the registry do not affect results.
NO_NUMBERS = ("attentions", "attentions._contract", "attentions._registry")

USER_PREFIX = "attention_bench_user_"
"""The prefix of module names made for a user's files that lie in no package."""

FOLDERS: list[str] = []
"""Folders of the user's that are searched for modules after all others: what lies in them hides nothing installed."""

_BEFORE: list[list[str]] = []
"""What sys.path was before the user's file that is being loaded; that file may add folders to it."""

OURS = ("attentions", "backbones", "harness", "results", "slurm")

PROJECT = Path(__file__).resolve().parents[1]


@cache
def class_digest(attention: type) -> str:
    """Return a hash of the file that defines a class, and of all it imports from its package, beside it and from here.

    A C++ file beside a module, with its name, is part of it. The hash is computed once, as a user may keep editing a
    file after it has been loaded. A class typed into an interpreter has no file: its hash is random, and matches
    nothing else.
    """
    main = attention.__module__
    try:
        file = inspect.getsourcefile(attention)
    except (OSError, TypeError):
        file = None
    folders = () if file is None else folders_of(main, Path(file))
    todo = [(main, file)]
    # As bytes, so that the encoding does not matter.
    texts: dict[str, bytes] = {}
    while todo:
        module, path = todo.pop()
        if path is None or not Path(path).is_file() or path in texts:
            continue
        texts[path] = Path(path).read_bytes()
        kernels = Path(path).with_suffix(".cpp")
        if kernels.is_file():
            texts[str(kernels)] = kernels.read_bytes()
        for name in imported(texts[path], module, path):
            if name.partition(".")[0] in (main.partition(".")[0], "attentions"):
                spec = None if name in NO_NUMBERS else locate(name)
                todo.append((name, None if spec is None else spec.origin))
            else:
                todo += [(each, str(own)) for each, own in _with_packages(name, folders)]
    if not texts:
        return uuid.uuid4().hex[:16]
    ordered = b"\0".join(texts[path] for path in sorted(texts, key=lambda path: Path(path).name))
    return hashlib.sha256(ordered).hexdigest()[:16]


def folders_of(module: str, file: Path) -> tuple[str, ...]:
    """Return the folders from which a module imports what is the user's: its own first. None for what is installed."""
    folder = file.parent
    if not module.startswith(USER_PREFIX):
        folder = file.parents[module.count(".") + (file.name == "__init__.py")]
    return () if _is_installed(folder) or _is_ours(file) else (str(folder), *FOLDERS, *_added())


@contextmanager
def adding_folders() -> Iterator[None]:
    """Take the folders that a user's file adds to sys.path for the user's, like the one that it lies in."""
    _BEFORE.append(list(sys.path))
    try:
        yield
    finally:
        FOLDERS.extend(_added())
        _BEFORE.pop()


def _added() -> list[str]:
    known = {*(_BEFORE[-1] if _BEFORE else sys.path), *FOLDERS}
    return [folder for folder in dict.fromkeys(sys.path) if folder not in known and not _is_installed(Path(folder))]


def _is_installed(folder: Path) -> bool:
    return bool({"site-packages", "dist-packages"} & set(folder.parts))


def _is_ours(file: Path) -> bool:
    """Return whether a file is the project's."""
    return any(file.is_relative_to(PROJECT / package) for package in OURS)


def own_modules(module: str, file: Path) -> dict[str, Path]:
    """Return the files of the user's modules that a file imports, directly or not, by name; no code is run.

    The packages that they lie in are among them, as Python runs these first; the file itself is not.
    """
    folders = folders_of(module, file)
    found: dict[str, Path] = {}
    todo = [(module, file), *_with_packages(module, folders)]
    while todo:
        name, path = todo.pop()
        if name in found:
            continue
        found[name] = path
        for each in imported(path.read_bytes(), name, str(path)):
            todo += _with_packages(each, folders)
    del found[module]
    return found


def _with_packages(module: str, folders: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Yield a module and the packages that it lies in, as far as they are files in these folders."""
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        if (own := own_file(name, folders)) is not None:
            yield name, own


def own_file(module: str, folders: Sequence[str]) -> Path | None:
    """Return the file of a module that lies in one of these folders, if that is what an import of its name gives."""
    beside = locate(module, folders)
    if beside is None or beside.origin is None or not beside.has_location or _is_ours(Path(beside.origin)):
        return None
    found = locate(module)
    if found is None or found.origin is None or not _same(Path(beside.origin), Path(found.origin)):
        return None
    return Path(beside.origin)


def hidden(module: str, file: Path) -> dict[str, str]:
    """Return the modules beside a file that it imports, but does not get, and what it gets instead."""
    folders = folders_of(module, file)
    found = {}
    for name, path in {module: file, **own_modules(module, file)}.items():
        for each in imported(path.read_bytes(), name, str(path)):
            beside, other = locate(each, folders), locate(each)
            if beside is not None and beside.has_location and other is not None and own_file(each, folders) is None:
                found[each] = str(other.origin)
    return found


def _same(one: Path, other: Path) -> bool:
    """Return whether two files are one, or copies."""
    return one == other or (one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes())


def locate(module: str, folders: Sequence[str] | None = None) -> ModuleSpec | None:
    """Return what an import would find, in these folders only or anywhere, without running any code."""
    top, *rest = module.split(".")
    # Modules that were made by hand may have no spec.
    with suppress(ImportError, ValueError, AttributeError):
        if folders is not None:
            spec = PathFinder.find_spec(top, folders)
        elif top in sys.modules:
            spec = sys.modules[top].__spec__
        else:
            spec = importlib.util.find_spec(top)
        for part in rest:
            if spec is None or spec.submodule_search_locations is None:
                return None
            # By its last name only: a folder in a package that is not loaded cannot be searched by its whole name.
            spec = PathFinder.find_spec(part, list(spec.submodule_search_locations))
        return spec
    return None


# Cached, as several attentions share files.
@cache
def imported(text: bytes, module: str, file: str) -> tuple[str, ...]:
    """Return the names of what a file imports, anywhere in it: modules, and perhaps names in modules."""
    found: list[str] = []
    package = module if Path(file).name == "__init__.py" else module.rpartition(".")[0]
    for node in _imports(text):
        if isinstance(node, str):
            with suppress(ImportError):
                found.append(importlib.util.resolve_name(node, package))
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
            continue
        base = "." * node.level + (node.module or "")
        if node.level:
            with suppress(ImportError):
                base = importlib.util.resolve_name(base, package)
        if not base.startswith("."):
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(found)


def _imports(text: bytes) -> list[ast.Import | ast.ImportFrom | str]:
    """Return the imports of a file; of `importlib.import_module("name")` and `__import__("name")` the name."""
    found: list[ast.Import | ast.ImportFrom | str] = []
    # A module beside an attention may be compiled, and a file may be edited while it is read.
    with suppress(SyntaxError, ValueError):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                found.append(node)
            elif isinstance(node, ast.Call) and node.args and _called(node.func) in ("import_module", "__import__"):
                name = node.args[0]
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    found.append(name.value)
    return found


def _called(function: ast.expr) -> str | None:
    """Return the name of a function that is called, without that of its module."""
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else None


def package_of(file: Path, text: bytes) -> str | None:
    """Return the name that a file has in the package it lies in; None if it does not import as a part of one.

    It does where it imports relatively (`from .pieces import f`) or by the name of a folder that it lies in.
    """
    levels = max((node.level for node in _imports(text) if isinstance(node, ast.ImportFrom)), default=0)
    tops = {name.partition(".")[0] for name in imported(text, "", str(file))}
    above = [number for number, folder in enumerate(file.parents, 1) if folder.name in tops and _is_free(folder)]
    depth = max(levels, *above[:1], 0)
    if not depth:
        return None
    # Named relatively only, the outermost of nested packages is the first that lies in none.
    while not above and all((folder / "__init__.py").is_file() for folder in file.parents[depth - 1 : depth + 1]):
        depth += 1
    parts = [folder.name for folder in reversed(file.parents[:depth])]
    return ".".join(parts if file.name == "__init__.py" else [*parts, file.stem])


def _is_free(folder: Path) -> bool:
    """Return whether no other module has the name of a folder."""
    spec = locate(folder.name)
    return spec is None or str(folder) in (spec.submodule_search_locations or ())
