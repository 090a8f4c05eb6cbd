"""The commands for cells that run elsewhere: submit, status, cancel, retry, resume, logs, cluster."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from harness.cli.app import RUNS, Positional, must_be_new, out_console, say, shown, warn
from harness.cli.options import CellOptions, OutOption

if TYPE_CHECKING:
    from harness.jobs.submissions import Submission

SubmittedSweep = Annotated[
    str | None, Positional, shown("[SWEEP]", "the name of the sweep as it was submitted.", default="all in the folder")
]

A_DAY = 24 * 60 * 60
EVERY = 30.0
"""Seconds between two looks at a sweep: all users share Slurm's controller."""


def submit(
    choice: tyro.conf.OmitArgPrefixes[CellOptions],
    *,
    cluster: Annotated[str, tyro.conf.arg(metavar="NAME")],
    out: OutOption = RUNS,
    retry_disturbed: bool = False,
    ignore_memory: bool = False,
    dry_run: bool = False,
    probe: bool = False,
) -> int:
    """Submit to Slurm all cells that are not yet recorded, running or waiting, and return at once.

    For example, `attention-bench submit quickstart --cluster gpu` needs a table [gpu] in clusters.toml; to write a
    first one, run `attention-bench cluster detect`. `--cluster local` needs no Slurm: it starts processes on this
    machine, one per GPU or core. All nodes must see the folder of the records.

    Args:
        choice: which cells.
        cluster: name of a table in clusters.toml (here or in ~/.config/attention-bench), or local.
        retry_disturbed: submit also the recorded cells whose speed was disturbed by other work on the machine.
        ignore_memory: submit also what is estimated not to fit on a GPU of the cluster, with a line on the estimate.
        dry_run: print what would be submitted and an estimate of the time and disk space; submit nothing.
        probe: base the estimate on a brief speed measurement on this machine, rather than on records or GMACs.
    """
    import slurm
    from harness.cli import preview
    from harness.jobs import launch

    if probe and not dry_run:
        raise ValueError("--probe has no effect without --dry-run")
    cells = choice.cells()
    where = slurm.load(cluster)
    if ignore_memory and where.gpu_memory_gb is None:
        raise ValueError(
            f"--ignore-memory has no effect: cluster {where.name} has no gpu_memory_gb, so nothing is refused"
        )
    if dry_run:
        chosen = launch.choose(cells, launch.look_for(cells, out), retry_disturbed=retry_disturbed)
        arrays = launch.planned(chosen, where, warn if ignore_memory else None)
        limits = slurm.limits_of(where) if arrays and not where.is_local else None
        for line in preview.preview_lines(chosen, arrays, where, limits, out, probe=probe):
            say(line)
        return 0
    chosen, submitted = launch.submit_alone(
        *(cells, where, out, choice.sweep or "grid", warn),
        retry_disturbed=retry_disturbed,
        ignore_memory=ignore_memory,
    )
    for line in preview.counts(chosen, out):
        say(line)
    if submitted is not None:
        _report(submitted, out)
    return 0


def resume(
    sweep: SubmittedSweep = None,
    *,
    out: OutOption = RUNS,
) -> int:
    """Resubmit unfinished cells that Slurm dropped or that were cancelled.

    Each is resubmitted to the same cluster with the code it was first submitted with; a training continues from its
    checkpoint. Jobs that Slurm requeued and holds are released.

    """
    return _resubmit(sweep, out, failed=False)


def retry(
    sweep: SubmittedSweep = None,
    *,
    failed: bool = False,
    out: OutOption = RUNS,
) -> int:
    """Resubmit the cells that have failed, with the code as it is now.

    Args:
        failed: required: retry the cells whose record is a failure.
    """
    if not failed:
        raise ValueError("retry --failed runs the failed cells again; resume continues what was dropped or cancelled")
    return _resubmit(sweep, out, failed=True)


def cancel(
    sweep: SubmittedSweep = None,
    *,
    only: Annotated[tuple[str, ...], shown("TEXT ...", default="all jobs")] = (),
    out: OutOption = RUNS,
) -> int:
    """Cancel running and waiting jobs; trainings save a checkpoint at their next step, and `resume` continues them.

    Args:
        only: cancel only jobs with a cell whose name contains one of these texts.
    """
    from harness.cli.selection import narrowed
    from harness.jobs import cancelling
    from results.wording import count

    ids, cells = cancelling.cancel(sweep, out, lambda cells: narrowed(cells, only), warn)
    say(f"cancelled: {count(len(ids), 'job')} with {count(cells, 'unfinished cell')}")
    return 0


def status(
    sweep: SubmittedSweep = None,
    *,
    out: OutOption = RUNS,
    watch: bool = False,
    every: Annotated[float | None, shown("SECONDS", "time between two looks.", default=f"{EVERY:g}")] = None,
    all: bool = False,
    json: bool = False,
) -> int:
    """Show the state of each cell: done, running (progress, speed, time left), waiting (for what), failed (and why).

    Read from the output folder; Slurm is asked only about cells without a record or heartbeat.

    Args:
        watch: keep the view up to date until no cell is running or waiting.
        all: list every cell, including those that are done or waiting.
        json: print one JSON object.
    """
    from harness.status import watch as view

    if watch and json:
        raise ValueError("--watch and --json exclude each other: --json prints one look")
    if every is not None and not watch:
        raise ValueError("--every has no effect without --watch")
    seconds = EVERY if every is None else every
    if not 1 <= seconds <= A_DAY:
        raise ValueError(f"--every {seconds:g}: allowed are 1 to {A_DAY:g} seconds")
    return view.show_status(
        sweep, out, out_console, warn, _labels, every=seconds if watch else None, everything=all, as_json=json
    )


def _labels(sweep: str) -> dict[str, str]:
    """Return the labels of a sweep's cells, by key; this loads torch."""
    from harness.sweeps.expand import expand

    return {cell.key: cell.label for cell in expand(sweep)}


def logs(
    cell: Annotated[str, Positional, tyro.conf.arg(metavar="CELL")],
    *,
    out: OutOption = RUNS,
    follow: bool = False,
    rank: Annotated[int, tyro.conf.arg(metavar="RANK")] = 0,
) -> int:
    """Print the log of the job that last ran a cell.

    Args:
        cell: its key, or the first digits of it as shown by `status --all`, or a part of its name.
        follow: keep printing new lines until the cell has ended.
        rank: process of the job whose log is printed.
    """
    from harness.status import logs as view

    return view.show_logs(cell, out, out_console, warn, follow=follow, rank=rank)


def cluster(
    action: Annotated[Literal["detect"], Positional],
    *,
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("clusters.toml"),
) -> int:
    """Write a first clusters.toml from what this machine's Slurm reports; each line says where its value is from.

    Args:
        action: detect.
        out: the file to write; an existing one is not overwritten.
    """
    import results
    from slurm import detect

    assert action == "detect"
    must_be_new(out)
    results.write_text(out, detect())
    say(f"wrote {out}: check each table before the first submit")
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
    """Print what was submitted, and the command that watches it."""
    from results.wording import count

    jobs = sum(len(array.jobs) for array in submission.arrays)
    ids = ", ".join(str(array.id) for array in submission.arrays)
    where = "on this machine" if submission.cluster.is_local else f"to {submission.cluster.name}"
    say(f"submitted {count(len(submission.submitted), 'cell')} in {count(jobs, 'job')} {where} ({ids})")
    folder = "" if out == Path("runs") else f" --out {shlex.quote(str(out))}"
    say(f"watch it with: attention-bench status {submission.sweep}{folder} --watch")
