"""Checking an image set before days of training on it: its layout, counts, classes, and that every image decodes.

    report = check_images(Path("/data/photos"), workers=8, num_classes=None)
    print("\\n".join(report_lines(report)))
    sys.exit(report.status)

It opens the splits as training does, so whatever training would refuse is a line of the report.
"""

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from torch.utils.data import DataLoader, Dataset

from harness.cells.source import SPLITS, Split
from harness.images.batches import worker_signals
from harness.images.layouts import Found, find_split, open_split
from harness.images.readers import UNREADABLE, Reader, natural_key
from harness.images.sources import class_difference, imagenet_difference
from results.wording import count

CHUNK = 64  # images that a worker returns at once
SHOWN = 5  # duplicates, of which there may be many; all unreadable images are shown


@dataclass(frozen=True)
class SplitReport:
    """The content of one split. smallest, largest: a class and its number of images. other_files: number by suffix."""

    split: Split
    layout: str
    path: Path
    images: int
    classes: tuple[str, ...]
    smallest: tuple[str, int]
    largest: tuple[str, int]
    natural_order: bool
    other_files: dict[str, int]
    unreadable: list[str]  # a line per image


@dataclass
class Report:
    """splits: those that could be opened. problems: one line each, all of them reasons not to train."""

    root: Path
    splits: list[SplitReport] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    imagenet: str | None = None  # how the counts differ from ImageNet-1K; None if they do not
    duplicates: list[tuple[str, str]] = field(default_factory=list)  # val image, and a train image of the same bytes

    @property
    def status(self) -> int:
        """The exit status of the process: 1 if there are problems."""
        return 1 if self.problems else 0


class Looked(NamedTuple):
    error: str | None
    content: bytes | None  # hash of the encoded image, None if that could not be read


class _Decoding(Dataset[Looked]):
    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> Looked:
        content = None
        try:
            content = hashlib.blake2b(self.reader.encoded(index), digest_size=16).digest()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about odd metadata: only the pixels matter here
                self.reader.rgb(index)
        except UNREADABLE as error:
            return Looked(self.reader.unreadable(index, error), content)
        return Looked(None, content)


def check_images(
    root: Path,
    *,
    workers: int,
    num_classes: int | None,
    progress: Callable[[Split, int, int], None] = lambda split, done, images: None,
) -> Report:
    """Open both splits of a data folder and decode every image in `workers` processes (0: in this one).

    num_classes: the model's number of classes; None: not checked. progress: called with split, images done, images.
    Everything wrong with the data is in the report, and nothing is raised for it.
    """
    report = Report(root)
    readers: dict[Split, Reader] = {}
    contents: dict[Split, dict[bytes, int]] = {}
    for split in SPLITS:
        try:
            found = find_split(root, split)
            reader = open_split(found)
        except (ValueError, OSError) as error:
            if str(error) not in report.problems:  # a folder that is not there is so for both splits
                report.problems.append(str(error))
            continue
        looks = list(_decode(reader, split, workers, progress))  # in the order of the split
        readers[split] = reader
        contents[split] = {}
        for index, look in enumerate(looks):
            if look.content is not None:
                contents[split].setdefault(look.content, index)
        one = _described(reader, split, found, [look.error for look in looks if look.error is not None])
        report.splits.append(one)
        report.problems += one.unreadable
        if one.smallest[1] == 0:
            report.problems.append(f"{split}: the class {one.smallest[0]} has no image")
        if num_classes not in (None, len(one.classes)):
            report.problems.append(f"{split} has {len(one.classes)} classes, the model {num_classes}")
    if len(readers) == len(SPLITS):
        if difference := class_difference(readers["train"], readers["val"]):
            report.problems.append(difference)
        report.duplicates = [
            (readers["val"].filename(index), readers["train"].filename(contents["train"][content]))
            for content, index in contents["val"].items()
            if content in contents["train"]
        ]
        report.imagenet = imagenet_difference(readers)
    else:
        report.imagenet = f"only {' and '.join(readers) or 'no split'} could be opened"
    return report


def _decode(
    reader: Reader, split: Split, workers: int, progress: Callable[[Split, int, int], None]
) -> Iterator[Looked]:
    loader = DataLoader(
        _Decoding(reader), batch_size=CHUNK, num_workers=workers, collate_fn=list, worker_init_fn=worker_signals
    )
    done = 0
    for looks in loader:
        yield from looks
        done += len(looks)
        progress(split, done, len(reader))


def _described(reader: Reader, split: Split, found: Found, unreadable: list[str]) -> SplitReport:
    counts = Counter(reader.targets)
    by_size = sorted((counts[target], name) for target, name in enumerate(reader.classes))
    (fewest, smallest), (most, largest) = by_size[0], by_size[-1]
    return SplitReport(
        split,
        found.layout,
        found.path,
        images=len(reader),
        classes=reader.classes,
        smallest=(smallest, fewest),
        largest=(largest, most),
        natural_order=list(reader.classes) == sorted(reader.classes, key=natural_key),
        other_files=dict(Counter(PurePosixPath(name).suffix or "no suffix" for name in reader.others())),
        unreadable=unreadable,
    )


def report_lines(report: Report) -> list[str]:
    """Return the report as plain lines: a block per split, what concerns both, and every problem."""
    out = [f"{report.root}"]
    for one in report.splits:
        order = "in natural order" if one.natural_order else "NOT in natural order"
        out += [
            f"{one.split}: {one.layout}, {one.path}",
            f"  {one.images:,} images, {len(one.unreadable):,} of them unreadable",
            f"  {len(one.classes):,} classes {order}: {one.classes[0]} ... {one.classes[-1]}",
            f"  smallest class {one.smallest[0]} ({one.smallest[1]:,}), largest {one.largest[0]} ({one.largest[1]:,})",
        ]
        if one.other_files:
            counts = ", ".join(f"{number:,} x {suffix}" for suffix, number in sorted(one.other_files.items()))
            out.append(f"  not read, as the suffix is not that of an image, or the file is not in the map: {counts}")
    if len(report.splits) == len(SPLITS):
        same = report.splits[0].classes == report.splits[1].classes
        out.append(f"class order: {'the same in both splits' if same else 'NOT the same in both splits'}")
        out.append(f"val images that are also in train, byte for byte: {len(report.duplicates):,}")
        out += [f"  {val} = {train}" for val, train in report.duplicates[:SHOWN]]
    out.append(f"ImageNet-1K by its counts: {'yes' if report.imagenet is None else f'no; {report.imagenet}'}")
    out.append(count(len(report.problems), "problem") if report.problems else "no problem")
    return out + [f"  {problem}" for problem in report.problems]
