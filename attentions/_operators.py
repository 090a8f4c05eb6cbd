"""Multiply-adds of a user's own operators: formulas by which both counters count what they cannot look into."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

Formula = Callable[..., int]
"""Takes the operator's arguments in their order, with a shape (a tuple of sizes) for each tensor."""

_FORMULAS: dict[str, Formula] = {}


def register_operator(name: str) -> Callable[[Formula], Formula]:
    """Decorator of a formula: the multiply-adds of one call of the operator `name`, such as "my_ops::mix".

    It is for what the counters of multiply-adds cannot look into: a `torch.library.custom_op`, say, with a kernel of
    Triton or C++ behind it. The formula is called with the operator's arguments in their order, keyword-only ones
    included. A tensor is given as its shape, a list of tensors as a list of shapes. It returns a whole number from 0
    up: one multiply-add counts as 1, and an operator that multiplies no matrices returns 0.

    Raises:
        ValueError: in one sentence, if torch has no operator of that name, or it has another formula already.
    """
    if not isinstance(name, str):
        raise ValueError('register_operator takes a name, as in @register_operator("my_ops::mix")')

    def add(formula: Formula) -> Formula:
        if not callable(formula):
            raise ValueError(f"the formula of operator {name} is no function: {formula!r}")
        known = {each.partition(".")[0] for each in torch._C._dispatch_get_all_op_names()}
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise ValueError(f"torch has no operator {name!r}{hint} (define it before its formula)")
        if not _equal(_FORMULAS.setdefault(name, formula), formula):
            raise ValueError(f"operator {name} has another formula already, {_place(_FORMULAS[name])}")
        return formula

    return add


def operators() -> Mapping[str, Formula]:
    """Return the registered formulas by the names of their operators."""
    return MappingProxyType(_FORMULAS)


def operator_macs(name: str, arguments: list[Any]) -> int:
    """Return the multiply-adds of one call of a registered operator.

    Raises:
        ValueError: in one sentence, if the formula raises, or returns no whole number from 0 up.
    """
    formula = _FORMULAS[name]
    said = f"the formula of operator {name}, {_place(formula)},"
    shown = ", ".join(map(str, arguments))
    try:
        result = formula(*arguments)
    except Exception as problem:
        text = " ".join(str(problem).split())
        raise ValueError(f"{said} raises {type(problem).__name__}: {text} (for {shown})") from problem
    try:
        macs = -1 if isinstance(result, bool) else operator.index(result)
    except TypeError:
        macs = -1
    if macs < 0:
        raise ValueError(f"{said} returns {result!r}, which is no whole number from 0 up (for {shown})")
    return macs


def _equal(a: Formula, b: Formula) -> bool:
    """Return whether two formulas are the same function, or the same code: one file may be loaded from two places."""
    codes = [getattr(each, "__code__", None) for each in (a, b)]
    return a is b or (codes[0] is not None and codes[0] == codes[1])


def _place(formula: Formula) -> str:
    code = getattr(formula, "__code__", None)
    return f"{code.co_filename}, line {code.co_firstlineno}" if code is not None else repr(formula)
