"""Attentions by name and options, and as short as a table allows."""

import ast

import pandas as pd


def shortened(attentions: pd.Series) -> tuple[dict[str, str], list[str]]:
    """Return each attention by its name and the options in which rows of that name differ, and notes of common ones."""
    options: dict[str, dict[str, dict[str, str]]] = {}
    for text in attentions.dropna().unique():
        name, found = name_and_options(text)
        options.setdefault(name, {})[text] = found
    short, lines = {}, []
    for name, variants in options.items():
        everywhere = set.intersection(*(set(found.items()) for found in variants.values()))
        for text, found in variants.items():
            own = ", ".join(f"{option}={value}" for option, value in found.items() if (option, value) not in everywhere)
            short[text] = f"{name}({own})" if own else name
        first = next(iter(variants.values()))
        common = ", ".join(f"{option}={value}" for option, value in first.items() if (option, value) in everywhere)
        if common:
            lines.append(f"{name}, all rows: {common}.")
    return short, lines


def name_and_options(attention: str) -> tuple[str, dict[str, str]]:
    """Return name and options, as texts, of an attention such as `focused(focusing_factor=3, kernel_size=None)`."""
    try:
        call = ast.parse(attention, mode="eval").body
    except SyntaxError:
        return attention, {}
    if not isinstance(call, ast.Call):
        return attention, {}
    return ast.unparse(call.func), {str(each.arg): ast.unparse(each.value) for each in call.keywords}
