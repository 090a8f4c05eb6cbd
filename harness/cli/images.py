"""The command for image sets: data check."""

from __future__ import annotations

from typing import Annotated, Literal

import tyro

from harness.cli.app import Positional, check_at_least, error_console, say, shown


def data(
    action: Annotated[Literal["check"], Positional],
    root: Annotated[str, Positional, tyro.conf.arg(metavar="FOLDER")],
    *,
    workers: Annotated[int | None, shown("PROCESSES", default="the machine's cores less one")] = None,
    classes: Annotated[int | None, shown("NUMBER", default="any number")] = None,
) -> int:
    """Check an image folder before days of training on it: layout, counts, class order; decode every image.

    For example:
        attention-bench data check /data/imagenet --classes 1000

    Args:
        action: what to do with the folder.
        root: the folder, in any layout that training takes (class folders, tars, zips, webdataset shards, parquet);
            where parquet files leave a choice of columns, with their names: /data/cifar100,label=fine_label.
        workers: processes that decode images.
        classes: how many classes there must be.
    """
    from rich.progress import Progress

    from harness.cells.source import folder_and_columns
    from harness.images.check import check_images, report_lines
    from harness.process.environment import readers_here

    assert action == "check"
    folder, columns = folder_and_columns(root)
    check_at_least(0, "--workers", workers)
    check_at_least(1, "--classes", classes)
    with Progress(console=error_console, disable=not error_console.is_terminal, transient=True) as bar:
        rows = {split: bar.add_task(split, total=None) for split in ("train", "val")}
        report = check_images(
            folder,
            columns=columns,
            workers=readers_here() if workers is None else workers,
            num_classes=classes,
            progress=lambda split, done, images: bar.update(rows[split], completed=done, total=images),
        )
    for line in report_lines(report):
        say(line)
    return report.status
