"""The commands that have cells run elsewhere: submit, status, cancel, retry, resume, logs, cluster."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from harness.cli.app import Positional, must_be_new, out_console, say, shown, warn
from harness.cli.options import CellOptions

if TYPE_CHECKING:
    from harness.jobs.submissions import Submission

A_DAY = 24 * 60 * 60
EVERY = 30.0
"""Seconds between two looks at a sweep; Slurm's controller answers everybody."""


def submit(
    choice: tyro.conf.OmitArgPrefixes[CellOptions],
    *,
    cluster: str,
    out: Path = Path("runs"),
    dry_run: bool = False,
    probe: bool = False,
) -> int:
    """Have Slurm measure what is neither recorded nor at work yet, and return at once.

    `attention-bench submit quickstart --cluster gpu`, with a table [gpu] in clusters.toml; `cluster detect` writes a
    first one. `--cluster local` needs no Slurm: processes of this machine, one a GPU or core.

    Args:
        choice: which cells.
        cluster: a table of clusters.toml, here or in ~/.config/attention-bench, or local.
        out: folder of the records, on a file system that all nodes share.
        dry_run: print what would be submitted and what it would take, and submit nothing.
        probe: for that, measure the speed of models here for a moment; without it, it comes from records or GMACs.
    """
    import slurm
    from harness.cli import preview
    from harness.jobs import launch

    if probe and not dry_run:
        raise ValueError("--probe has no effect without --dry-run")
    cells = choice.cells()
    where = slurm.load(cluster)
    if dry_run:
        chosen = launch.choose(cells, launch.look_for(cells, out))
        for line in preview.lines(chosen, launch.planned(chosen, where), where, out, probe=probe):
            say(line)
        return 0
    chosen, submitted = launch.submit_alone(cells, where, out, choice.sweep or "grid", warn)
    for line in preview.counts(chosen, out):
        say(line)
    if submitted is not None:
        _report(submitted, out)
    return 0


def resume(
    sweep: Annotated[str | None, Positional, shown("SWEEP")] = None,
    *,
    out: Path = Path("runs"),
) -> int:
    """Submit again what was submitted and is neither recorded nor at work: what Slurm dropped, or was cancelled.

    It goes where it was submitted to, with the code of then; a training goes on from its checkpoint. Jobs that Slurm
    holds, having queued them again, are let go.

    Args:
        sweep: as it was submitted; left out, every one.
        out: folder of the records.
    """
    return _resubmit(sweep, out, failed=False)


def retry(
    sweep: Annotated[str | None, Positional, shown("SWEEP")] = None,
    *,
    failed: bool = False,
    out: Path = Path("runs"),
) -> int:
    """Submit again the cells that have failed, with the code as it is now.

    Args:
        sweep: as it was submitted; left out, every one.
        failed: say so: those with a record of a failure.
        out: folder of the records.
    """
    if not failed:
        raise ValueError(
            "retry --failed runs the failed cells again; resume goes on with what was dropped or cancelled"
        )
    return _resubmit(sweep, out, failed=True)


def cancel(
    sweep: Annotated[str | None, Positional, shown("SWEEP")] = None,
    *,
    only: tuple[str, ...] = (),
    out: Path = Path("runs"),
) -> int:
    """Cancel what is at work or waits; trainings save at their next step, and `resume` goes on with them.

    Args:
        sweep: as it was submitted; left out, every one.
        only: jobs that have a cell whose name holds one of these texts.
        out: folder of the records.
    """
    from harness.cli.selection import narrowed
    from harness.jobs import cancelling
    from results.wording import count

    ids, cells = cancelling.cancel(sweep, out, lambda cells: narrowed(cells, only), warn)
    say(f"cancelled: {count(len(ids), 'job')} with {count(cells, 'unfinished cell')}")
    return 0


def status(
    sweep: Annotated[str | None, Positional, shown("SWEEP")] = None,
    *,
    out: Path = Path("runs"),
    watch: bool = False,
    every: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = EVERY,
    all: bool = False,
    json: bool = False,
) -> int:
    """Where the cells stand: done, running (how far, how fast, how long yet), waiting (for what), failed (of what).

    It is told from the folder of the records, and from Slurm for what is neither recorded nor seen to be alive there.

    Args:
        sweep: as it was submitted; left out, all that was submitted or begun in the folder.
        out: folder of the records.
        watch: look again and again, until nothing is to come.
        every: time between two looks.
        all: a line for every cell, done and waiting ones too.
        json: print it for machines.
    """
    from harness.status import watch as view

    if watch and json:
        raise ValueError("--watch and --json exclude each other: --json prints one look")
    if not 1 <= every <= A_DAY:
        raise ValueError(f"--every {every:g}: it takes a number of seconds from 1 to {A_DAY:g}")
    return view.show(
        sweep, out, out_console, warn, _labels, every=every if watch else None, everything=all, as_json=json
    )


def _labels(sweep: str) -> dict[str, str]:
    """The labels of a sweep's cells, by key; this is what loads torch."""
    from harness.sweeps.expand import expand

    return {cell.key: cell.label for cell in expand(sweep)}


def logs(
    cell: Annotated[str, Positional],
    *,
    out: Path = Path("runs"),
    follow: bool = False,
    rank: int = 0,
) -> int:
    """Print the log of the job that ran a cell last.

    Args:
        cell: its key or the first digits of it, as `status --all` shows it, or a part of its name.
        out: folder of the records.
        follow: print what is added, until the cell has come to its end.
        rank: of which process of the job.
    """
    from harness.status import logs as view

    return view.show(cell, out, out_console, warn, follow=follow, rank=rank)


def cluster(
    action: Annotated[Literal["detect"], Positional],
    *,
    out: Path = Path("clusters.toml"),
) -> int:
    """Write a first clusters.toml from what this machine's Slurm says of itself; each line says where it is from.

    Args:
        action: detect.
        out: the file; an existing one is not overwritten.
    """
    import results
    from slurm import detect

    assert action == "detect"
    must_be_new(out)
    results.write_text(out, detect())
    say(f"wrote {out}: look at each table before the first submit")
    return 0


def _resubmit(sweep: str | None, out: Path, failed: bool) -> int:
    """Resubmit the failed, or the dropped and cancelled, cells of former submissions."""
    from harness.jobs import resubmit
    from results.wording import count

    done = []

    def released(jobs: list[str]) -> None:
        done.extend(jobs)
        say(f"released {count(len(jobs), 'held job')}")

    def submitted(submission: Submission) -> None:
        done.append(submission.id)
        _report(submission, out)

    resubmit.resubmit(sweep, out, failed=failed, warn=warn, on_release=released, on_submit=submitted)
    if not done:
        what = "has failed" if failed else "was dropped or cancelled"
        say(f"nothing to submit: no cell {what}")
    return 0


def _report(submission: Submission, out: Path) -> None:
    """What was submitted, and how to see what becomes of it."""
    from results.wording import count

    jobs = sum(len(array.jobs) for array in submission.arrays)
    ids = ", ".join(str(array.id) for array in submission.arrays)
    where = "on this machine" if submission.cluster.is_local else f"to {submission.cluster.name}"
    say(f"submitted {count(len(submission.submitted), 'cell')} in {count(jobs, 'job')} {where} ({ids})")
    folder = "" if out == Path("runs") else f" --out {shlex.quote(str(out))}"
    say(f"to watch it: attention-bench status {submission.sweep}{folder} --watch")
