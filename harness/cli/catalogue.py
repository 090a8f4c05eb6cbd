"""What `attention-bench list` prints: the attentions, backbones, sweeps and tasks to choose from."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import results
from harness.cli.app import CERTIFICATES, RUNS, warn
from results.sheets import Sheet, to_plain


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def _attentions() -> str:
    """List two lines each, as options are long: what `--attention` takes; growth with N tokens, certificate, paper."""
    import attentions

    for line in attentions.broken_packages():
        warn(line)
    lines = ["attention, with its defaults; how it grows with N tokens, laws that hold (check), and what it is"]
    found = results.certificates(RUNS / CERTIFICATES)
    for name in attentions.names():
        cls = attentions.lookup(name)
        growth = "O(N)" if cls.exponent == 1 else f"O(N^{cls.exponent})"
        about = _first_line(sys.modules[cls.__module__]) or _first_line(cls)
        spec = str(attentions.AttentionSpec(name))
        certificate = results.certificate_summary(spec, [attentions.source_digest(name)], found) or "-"
        lines += [spec, f"    {growth:8}{certificate:16}  {about}".rstrip()]
    return "\n".join(lines) + "\n"


def _backbones() -> str:
    import backbones

    specs = [backbones.preset(name) for name in backbones.presets()]
    rows = [
        (family, " ".join(spec.name for spec in group))
        for family, group in groupby(specs, key=lambda spec: spec.family)
    ]
    return to_plain(Sheet(("family", "backbones"), rows))


def sweeps() -> dict[str, str]:
    """Return what each sweep of harness/sweeps is, by name.

    They are the functions that return cells, as their text says: importing them loads torch.
    """
    files = sorted((Path(__file__).parents[1] / "sweeps").glob("*.py"))
    functions = [
        each for file in files for each in ast.parse(file.read_text()).body if isinstance(each, ast.FunctionDef)
    ]
    return {
        each.name: (ast.get_docstring(each) or "").partition("\n")[0]
        for each in functions
        if each.returns and ast.unparse(each.returns) == "list[Cell]" and not each.args.args and each.name[0] != "_"
    }


def _sweeps() -> str:
    return to_plain(Sheet(("sweep", ""), list(sweeps().items())))


def _tasks() -> str:
    from harness.cells import Evaluate
    from harness.cli.selection import TASKS

    tasks = {name: type(task) for name, task in TASKS.items()} | {Evaluate.name: Evaluate}
    rows = [(name, _first_line(task)) for name, task in tasks.items()]
    return to_plain(Sheet(("task", ""), rows))


KINDS: dict[str, Callable[[], str]] = {
    "attentions": _attentions,
    "backbones": _backbones,
    "sweeps": _sweeps,
    "tasks": _tasks,
}


def listing(kind: str) -> str:
    """Return the choices of one kind, or of all. Raise ValueError for an unknown kind."""
    if kind == "all":
        return "\n".join(section() for section in KINDS.values())
    if kind not in KINDS:
        from attentions import unknown

        raise ValueError(unknown("kind", kind, ["all", *KINDS]))
    return KINDS[kind]()
