"""Attentions by name: from this folder, a user's files and modules, and packages that announce theirs."""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import importlib.util
import keyword
import os
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from attentions import _operators, _options
from attentions._contract import Attention
from attentions._source import class_digest

GROUP = "attention_bench.attentions"
"""The entry point group in which an installed package announces modules that register attentions."""

_REGISTRY: dict[str, type[Attention]] = {}

_USER_PREFIX = "attention_bench_user_"
"""The prefix of module names made for a user's files."""


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
    found = [name for name, cls in _REGISTRY.items() if name not in before or _is_defined_in(cls, module.__name__)]
    if not found:
        raise ValueError(f'no attention is registered in {text}: decorate a class with @register("name")')
    return found


def load_file(path: Path) -> types.ModuleType:
    """Run a Python file outside the packages once, and return its module; the file may register attentions.

    A copy of the file elsewhere is the same module: what is pickled from it here can be read there.

    Raises:
        ValueError: in one line, if there is no such file or it cannot be imported; nothing is registered then.
    """
    # os.path returns False where Path raises: for a folder that may not be searched, or a name that is too long.
    if path.suffix != ".py" or not os.path.isfile(path):
        ending = "" if path.suffix == ".py" else ": its name must end in .py"
        why = ": it is a folder" if os.path.isdir(path) else ending
        raise ValueError(f"there is no Python file {str(path)!r}{why}")
    path = path.resolve()
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise ValueError(f"{path} cannot be read: {problem.strerror}") from problem
    name = f"{_USER_PREFIX}{path.stem}_{hashlib.sha256(content).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _all_or_nothing():
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as problem:
        del sys.modules[name]
        raise ValueError(f"{path} cannot be loaded: {error_line(problem, name)}") from problem
    return module


def load_module(name: str) -> types.ModuleType:
    """Import an installed module and return it; it may register attentions.

    Raises:
        ValueError: as `load_file`.
    """
    try:
        with _all_or_nothing():
            return importlib.import_module(name)
    except (Exception, SystemExit) as problem:
        if isinstance(problem, ModuleNotFoundError) and f"{name}.".startswith(f"{problem.name}."):
            raise ValueError(f"no module {name!r} is installed; the name of a file must end in .py") from problem
        raise ValueError(f"module {name} cannot be loaded: {error_line(problem, name)}") from problem


@contextmanager
def temporary_registry() -> Iterator[None]:
    """Forget on exit what was loaded inside: another version of the same file can then be loaded."""
    restore, modules = _snapshot(), set(sys.modules)
    try:
        yield
    finally:
        restore()
        for name in set(sys.modules) - modules:
            if name.startswith(_USER_PREFIX):
                del sys.modules[name]


def loaded_files() -> list[Path]:
    """Return the files that `load_file` has run, in order: another process must run them to have the same names."""
    return [Path(str(module.__file__)) for name, module in sys.modules.items() if name.startswith(_USER_PREFIX)]


def origin(name: str) -> str:
    """Return the file or module to `load` in another process to register this attention there."""
    module = sys.modules[lookup(name).__module__]
    return str(module.__file__) if module.__name__.startswith(_USER_PREFIX) else module.__name__


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


def unknown(kind: str, name: str, allowed: Iterable[str]) -> str:
    """Return one line on a misspelt name: what is wrong, what is near, what is allowed."""
    allowed = list(allowed)
    near = difflib.get_close_matches(name, allowed, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"unknown {kind} {name!r}{hint} (allowed: {', '.join(allowed) or 'none'})"


def error_line(problem: BaseException, module: str) -> str:
    """Return one line on an error in a user's code, with the file and line in that module or package."""
    text = " ".join(str(problem).split())
    # A ValueError's own sentence is enough; for other errors, their type is needed too.
    text = text if type(problem) is ValueError else f"{type(problem).__name__}: {text}".rstrip(": ")
    places = [
        f" ({Path(frame.f_code.co_filename).name}, line {line})"
        for frame, line in traceback.walk_tb(problem.__traceback__)
        if _top(frame.f_globals.get("__name__", "")) == _top(module)
    ]
    return text + "".join(places[-1:])


def _top(module: str) -> str:
    return module.partition(".")[0]


def _is_defined_in(cls: type[Attention], module: str) -> bool:
    """Return whether a class is defined in a module or below it."""
    return f"{cls.__module__}.".startswith(f"{module}.")


def _location(cls: type[Attention]) -> str:
    """Return where a class is defined, for people."""
    if cls.__module__.startswith(_USER_PREFIX):
        return f"{cls.__qualname__} in {sys.modules[cls.__module__].__file__}"
    return f"{cls.__module__}.{cls.__qualname__}"


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
