"""Checking an image set before days of training on it: its layout, counts, classes, and that every image decodes.

    report = check_images(Path("/data/photos"), workers=8, num_classes=None)
    print("\\n".join(report_lines(report)))
    sys.exit(report.status)

It opens the splits as training does, so whatever training would refuse is a line of the report.
"""

import hashlib
import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from torch.utils.data import DataLoader, Dataset

from harness.cells.source import IMAGENET_IMAGES, SPLITS, Columns, Split
from harness.images.batches import worker_signals
from harness.images.layouts import Found, find_split, open_split
from harness.images.names import IMAGE_SUFFIXES, is_unread_image, is_utf8, left_behind, natural_key, suffixes
from harness.images.readers import UNREADABLE, Reader, in_rgb
from harness.images.sources import ILSVRC_NUMBERS, class_difference, counted_from_one, imagenet_difference
from results.wording import count, printable

CHUNK = 64  # images that a worker returns at once
ORIENTATION = 0x0112  # the EXIF tag
SHOWN = 5  # duplicates, of which there may be many; all unreadable images are shown


@dataclass(frozen=True)
class SplitReport:
    """The content of one split.

    smallest, largest: a class and its number of images. other_files: how many of each suffix, as text. remarks: what is
    surprising about names and images, a line each, and yet no reason not to train.
    """

    split: Split
    layout: str
    path: Path
    images: int
    classes: tuple[str, ...]
    smallest: tuple[str, int]
    largest: tuple[str, int]
    natural_order: bool
    other_files: str
    unreadable: list[str]  # a line per image
    remarks: list[str]


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
    oddities: tuple[str, ...] = ()


class _Decoding(Dataset[Looked]):
    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> Looked:
        content = None
        try:
            encoded = self.reader.encoded(index)
            content = hashlib.blake2b(encoded, digest_size=16).digest()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about odd metadata, of which `_oddities` names what matters
                image = Image.open(io.BytesIO(encoded))
                in_rgb(image)
                return Looked(None, content, tuple(_oddities(image)))
        except UNREADABLE as error:
            return Looked(self.reader.unreadable(index, error), content)


def _oddities(image: Image.Image) -> Iterator[str]:
    """Yield what a person would see in an image and a model does not, as timm and torchvision read it too."""
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # a camera's JPEG with its preview
        yield "animated or of several pages: only the first is read"
    if image.mode == "CMYK":
        yield "CMYK, made for print: converted to RGB without its colour profile"
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        yield "transparent in parts: read without transparency, so that hidden colours show"
    if image.getexif().get(ORIENTATION, 1) not in (0, 1):
        yield "turned by their EXIF orientation: read as they are stored"


def check_images(
    root: Path,
    *,
    workers: int,
    num_classes: int | None,
    columns: Columns = Columns(),  # noqa: B008, a frozen value
    progress: Callable[[Split, int, int], None] = lambda split, done, images: None,
) -> Report:
    """Open both splits of a data folder and decode every image in `workers` processes (0: in this one).

    num_classes: the model's number of classes; None: not checked. columns: those of parquet files. progress: called
    with split, images done, images.
    Everything wrong with the data is in the report, and nothing is raised for it.
    """
    report = Report(root)
    readers: dict[Split, Reader] = {}
    contents: dict[Split, dict[bytes, int]] = {}
    for split in SPLITS:
        try:
            found = find_split(root, split, columns)
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
        others = _Others(reader, found)
        one = _described(reader, split, found, looks, others)
        report.splits.append(one)
        report.problems += one.unreadable
        if others.images:
            report.problems.append(
                f"{split}: {count(len(others.images), 'image')} not read, as their suffixes are not "
                f"{', '.join(IMAGE_SUFFIXES)}: {suffixes(others.images)}; such as {printable(others.images[0])}"
            )
        if counted_from_one(reader) and len(reader) == IMAGENET_IMAGES[split]:
            report.problems.append(f"{split} has classes called 1 to {len(reader.classes)}: {ILSVRC_NUMBERS}")
        if one.smallest[1] == 0:
            report.problems.append(f"{split}: the class {printable(one.smallest[0])} has no image")
        if num_classes not in (None, len(one.classes)):
            report.problems.append(f"{split} has {len(one.classes)} classes, the model {num_classes}")
    if len(readers) == len(SPLITS):
        if difference := class_difference(readers["train"], readers["val"]):
            report.problems.append(difference)
        report.duplicates = [
            (readers["val"].shown(index), readers["train"].shown(contents["train"][content]))
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


class _Others:
    """The files of a split that are not read: `left` there by some program, `images` all the same, and the `rest`."""

    def __init__(self, reader: Reader, found: Found) -> None:
        self.left: list[str] = []
        self.images: list[str] = []
        self.rest: list[str] = []
        for name in reader.others():
            below = name.removeprefix(f"{found.path.parent}/")
            if part := left_behind(below):
                self.left.append("._*" if part.startswith("._") else part)
            elif is_unread_image(name) or _opens(Path(name)):
                self.images.append(name)
            else:
                self.rest.append(name)


def _opens(path: Path) -> bool:
    """Whether a file on disk, whatever it is called, is an image."""
    if not path.is_file():  # a pipe or a device would be waited for
        return False
    try:
        with Image.open(path):
            return True
    except UNREADABLE:
        return False


def _described(reader: Reader, split: Split, found: Found, looks: list[Looked], others: _Others) -> SplitReport:
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
        other_files=suffixes(others.rest),
        unreadable=[look.error for look in looks if look.error is not None],
        remarks=_remarks(reader, looks, others),
    )


def _remarks(reader: Reader, looks: list[Looked], others: _Others) -> list[str]:
    remarks = []
    if others.left:
        left = ", ".join(f"{number:,} x {name}" for name, number in sorted(Counter(others.left).items()))
        remarks.append(f"not read, as systems and programs leave it behind (._* is a Mac's AppleDouble): {left}")
    odd: dict[str, list[int]] = {}
    for index, look in enumerate(looks):
        for oddity in look.oddities:
            odd.setdefault(oddity, []).append(index)
        if not is_utf8(reader.filename(index)):
            odd.setdefault("with a name that is not UTF-8", []).append(index)
    remarks += [
        f"{count(len(indices), 'image')} {oddity}; such as {reader.shown(indices[0])}"
        for oddity, indices in odd.items()
    ]
    if counted_from_one(reader):
        remarks.append(f"the classes are called 1 to {len(reader.classes)}; if they are ImageNet's: {ILSVRC_NUMBERS}")
    return remarks


def report_lines(report: Report) -> list[str]:
    """Return the report as plain lines: a block per split, what concerns both, and every problem."""
    out = [f"{report.root}"]
    for one in report.splits:
        order = "in natural order" if one.natural_order else "NOT in natural order"
        out += [
            f"{one.split}: {one.layout}, {one.path}",
            f"  {one.images:,} images, {len(one.unreadable):,} of them unreadable",
            f"  {len(one.classes):,} classes {order}: {printable(one.classes[0])} ... {printable(one.classes[-1])}",
            f"  smallest class {printable(one.smallest[0])} ({one.smallest[1]:,}), "
            f"largest {printable(one.largest[0])} ({one.largest[1]:,})",
        ]
        if one.other_files:
            out.append(
                f"  not read, as the suffix is not that of an image, or the file is not in the map: {one.other_files}"
            )
        out += [f"  {remark}" for remark in one.remarks]
    if len(report.splits) == len(SPLITS):
        same = report.splits[0].classes == report.splits[1].classes
        out.append(f"class order: {'the same in both splits' if same else 'NOT the same in both splits'}")
        out.append(f"val images that are also in train, byte for byte: {len(report.duplicates):,}")
        out += [f"  {val} = {train}" for val, train in report.duplicates[:SHOWN]]
    out.append(f"ImageNet-1K by its counts: {'yes' if report.imagenet is None else f'no; {report.imagenet}'}")
    out.append(count(len(report.problems), "problem") if report.problems else "no problem")
    return out + [f"  {problem}" for problem in report.problems]
