"""The command import-speed: the measurement of somebody else as a record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from harness.cli.app import RUNS, Positional, say
from harness.cli.options import OutOption


def import_speed(
    file: Annotated[Path, Positional, tyro.conf.arg(metavar="FILE")],
    *,
    out: OutOption = RUNS,
) -> int:
    """Record a time that was measured elsewhere, with its provenance; it is never ranked against ours.

    For example:
        attention-bench import-speed phone.json

    Args:
        file: a JSON object with backbone, attention, device, tool, version, command, precision, batch and milliseconds.
    """
    from harness.runner.checks import check_writable
    from harness.runner.imported import imported, keep

    record = imported(file)
    check_writable(out)
    is_new = keep(record, out)
    say(f"{record.key} in {out}{'' if is_new else ' already'}: {record.metrics['imported_ms']:g} ms, imported")
    return 0
