"""The commands for attentions: new, check."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.table import Table
from rich.text import Text

from harness.cli.app import CERTIFICATES, RUNS, Positional, out_console, say, shown, warn
from harness.cli.options import DeviceOption, OutOption

if TYPE_CHECKING:
    from attentions import AttentionSpec
    from results import Verdict

TEMPLATE = Path(__file__).with_name("template.py")


def new(
    name: Annotated[str, Positional, tyro.conf.arg(metavar="NAME")],
    *,
    out: Annotated[Path, shown("FOLDER", default="the current folder")] = Path(),
) -> int:
    """Write NAME.py, a working attention as a starting point: a short file with its options and its definition.

    For example:
        attention-bench new my_attention

    Args:
        name: its name in every command, as in my_attention.
        out: the folder of the file.
    """
    import attentions

    if keyword.iskeyword(name) or not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
        raise ValueError(f"{name!r} cannot be the name of an attention: it takes letters, digits and _, a letter first")
    if name in attentions.names():
        raise ValueError(f"there is an attention {name!r} already (see attention-bench list attentions)")
    path = out / f"{name}.py"
    if importlib.util.find_spec(name) is not None and not path.exists():
        raise ValueError(f"there is a Python module {name!r}, which a file of that name would hide; choose another")
    title = name.title().replace("_", "").removesuffix("Attention") or "My"
    text = TEMPLATE.read_text(encoding="utf-8")
    text = text.replace("MyAttention", f"{title}Attention").replace("my_attention", name)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as problem:
        raise ValueError(f"{problem.filename} exists, and is not overwritten") from problem
    except OSError as problem:
        raise ValueError(f"cannot write {path}: {problem.strerror}") from problem
    quoted = shlex.quote(str(path))
    run = f"attention-bench run --import {quoted} --backbone deit_micro swin_micro --attention softmax {name}"
    for line in (
        f"wrote {path}: linear attention as a starting point; edit it, then run",
        f"attention-bench check {quoted}",
        f"{run} --task costs",
        f"{run} --task speed",
    ):
        say(line)
    return 0


def check(
    attention: Annotated[
        tuple[str, ...], Positional, tyro.conf.arg(metavar="NAME|FILE ...", help_behavior_hint="(required)")
    ],
    *,
    quick: bool = False,
    device: DeviceOption = "cpu",
    out: OutOption = RUNS,
) -> int:
    """Test attentions against the laws that all of them must obey; write a certificate of each, which tables show.

    By name, and a file of your own:
        attention-bench check softmax "focused(kernel_size=None)"
        attention-bench check my_attention.py --quick

    One that needs a GPU, on a machine that has one:
        attention-bench check my_kernel.py --device cuda

    Certificates go to `certificates` in the folder of the records.

    Args:
        attention: names, as in softmax or "focused(kernel_size=None)", or files of your own; `all` means every one that
            is known, with its defaults.
        quick: test in seconds: on fewer sites, without measured time, capturing graphs but not compiling them.
    """
    import results
    from harness.cells.runtime import check_runtime
    from harness.certificate.certify import LAWS, certify
    from harness.process.environment import check_device
    from harness.runner.checks import check_writable
    from results.wording import count

    check_runtime(device, "fp32")
    check_device(device)
    specs = _named(attention)
    folder = out / CERTIFICATES
    check_writable(folder)
    width = max(map(len, LAWS))
    failed: list[str] = []
    refused = 0
    for spec in specs:
        say(f"{spec}", style="bold")
        try:
            certificate = certify(
                spec, quick=quick, device=device, report=lambda verdict: _print_verdict(verdict, width)
            )
        except ValueError as problem:
            # The others can be tested all the same.
            warn(str(problem), style="red")
            refused += 1
            continue
        path = results.write_certificate(folder, certificate)
        say(f"{certificate.short}, in {path}\n")
        failed += [str(spec)] * bool(certificate.failed)
    if failed:
        warn(f"{count(len(failed), 'attention')} of {len(specs)} failed", style="red")
    return 2 if refused else 1 if failed else 0


def _named(texts: Sequence[str]) -> list[AttentionSpec]:
    """Return the attentions of a command line, each once. Raise ValueError, in one line, for what is not one."""
    import attentions
    from attentions import AttentionSpec

    if not texts:
        raise ValueError(f"check takes a file, or names of attentions ({', '.join(attentions.names())}, or all)")
    specs = []
    for text in texts:
        if text == "all":
            specs += [AttentionSpec(name) for name in attentions.names()]
        elif text.endswith(".py") or "/" in text:
            specs += [AttentionSpec(name) for name in attentions.load(text)]
        else:
            specs.append(AttentionSpec.parse(text))
    return list(dict.fromkeys(specs))


COLOURS = {"pass": "green", "fail": "red", "exempt": "yellow"}


def _print_verdict(verdict: Verdict, width: int) -> None:
    """Print a line per law; on a terminal a long detail is wrapped below itself."""
    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_column(width=width)
    row.add_column(width=max(map(len, COLOURS)))
    row.add_column()
    row.add_row(verdict.law, Text(verdict.verdict, style=COLOURS[verdict.verdict]), Text(verdict.detail))
    if out_console.is_terminal:
        out_console.print(row)
    else:
        line = f"{verdict.law:{width}}  {verdict.verdict:6}  {verdict.detail}"
        say(line)
