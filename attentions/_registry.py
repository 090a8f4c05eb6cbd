"""Attentions by name: those of this folder, of a user's files and modules, and of packages that announce theirs."""

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

from attentions import _options
from attentions._contract import Attention
from attentions._source import class_digest

GROUP = "attention_bench.attentions"
"""The entry points by which an installed package announces modules that register attentions."""

_REGISTRY: dict[str, type[Attention]] = {}

_USER_PREFIX = "attention_bench_user_"
"""How the names of modules begin that are files of the user's."""


def register(name: str) -> Callable[[type[Attention]], type[Attention]]:
    """Class decorator: make an `Attention` available by `name` in every command, sweep and preset.

    Raises:
        ValueError: if the name is taken or none, or the class is not what `Attention` asks for: forward, macs, and a
            constructor `(self, site, *, option: type = default, ...)`; in one sentence.
    """
    if not isinstance(name, str):
        raise ValueError('register takes a name, as in @register("my_attention")')

    def add(cls: type[Attention]) -> type[Attention]:
        if not _is_name(name):
            raise ValueError(f"attention name {name!r} is not a valid Python name")
        if name in _REGISTRY:
            raise ValueError(f"attention name {name!r} is taken by {_location(_REGISTRY[name])}")
        _options.check(cls)
        # Now: of the code that runs, whatever becomes of its file later.
        class_digest(cls)  # type: ignore[arg-type]
        _REGISTRY[name] = cls
        return cls

    return add


def _is_name(text: str) -> bool:
    """Whether an attention can be called so: a Python identifier, and no keyword."""
    return text.isidentifier() and not keyword.iskeyword(text)


def load(text: str) -> list[str]:
    """Load what a command line names, `my_attention.py` or an installed `package.module`; the attentions it registers.

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
    """Run a Python file outside the packages, which may register attentions, once; return its module.

    A copy of the file elsewhere is the same module: what is pickled of it here can be read there.

    Raises:
        ValueError: if there is no such file, or it cannot be imported; says why in one line, and registers nothing.
    """
    # These of os.path say no where those of Path raise: a folder that may not be searched, a name that is too long.
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
    """Import an installed module, which may register attentions.

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
    """What is loaded meanwhile is forgotten afterwards: another version of the same file can be loaded then."""
    registered, modules = dict(_REGISTRY), set(sys.modules)
    try:
        yield
    finally:
        _REGISTRY.clear()
        _REGISTRY.update(registered)
        for name in set(sys.modules) - modules:
            if name.startswith(_USER_PREFIX):
                del sys.modules[name]


def loaded_files() -> list[Path]:
    """The files that `load_file` has run, in order: what another process has to run before it can do the same."""
    return [Path(str(module.__file__)) for name, module in sys.modules.items() if name.startswith(_USER_PREFIX)]


def origin(name: str) -> str:
    """What `load` takes in another process to register this attention there."""
    module = sys.modules[lookup(name).__module__]
    return str(module.__file__) if module.__name__.startswith(_USER_PREFIX) else module.__name__


def source_digest(name: str) -> str:
    """A hash of the code of an attention, as it was when it was loaded: certificates and records hold it."""
    return class_digest(lookup(name))  # type: ignore[arg-type]


@cache
def broken_packages() -> tuple[str, ...]:
    """A line for each installed package that announces attentions which cannot be loaded; loads all others."""
    lines = []
    # In an order of their own, so that of two with one name it is always the same that is left out.
    for point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda point: point.value):
        try:
            load(point.value.partition(":")[0])
        except ValueError as problem:
            package = point.dist.name if point.dist is not None else point.name
            lines.append(f"the attentions of package {package} are skipped: {problem}")
    return tuple(lines)


def names() -> list[str]:
    """The registered attentions, sorted; those of installed packages too."""
    broken_packages()
    return sorted(_REGISTRY)


def is_registered(name: str) -> bool:
    """Whether an attention is loaded; packages that announce some are not looked at."""
    return name in _REGISTRY


def lookup(name: str) -> type[Attention]:
    """The class registered as `name`.

    Raises:
        ValueError: if there is none; names the near ones and all allowed ones.
    """
    if name not in _REGISTRY and name not in names():
        line = unknown("attention", name, names())
        raise ValueError("; ".join((f"{line}; load your own with --import FILE.py", *broken_packages())))
    return _REGISTRY[name]


def unknown(kind: str, name: str, allowed: Iterable[str]) -> str:
    """One line for a misspelt name: what is wrong, what is near, what is allowed."""
    allowed = list(allowed)
    near = difflib.get_close_matches(name, allowed, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"unknown {kind} {name!r}{hint} (allowed: {', '.join(allowed) or 'none'})"


def error_line(problem: BaseException, module: str) -> str:
    """What went wrong in a user's code in one line, with the file and line of that module or package it happened at."""
    text = " ".join(str(problem).split())
    # What was raised with a sentence is that sentence; of other errors the kind says more.
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
    """Whether a class is defined in a module, or below it."""
    return f"{cls.__module__}.".startswith(f"{module}.")


def _location(cls: type[Attention]) -> str:
    """Where a class is defined, for people."""
    if cls.__module__.startswith(_USER_PREFIX):
        return f"{cls.__qualname__} in {sys.modules[cls.__module__].__file__}"
    return f"{cls.__module__}.{cls.__qualname__}"


@contextmanager
def _all_or_nothing() -> Iterator[None]:
    """What is registered meanwhile is forgotten if it ends with an error."""
    before = dict(_REGISTRY)
    try:
        yield
    except BaseException:
        _REGISTRY.clear()
        _REGISTRY.update(before)
        raise
