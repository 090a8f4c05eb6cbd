"""The command line. Selects; Python configures. torch is imported when a command needs it, so that help is quick."""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import tyro

from harness.cli import attentions as attention_commands
from harness.cli import images, jobs, models, swap, tables
from harness.cli import run as measuring
from harness.cli.app import error_console, out_console, warn

COMMANDS: dict[str, Callable[..., int]] = {
    "list": models.list_,
    "show": models.show,
    "run": measuring.run,
    "train": measuring.train,
    "evaluate": measuring.evaluate,
    "table": tables.table,
    "compare": tables.compare,
    "data": images.data,
    "reproduce": tables.reproduce,
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
}
"""By name, in the order of the help."""

DESCRIPTION = """Attention variants for vision transformers, compared fairly in five backbones.

Every command takes --import FILE.py or --import package.module, anywhere in the line and as often as needed: \
it loads attentions of your own, which then have names like all others."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status: 0, 1 where a cell failed or a record is damaged, 2 for bad input."""
    # torch says so of timm's own imports; a user can do nothing about it.
    warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
    warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
    # Only rank 0 prints; a process with an invalid rank prints its own error.
    rank, world = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
    quiet = rank.isdecimal() and world.isdecimal() and 0 < int(rank) < int(world)
    out_console.quiet = error_console.quiet = quiet
    try:
        imports, rest = _imports(arguments)
        if imports:
            import attentions

            for each in imports:
                attentions.load(each)
        with _processes():
            return tyro.extras.subcommand_cli_from_dict(
                COMMANDS,
                prog="attention-bench",
                description=DESCRIPTION,
                args=rest,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except ValueError as problem:
        warn(str(problem), style="red")
        return 2
    except KeyboardInterrupt:
        warn("interrupted; what was recorded stays, a training goes on from its checkpoint", style="red")
        return 130
    except RuntimeError as problem:
        status = getattr(problem, "status", None)
        if status is None:
            raise
        warn(str(problem), style="red")
        return status


def _imports(arguments: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """What --import names, wherever it stands in a command line, and the rest of the line.

    It is an option of every command, before and after its name, which tyro does not know of.
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


def _processes() -> AbstractContextManager:
    """The other processes of the job, if a launcher has started several; torch is needed for them only."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return nullcontext()
    from harness.process.ranks import process_group

    return process_group()
