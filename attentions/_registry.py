"""Attentions by name: from this folder, a user's files and modules, and packages that announce theirs."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.metadata
import importlib.util
import keyword
import os
import re
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from attentions import _operators, _options, _source
from attentions._contract import Attention
from attentions._source import USER_PREFIX, class_digest

GROUP = "attention_bench.attentions"
"""The entry point group in which an installed package announces modules that register attentions."""

_REGISTRY: dict[str, type[Attention]] = {}

_FILES: dict[str, Path] = {}
"""The user's files that `load_file` has run, by the names of their modules."""


def register(name: str) -> Callable[[type[Attention]], type[Attention]]:
    """Class decorator: make an `Attention` available by `name` in every command, sweep and preset.

    Raises:
        ValueError: in one sentence, if the name is taken or invalid, or the class is not what `Attention` asks for:
            forward, macs, and a constructor `(self, site, *, option: type = default, ...)`.
    """
    if not isinstance(name, str):
        raise ValueError('register takes a name, as in @register("my_attention")')

    def add(cls: type[Attention]) -> type[Attention]:
        if not _is_name(name):
            raise ValueError(f"attention name {name!r} is not a valid Python name")
        if name in _REGISTRY:
            # A file that is loaded may also be imported by another that lies beside it: that is the same attention.
            if _is_again(cls, _REGISTRY[name]):
                return cls
            raise ValueError(f"attention name {name!r} is taken by {_location(_REGISTRY[name])}")
        _options.check_class(cls)
        # Taken now, from the code that runs: its file may change later.
        class_digest(cls)  # type: ignore[arg-type]
        _REGISTRY[name] = cls
        return cls

    return add


def _is_name(text: str) -> bool:
    """Return whether a text is a valid name of an attention: a Python identifier that is no keyword."""
    return text.isidentifier() and not keyword.iskeyword(text)


def load(text: str) -> list[str]:
    """Load `my_attention.py` or an installed `package.module`; return the names of the attentions it registers.

    Raises:
        ValueError: if there is no such file or module, it cannot be loaded, or it registers no attention.
    """
    before = set(_REGISTRY)
    is_file = text.endswith(".py") or not all(map(_is_name, text.split("."))) or os.path.isfile(text)
    module = load_file(Path(text)) if is_file else load_module(text)
    own = {str(_FILES.get(module.__name__)), *map(str, _own_modules(module.__name__).values())}
    found = [
        name
        for name, cls in _REGISTRY.items()
        if name not in before or _is_defined_in(cls, module.__name__) or _file(cls) in own
    ]
    if not found:
        raise ValueError(f'no attention is registered in {text}: decorate a class with @register("name")')
    return found


def load_file(path: Path) -> types.ModuleType:
    """Run a Python file outside the packages once, and return its module; the file may register attentions.

    It may import modules that lie beside it, or in the folder where the command is given. A copy of the file elsewhere
    is the same module: what is pickled from it here can be read there.

    Raises:
        ValueError: in one line, if there is no such file or it cannot be imported; nothing is registered then.
    """
    # os.path returns False where Path raises: for a folder that may not be searched, or a name that is too long.
    if path.suffix != ".py" or not os.path.isfile(path):
        ending = "" if path.suffix == ".py" else ": its name must end in .py"
        why = ": it is a folder" if os.path.isdir(path) else ending
        raise ValueError(f"there is no Python file {str(path)!r}{why}")
    path = path.resolve()
    if re.search("[\udc80-\udcff]", str(path)):
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise ValueError(f"{shown} has a name that is not UTF-8, which torch cannot trace: rename it, or its folder")
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise ValueError(f"{path} cannot be read: {problem.strerror}") from problem
    in_package = _source.package_of(path, content)
    name = in_package or f"{USER_PREFIX}{path.stem}_{hashlib.sha256(content).hexdigest()[:8]}"
    if name in sys.modules and not in_package:
        return sys.modules[name]
    # Written a moment ago, perhaps.
    importlib.invalidate_caches()
    _search(*_source.folders_of(name, path))
    _check_names(name, path)
    if name in sys.modules:
        return sys.modules[name]
    _FILES[name] = path
    before = set(sys.modules)
    try:
        with _all_or_nothing(), _as_a_script(path), _source.adding_folders():
            if in_package:
                return importlib.import_module(name)
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec is not None
            assert spec.loader is not None
            module = sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    except (Exception, SystemExit) as problem:
        said = f"{path} cannot be loaded: {error_line(problem, name)}{_hint(problem, name, path)}"
        _forget(before)
        raise ValueError(said) from problem


def load_module(name: str) -> types.ModuleType:
    """Import an installed module and return it; it may register attentions.

    What is not installed but lies in the folder where the command is given is loaded as a file.

    Raises:
        ValueError: as `load_file`.
    """
    importlib.invalidate_caches()
    _search()
    own = _source.own_file(name, _source.FOLDERS)
    if own is not None and own.suffix == ".py":
        return load_file(own)
    try:
        with _all_or_nothing():
            return importlib.import_module(name)
    except (Exception, SystemExit) as problem:
        if isinstance(problem, ModuleNotFoundError) and f"{name}.".startswith(f"{problem.name}."):
            raise ValueError(f"no module {name!r} is installed; the name of a file must end in .py") from problem
        raise ValueError(f"module {name} cannot be loaded: {error_line(problem, name)}") from problem


def _search(*folders: str) -> None:
    """Let modules be found in these folders, and in the one where the command is given, unless others have the name."""
    # What runs with -P, as jobs do, finds nothing in the folder that it starts in.
    here = () if sys.flags.safe_path else (str(Path.cwd()),)
    users = _source.FOLDERS
    installed = [folder for folder in sys.path if folder not in users]
    users[:] = [folder for folder in dict.fromkeys((*folders, *users, *here)) if folder not in installed]
    sys.path[:] = [*installed, *users]


def _check_names(name: str, path: Path) -> None:
    """Raise ValueError if a file would not get the modules beside it, as one of another file has the name."""
    folders = _source.folders_of(name, path)
    if not name.startswith(USER_PREFIX) and _source.own_file(name, folders) is None:
        other = _source.locate(name) or _source.locate(_top(name))
        where = "another package" if other is None else other.origin
        raise ValueError(f"{path} is a part of a package {_top(name)}, which is the name of {where}: rename its folder")
    for module, where in _source.hidden(name, path).items():
        users = _source.locate(module, [each for file in _FILES.items() for each in _source.folders_of(*file)])
        if users is not None and users.origin == where:
            raise ValueError(f"{path} imports {module}, which is {where} already: rename one of the two files")


def _hint(problem: BaseException, name: str, path: Path) -> str:
    """Return what to do about an import that found another module than the one beside the file; "" otherwise."""
    module = (
        problem.name if isinstance(problem, ImportError) else getattr(getattr(problem, "obj", None), "__name__", None)
    )
    where = _source.hidden(name, path).get(str(module))
    return "" if where is None else f"; the {module} beside it has the name of {where}: rename it"


@contextmanager
def _as_a_script(path: Path) -> Iterator[None]:
    """Give a file a command line without arguments, not ours; what it prints goes to standard error."""
    arguments = sys.argv
    sys.argv = [str(path)]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.argv = arguments


@contextmanager
def temporary_registry() -> Iterator[None]:
    """Forget on exit what was loaded inside: another version of the same file can then be loaded."""
    restore, modules, folders = _snapshot(), set(sys.modules), list(_source.FOLDERS)
    try:
        yield
    finally:
        restore()
        _forget(modules)
        sys.path[:] = [folder for folder in sys.path if folder in folders or folder not in _source.FOLDERS]
        _source.FOLDERS[:] = folders


def _forget(before: set[str]) -> None:
    """Forget the user's modules that were not loaded before."""
    names = [name for name in _FILES if name not in before]
    tops = {_top(each) for name in names for each in (name, *_own_modules(name))}
    for name in [name for name in sys.modules if name not in before and _top(name) in tops]:
        del sys.modules[name]
    for name in names:
        del _FILES[name]


def loaded_files() -> list[Path]:
    """Return the files that `load_file` has run, in order: another process must run them to have the same names."""
    return [path for name, path in _FILES.items() if name in sys.modules]


def _own_modules(name: str) -> dict[str, Path]:
    """Return the files of the user's modules that a loaded file imports, by name; none for an installed module."""
    path = _FILES.get(name)
    return {} if path is None or not path.is_file() else _source.own_modules(name, path)


def copied_files(path: Path) -> dict[str, Path]:
    """Return the files that a loaded file needs elsewhere, by their paths in a folder of their own; itself first."""
    name = next(name for name, each in _FILES.items() if each == path)
    files = {}
    for module, file in {name: path, **_own_modules(name)}.items():
        folder = "" if module.startswith(USER_PREFIX) else module.replace(".", "/").rpartition("/")[0]
        if file.name == "__init__.py":
            folder = module.replace(".", "/")
        files[f"{folder}/{file.name}".removeprefix("/")] = file
    return files


def origin(name: str) -> str:
    """Return the file or module to `load` in another process to register this attention there."""
    cls = lookup(name)
    if not _is_defined_in(cls, __package__):
        for file, path in _FILES.items():
            if _file(cls) in (str(path), *map(str, _own_modules(file).values())):
                return str(path)
    return cls.__module__


def source_digest(name: str) -> str:
    """Return the hash of an attention's code as it was loaded; certificates and records contain it."""
    return class_digest(lookup(name))  # type: ignore[arg-type]


@cache
def broken_packages() -> tuple[str, ...]:
    """Load the attentions that installed packages announce; return a line for each package that cannot be loaded."""
    lines = []
    # Sorted, so that of two attentions with the same name always the same one is skipped.
    for point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda point: point.value):
        try:
            load(point.value.partition(":")[0])
        except ValueError as problem:
            package = point.dist.name if point.dist is not None else point.name
            lines.append(f"the attentions of package {package} are skipped: {problem}")
    return tuple(lines)


def names() -> list[str]:
    """Return the names of all registered attentions, sorted, including those of installed packages."""
    broken_packages()
    return sorted(_REGISTRY)


def is_registered(name: str) -> bool:
    """Return whether an attention is already loaded, without loading packages that announce some."""
    return name in _REGISTRY


def lookup(name: str) -> type[Attention]:
    """Return the class registered as `name`.

    Raises:
        ValueError: if there is none; the message lists similar names and all allowed ones.
    """
    if name not in _REGISTRY and name not in names():
        line = unknown("attention", name, names())
        raise ValueError("; ".join((f"{line}; load your own with --import FILE.py", *broken_packages())))
    return _REGISTRY[name]


def unknown(kind: str, name: str, allowed: Iterable[str], *, summary: str | None = None) -> str:
    """Return one line on a misspelt name: what is wrong, what is near, what is allowed.

    `summary`: said in place of all that is allowed, where that is too much for a line.
    """
    allowed = list(allowed)
    near = difflib.get_close_matches(name, allowed, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"unknown {kind} {name!r}{hint} (allowed: {summary or ', '.join(allowed) or 'none'})"


def error_line(problem: BaseException, module: str) -> str:
    """Return one line on an error in a user's code, with the file and line in that module or package."""
    text = " ".join(str(problem).split())
    # A ValueError's own sentence is enough; for other errors, their type is needed too.
    text = text if type(problem) is ValueError else f"{type(problem).__name__}: {text}".rstrip(": ")
    tops = {_top(each) for each in (module, *_own_modules(module))}
    places = [
        f" ({Path(frame.f_code.co_filename).name}, line {line})"
        for frame, line in traceback.walk_tb(problem.__traceback__)
        if _top(frame.f_globals.get("__name__", "")) in tops
    ]
    return text + "".join(places[-1:])


def _top(module: str) -> str:
    return module.partition(".")[0]


def _is_defined_in(cls: type[Attention], module: str) -> bool:
    """Return whether a class is defined in a module or below it."""
    return f"{cls.__module__}.".startswith(f"{module}.")


def _location(cls: type[Attention]) -> str:
    """Return where a class is defined, for people."""
    if cls.__module__ in _FILES:
        return f"{cls.__qualname__} in {_FILES[cls.__module__]}"
    return f"{cls.__module__}.{cls.__qualname__}"


def _is_again(cls: type[Attention], other: type[Attention]) -> bool:
    """Return whether a class is another one again, by another import of the same file."""
    is_same = _file(cls) is not None and _file(cls) == _file(other) and cls.__qualname__ == other.__qualname__
    return is_same and cls.__module__ != other.__module__


def _file(cls: type[Attention]) -> str | None:
    """Return the file that defines a class; None if it was typed in."""
    return getattr(sys.modules.get(cls.__module__), "__file__", None)


@contextmanager
def _all_or_nothing() -> Iterator[None]:
    """Undo on an error what was registered inside."""
    restore = _snapshot()
    try:
        yield
    except BaseException:
        restore()
        raise


def _snapshot() -> Callable[[], None]:
    """Return what puts attentions and operators back to those that are registered now."""
    registries: tuple[dict[str, Any], ...] = (_REGISTRY, _operators._FORMULAS)
    kept = [(each, dict(each)) for each in registries]

    def restore() -> None:
        for registry, before in kept:
            registry.clear()
            registry.update(before)

    return restore
