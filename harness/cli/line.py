"""A line, checked before tyro reads it: a mistake is one line that says what is allowed, and whose help to see."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from harness.cli.app import Positional

NUMBERS: dict[type, str] = {int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Parameter:
    """An argument or an option of a command.

    name: as it is typed ("--epochs"), of an argument as help shows it ("PRESET"). metavar: what stands for its value in
    help. kind: the type of each value; bool for a flag, which takes none. choices: the allowed values, empty for any.
    short: other names of an option ("-o"). several: whether it takes more than one value in a row. repeated: whether it
    may be given more than once.
    """

    name: str
    short: tuple[str, ...]
    metavar: str
    kind: type
    choices: tuple[str, ...]
    several: bool
    repeated: bool
    required: bool
    optional: bool

    def problem(self, value: str) -> str | None:
        """What is wrong with a value; None if nothing is."""
        if self.optional and value == "None":
            return None
        if self.choices and value not in self.choices:
            return f"allowed: {', '.join(self.choices)}"
        if self.kind in NUMBERS:
            try:
                self.kind(value)
            except ValueError:
                return f"it takes {NUMBERS[self.kind]}"
        return None


def check_line(commands: Mapping[str, Callable[..., int]], line: Sequence[str]) -> None:
    """Raise ValueError, in one line, for a line that is no command, or not what its command takes.

    Lines that ask for help are for tyro alone, as is what follows `--`.
    """
    if {"-h", "--help"} & set(line):
        return
    if not line:
        raise ValueError(f"give a command: {', '.join(commands)} (see attention-bench --help)")
    name, *rest = line
    if name not in commands:
        raise ValueError(f"unknown command {name!r}{_near(name, commands)} (see attention-bench --help)")
    found = list(_parameters(commands[name]))
    try:
        known = {typed: each for each in found for typed in (each.name, *each.short)}
        _check(name, rest, [each for each in found if each.name[0] != "-"], known)
    except ValueError as problem:
        raise ValueError(f"{problem} (see attention-bench {name} --help)") from None


def _check(command: str, line: list[str], arguments: list[Parameter], known: Mapping[str, Parameter]) -> None:
    left, missing = list(arguments), {each.name for each in known.values() if each.required}
    seen: set[str] = set()
    while line and line[0] != "--":
        word = line.pop(0)
        if not _is_option(word):
            if not left:
                takes = " ".join(each.metavar for each in arguments) or "no arguments"
                raise ValueError(f"{word!r} is one argument too many: {command} takes {takes}")
            parameter, values = left.pop(0), [word]
        else:
            typed, attached, value = word.partition("=")
            name = typed.replace("_", "-")
            if name not in known:
                raise ValueError(f"unknown option {typed} of {command}{_near_option(name, known)}")
            parameter, values = known[name], [value] if attached else []
            if parameter.kind is bool:
                if values:
                    raise ValueError(f"{word}: {typed} takes no value")
                missing.discard(parameter.name)
                continue
            if parameter.name in seen and not parameter.repeated:
                once = f"its values follow one {typed}" if parameter.several else "it takes one value"
                raise ValueError(f"{typed} is given twice; {once}: {typed} {parameter.metavar}")
            seen.add(parameter.name)
            if not parameter.several and not values:
                if not line or _is_option(line[0]):
                    raise ValueError(f"{typed} needs a value: {typed} {parameter.metavar}")
                values = [line.pop(0)]
        # As tyro does, what takes several leaves the last words to the arguments that are still needed.
        kept = sum(each.required for each in left)
        while parameter.several and len(line) > kept and not _is_option(line[0]) and line[0] != "--":
            values.append(line.pop(0))
        for value in values:
            if problem := parameter.problem(value):
                raise ValueError(f"{command if parameter in arguments else parameter.name} {value}: {problem}")
        missing.discard(parameter.name)
    if missing and not line:
        needed = [each for name, each in known.items() if name in missing]
        words = [each.metavar if each in arguments else f"{each.name} {each.metavar}" for each in needed]
        raise ValueError(f"{command} needs {' and '.join(words)}")


def _parameters(command: Callable[..., Any]) -> Iterator[Parameter]:
    """What a command takes, by its signature; the fields of a dataclass among its parameters are options as well."""
    hints = get_type_hints(command, include_extras=True)
    for parameter in inspect.signature(command).parameters.values():
        kind, *extras = _plain(hints[parameter.name])
        if isinstance(kind, type) and is_dataclass(kind):
            yield from _parameters(kind)
            continue
        members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        optional = NoneType in members
        (kind,) = (member for member in members if member is not NoneType)
        several, choices = get_origin(kind) is tuple, ()
        if several:
            kind = get_args(kind)[0]
        if get_origin(kind) is Literal:
            kind, choices = str, get_args(kind)
        metavar = next((each.metavar for each in extras if getattr(each, "metavar", None)), None)
        short = next((tuple(each.aliases) for each in extras if getattr(each, "aliases", None)), ())
        positional = Positional in extras
        metavar = metavar or "|".join(choices) or parameter.name.upper()
        yield Parameter(
            name=metavar if positional else f"--{parameter.name.replace('_', '-')}",
            short=short,
            metavar=metavar,
            kind=kind,
            choices=choices,
            # With this mark an option is given once per value.
            several=several and tyro.conf.UseAppendAction not in extras,
            repeated=tyro.conf.UseAppendAction in extras,
            # Whether there must be one of several is for the command to say.
            required=parameter.default is inspect.Parameter.empty and not several,
            optional=optional,
        )


def _plain(hint: Any) -> tuple[Any, ...]:
    """A type, and what it is annotated with."""
    return (hint.__origin__, *hint.__metadata__) if get_origin(hint) is Annotated else (hint,)


def _is_option(word: str) -> bool:
    """Whether a word begins an option: not a negative number, and not the `--` that ends them."""
    return word.startswith("-") and word.lstrip("-")[:1].isalpha()


def _near_option(name: str, known: Mapping[str, Parameter]) -> str:
    """A hint at the options that are meant, or at the recipe that has such a value."""
    if "--change" in known:
        from dataclasses import fields

        from harness.cells import Recipe

        field = name.removeprefix("--").replace("-", "_")
        if field in {each.name for each in fields(Recipe)}:
            return f"; did you mean --change {field}=VALUE?"
    return _near(name.lstrip("-"), [each.removeprefix("--") for each in known if each.startswith("--")], "--")


def _near(name: str, allowed: Iterable[str], prefix: str = "") -> str:
    near = [f"{prefix}{each}" for each in difflib.get_close_matches(name, list(allowed), n=3)]
    return f"; did you mean {' or '.join(near)}?" if near else ""
