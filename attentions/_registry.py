"""Attentions by name, and `AttentionSpec`: a name with every option spelled out."""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib.util
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from attentions._contract import Attention, Site

_REGISTRY: dict[str, type[Attention]] = {}

_USERS = "attention_bench_user_"
"""How the names of modules begin that are files of the user's."""


def register(name: str) -> Callable[[type[Attention]], type[Attention]]:
    """Class decorator: make an `Attention` available by `name` in every command, sweep and preset.

    Raises:
        ValueError: if the name is taken, or the constructor is not `(self, site, *, option: type = default, ...)`.
    """

    def add(cls: type[Attention]) -> type[Attention]:
        if not name.isidentifier():
            raise ValueError(f"attention name {name!r} is not an identifier")
        if name in _REGISTRY:
            taken = _REGISTRY[name]
            raise ValueError(f"attention name {name!r} is taken by {taken.__module__}.{taken.__qualname__}")
        _options(cls)
        _REGISTRY[name] = cls
        return cls

    return add


def load_file(path: Path) -> types.ModuleType:
    """Run a Python file outside the packages, which may register attentions, once; return its module.

    A copy of the file elsewhere is the same module: what is pickled of it here can be read there.

    Raises:
        ValueError: if there is no such file, or it cannot be imported; says why in one line.
    """
    if path.suffix != ".py" or not path.is_file():
        raise ValueError(f"there is no Python file {str(path)!r}")
    path = path.resolve()
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise ValueError(f"{path} cannot be read: {problem.strerror}") from problem
    name = f"{_USERS}{path.stem}_{hashlib.sha256(content).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as problem:
        del sys.modules[name]
        raise ValueError(f"{path} cannot be loaded: {type(problem).__name__}: {problem}") from problem
    return module


def loaded_files() -> list[Path]:
    """The files that `load_file` has run, in order: what another process has to run before it can do the same."""
    return [Path(str(module.__file__)) for name, module in sys.modules.items() if name.startswith(_USERS)]


def names() -> list[str]:
    """The registered attentions, sorted."""
    return sorted(_REGISTRY)


def lookup(name: str) -> type[Attention]:
    """The class registered as `name`.

    Raises:
        ValueError: if there is none; names the near ones and all allowed ones.
    """
    if name not in _REGISTRY:
        raise ValueError(unknown("attention", name, names()))
    return _REGISTRY[name]


def unknown(kind: str, name: str, allowed: Iterable[str]) -> str:
    """One line for a misspelt name: what is wrong, what is near, what is allowed."""
    allowed = list(allowed)
    near = difflib.get_close_matches(name, allowed, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"unknown {kind} {name!r}{hint} (allowed: {', '.join(allowed) or 'none'})"


def _options(cls: type[Attention]) -> dict[str, inspect.Parameter]:
    """The option schema of an attention: the keyword-only parameters of its constructor, annotations resolved."""
    _, *parameters = inspect.signature(cls.__init__).parameters.values()
    hints = typing.get_type_hints(cls.__init__)
    if not parameters or parameters[0].name != "site":
        raise ValueError(f"{cls.__qualname__}: the constructor's first argument must be `site`")
    options = {}
    for parameter in parameters[1:]:
        if parameter.kind is not parameter.KEYWORD_ONLY:
            raise ValueError(f"{cls.__qualname__}: option {parameter.name!r} must be keyword-only")
        if parameter.default is parameter.empty or parameter.name not in hints:
            raise ValueError(f"{cls.__qualname__}: option {parameter.name!r} needs an annotation and a default")
        options[parameter.name] = parameter.replace(annotation=hints[parameter.name])
    return options


def _fits(value: object, annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return value in typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, arm) for arm in typing.get_args(annotation))
    if annotation is None or annotation is type(None):
        return value is None
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, annotation)


def _type_text(annotation: Any) -> str:
    if typing.get_origin(annotation) is Literal:
        return " or ".join(repr(arm) for arm in typing.get_args(annotation))
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


@dataclass(frozen=True)
class AttentionSpec:
    """An attention by name with every option spelled out, so that equal specs mean equal modules.

    Options left out take the constructor's defaults; `str` gives the canonical text, which `parse` reads back.

    Raises:
        ValueError: for an unknown name or option, or a value of the wrong type.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        schema = _options(lookup(self.name))
        for option, value in self.options.items():
            if option not in schema:
                raise ValueError(unknown(f"option of {self.name}", option, schema))
            annotation = schema[option].annotation
            if not _fits(value, annotation):
                raise ValueError(f"{self.name}: {option}={value!r} is not allowed; it takes {_type_text(annotation)}")
        filled = {option: self.options.get(option, parameter.default) for option, parameter in schema.items()}
        object.__setattr__(self, "options", types.MappingProxyType(filled))

    @classmethod
    def parse(cls, text: str) -> AttentionSpec:
        """Read `focused` or `focused(focusing_factor=4, kernel_size=None)`; strings may go without quotes."""
        try:
            node = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError):
            raise ValueError(_malformed(text)) from None
        if isinstance(node, ast.Name):
            return cls(node.id)
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
            raise ValueError(_malformed(text))
        options = {}
        for keyword in node.keywords:
            if keyword.arg is None or keyword.arg in options:
                raise ValueError(_malformed(text))
            if isinstance(keyword.value, ast.Name):
                options[keyword.arg] = keyword.value.id
                continue
            try:
                options[keyword.arg] = ast.literal_eval(keyword.value)
            except ValueError:
                raise ValueError(_malformed(text)) from None
        return cls(node.func.id, options)

    @classmethod
    def of(cls, value: AttentionSpec | str) -> AttentionSpec:
        """A spec as it is, or one read from text."""
        return value if isinstance(value, AttentionSpec) else cls.parse(str(value))

    def build(self, site: Site) -> Attention:
        """The module at `site`. Raises ValueError where its mathematics or its options do not allow it there."""
        return lookup(self.name)(site, **self.options)

    def __str__(self) -> str:
        inner = ", ".join(f"{option}={value!r}" for option, value in self.options.items())
        return f"{self.name}({inner})" if inner else self.name

    def __hash__(self) -> int:
        return hash(str(self))

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process may not have loaded the file of a user's attention yet.
        return _restore, (self.name, dict(self.options), inspect.getsourcefile(lookup(self.name)))


def _restore(name: str, options: dict[str, Any], source: str) -> AttentionSpec:
    if name not in _REGISTRY:
        load_file(Path(source))
    return AttentionSpec(name, options)


def _malformed(text: str) -> str:
    return f"cannot read attention {text!r}; write it as in focused(focusing_factor=4, kernel_size=None)"
