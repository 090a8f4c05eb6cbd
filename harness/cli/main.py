"""The command line: it selects, Python configures. A command imports torch when it needs it, so that help is quick."""

from __future__ import annotations

import argparse
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from typing import Annotated, Any, Union

import tyro

from harness.cli import attentions as attention_commands
from harness.cli import (
    export,
    figures,
    images,
    imported,
    jobs,
    models,
    operators,
    report,
    runtimes,
    scaling,
    seeing,
    swap,
    tables,
)
from harness.cli import race as racing
from harness.cli import run as measuring
from harness.cli.app import error_console, out_console, warn
from harness.cli.line import check_line

COMMANDS: dict[str, Callable[..., int]] = {
    "list": models.list_,
    "show": models.show,
    "run": measuring.run,
    "train": measuring.train,
    "evaluate": measuring.evaluate,
    "table": tables.table,
    "compare": tables.compare,
    "race": racing.race,
    "scaling": scaling.scaling,
    "runtimes": runtimes.runtimes,
    "operators": operators.operators,
    "data": images.data,
    "reproduce": tables.reproduce,
    "figure": figures.figure,
    "report": report.report,
    "maps": seeing.maps,
    "analyze": seeing.analyze,
    "new": attention_commands.new,
    "check": attention_commands.check,
    "submit": jobs.submit,
    "resume": jobs.resume,
    "retry": jobs.retry,
    "cancel": jobs.cancel,
    "status": jobs.status,
    "logs": jobs.logs,
    "cluster": jobs.cluster,
    "swap": swap.swap,
    "export": export.export,
    "import-speed": imported.import_speed,
}
"""By name, in the order of the help."""

TOGETHER = {"run", "train", "evaluate"}
"""Commands that the processes of a job carry out together; `reproduce` as well, if it evaluates."""

DESCRIPTION = """Attention variants for vision transformers, compared fairly in five backbones.

Every command takes --import FILE.py or --import package.module, anywhere in the line and as often as needed: \
it loads attentions of your own, which then have names like all others. \
`attention-bench COMMAND --help` shows the options of a command, with examples."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status: 0, 1 if a cell failed or a record is damaged, 2 for bad input.

    2 as well where memory runs out, 130 after an interrupt; an error with a status of its own ends with that.
    """
    # File names that are not UTF-8 are printed, too.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # torch warns of what timm's own imports use; a user can do nothing about it.
    warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
    warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
    out_console.quiet = error_console.quiet = False
    try:
        imports, rest = _imports(arguments)
        out_console.quiet = error_console.quiet = _is_another(rest)
        check_line(COMMANDS, rest)
        if imports:
            import attentions

            for each in imports:
                attentions.load(each)
        return call(rest)
    except ValueError as problem:
        warn(str(problem), style="red")
        return 2
    except KeyboardInterrupt:
        warn("interrupted; records are kept, and a training resumes from its checkpoint", style="red")
        return 130
    except (RuntimeError, MemoryError) as problem:
        status = getattr(problem, "status", None)
        if status is None:
            from harness.process.errors import first_line, is_out_of_memory

            if not is_out_of_memory(problem):
                raise
            warn(f"memory ran out: {first_line(problem)}", style="red")
            return 2
        warn(str(problem), style="red")
        return status


def call(line: Sequence[str], *, console_outputs: bool = True) -> int:
    """Call the command of a line as tyro reads it; with `console_outputs`, that prints help and errors."""
    given: dict[str, Any] = {"config": (tyro.conf.FlagCreatePairsOff,), "console_outputs": console_outputs}
    if line and line[0] in COMMANDS:
        # Reading all commands to choose one of them takes longer than some commands do.
        name, *options = line
        return tyro.cli(COMMANDS[name], prog=f"attention-bench {name}", args=options, **given)
    return tyro.cli(_commands(), prog="attention-bench", description=DESCRIPTION, args=line, **given)


def _commands() -> Any:
    """Return the type that tyro reads: one of COMMANDS, each with the first line of its help."""
    commands = [
        Annotated[
            Any,
            tyro.conf.subcommand(
                name, constructor=command, description=(inspect.getdoc(command) or "").partition("\n")[0]
            ),
        ]
        for name, command in COMMANDS.items()
    ]
    return Union[tuple(commands)]  # noqa: UP007


def _imports(arguments: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Split a command line (None: that of this process) into what --import names and the rest.

    It is an option of every command, allowed before and after the command's name, which tyro cannot say.

    Raises:
        ValueError: for --import without a value.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--import", action="append", default=[], dest="imports")
    try:
        known, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError:
        raise ValueError(
            "--import takes a Python file or an installed module, as in --import my_attention.py"
        ) from None
    return known.imports, rest


def _is_another(arguments: Sequence[str]) -> bool:
    """Whether this is a process beside rank 0, which alone prints; one with an invalid rank prints its own error.

    A shell may have a launcher's variables without being started by it, as in a pod: a command that measures nothing
    does not look at them. `process_group` is joined by what measures.
    """
    given = {argument.partition("=")[0].replace("_", "-") for argument in arguments}
    measures = bool(arguments) and (arguments[0] in TOGETHER or (arguments[0] == "reproduce" and "--data" in given))
    if not measures or given & {"--dry-run", "--help", "-h"}:
        return False
    rank, world = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
    return rank.isdecimal() and world.isdecimal() and 0 < int(rank) < int(world)
