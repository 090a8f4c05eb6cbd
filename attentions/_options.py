"""What a class needs to be registered. Its options are the keyword-only arguments of its constructor."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from attentions._contract import Attention

PLAIN = (bool, int, float, str, type(None))
"""Types whose values have the same text everywhere; options have these, or choices and tuples of them."""


def check_class(cls: type[Attention]) -> None:
    """Raise ValueError, in one sentence, if a class cannot be mounted, counted or described by its options."""
    if not (isinstance(cls, type) and issubclass(cls, Attention)):
        raise ValueError(f"{getattr(cls, '__qualname__', cls)} is not a subclass of attentions.Attention")
    for method, what in (("forward", "the computation itself"), ("macs", "the closed formula of its multiply-adds")):
        if getattr(cls, method) is getattr(Attention, method):
            raise ValueError(f"{cls.__qualname__} has no {method}(), {what}")
    if not isinstance(cls.reads, str) or not set(cls.reads) <= set("qkv"):
        raise ValueError(f"{cls.__qualname__}: reads={cls.reads!r} is not allowed; it takes letters from q, k and v")
    if isinstance(cls.exponent, bool) or not isinstance(cls.exponent, (int, float)) or cls.exponent < 0:
        raise ValueError(f"{cls.__qualname__}: exponent={cls.exponent!r} is not allowed; it takes a number from 0 up")
    if not isinstance(cls.exempt, Mapping) or not all(isinstance(reason, str) for reason in cls.exempt.values()):
        raise ValueError(
            f"{cls.__qualname__}: exempt={cls.exempt!r} is not allowed; it takes a mapping from laws to reasons"
        )
    signature = inspect.signature(cls.forward)
    tokens = (None,) * 4  # self, q, k, v
    try:
        signature.bind(*tokens)
        signature.bind(*tokens, bias=None, x=None, regions=None)
    except TypeError as problem:
        raise ValueError(
            f"{cls.__qualname__}: forward must be (self, q, k, v, *, bias=None, x=None, regions=None): {problem}"
        ) from None
    schema(cls)


def schema(cls: type[Attention]) -> dict[str, inspect.Parameter]:
    """Return the options of an attention, with annotations resolved. Raises ValueError for a loose constructor."""
    if dataclasses.is_dataclass(cls):
        raise ValueError(
            f"{cls.__qualname__}: a dataclass does not call super().__init__(site); write the constructor yourself"
        )
    _, *parameters = inspect.signature(cls.__init__).parameters.values()
    try:
        hints = typing.get_type_hints(cls.__init__)
    except NameError as problem:
        raise ValueError(f"{cls.__qualname__}: the constructor has an unknown annotation: {problem}") from None
    if not parameters or parameters[0].name != "site" or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise ValueError(f"{cls.__qualname__}: the constructor's first argument must be `site`")
    options = {}
    for parameter in parameters[1:]:
        name, default = parameter.name, parameter.default
        if parameter.kind is not parameter.KEYWORD_ONLY:
            raise ValueError(f"{cls.__qualname__}: option {name!r} must be keyword-only")
        if default is parameter.empty or name not in hints:
            raise ValueError(f"{cls.__qualname__}: option {name!r} needs an annotation and a default")
        annotation = hints[name]
        if not _is_known(annotation):
            raise ValueError(
                f"{cls.__qualname__}: option {name!r} is annotated {type_text(annotation)}; allowed are bool, int, "
                "float, str, None, Literal, tuple[..., ...] of these, and unions"
            )
        if not fits(default, annotation):
            raise ValueError(
                f"{cls.__qualname__}: option {name!r} has the default {default!r}; it takes {type_text(annotation)}"
            )
        options[name] = parameter.replace(annotation=annotation)
    return options


def _is_known(annotation: Any) -> bool:
    arguments = typing.get_args(annotation)
    match typing.get_origin(annotation):
        case typing.Literal:
            return True
        case typing.Union | types.UnionType:
            return all(map(_is_known, arguments))
        case builtin if builtin is tuple:
            return arguments[1:] == (...,) and _is_known(arguments[0])
    return annotation in PLAIN


def fits(value: object, annotation: Any) -> bool:
    """Return whether a value matches an option's annotation; an int is also a float, a bool is neither."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return any(value == arm and type(value) is type(arm) for arm in arguments)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, arm) for arm in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(fits(each, arguments[0]) for each in value)
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, annotation)


def canonical(value: object, annotation: Any) -> object:
    """Return a value that fits its option's annotation in the form that is compared, hashed and shown.

    For an option that is a float, 1 and 1.0 mean the same attention: 1.0.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is tuple:
        return tuple(canonical(each, arguments[0]) for each in value) if isinstance(value, tuple) else value
    if origin in (typing.Union, types.UnionType):
        # Where both int and float are allowed, an int stays an int.
        fitting = [arm for arm in arguments if fits(value, arm)]
        return canonical(value, next((arm for arm in fitting if arm is not float), float))
    return float(value) if annotation is float and isinstance(value, int) else value


def type_text(annotation: Any) -> str:
    """Return an annotation as a person writes it."""
    if typing.get_origin(annotation) is Literal:
        return " or ".join(repr(arm) for arm in typing.get_args(annotation))
    is_class = isinstance(annotation, type) and not typing.get_args(annotation)
    return annotation.__name__ if is_class else str(annotation)
