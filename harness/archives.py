"""Readers of splits that lie in archives: tars of all kinds, the zip of Swin, and the parquet files of Hugging Face.

    reader = open_tar(Path("/data/ILSVRC2012_img_train.tar"))     # a tar of one tar per class

Every archive is listed once, when it is opened, and its images are then read by their offsets. timm's own reader of
tars (`ReaderImageInTar`) was not taken: it streams all 138 GB of ImageNet's tar to list it, lets the disk decide the
order of files that bear one name in two classes, takes the rest of a tar after a damaged header for absent, and its
reader of webdataset shards is iterable only, whereas a run that resumes exactly needs images by index.
"""

import os
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from timm.utils.misc import natural_key

from harness.readers import SORT, Reader, check_order, is_image, sort_key

BLOCK = 512  # bytes; a tar is made of such
SPLIT_FOLDERS = ("train", "val", "validation")
LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a file in a zip: signature, lengths of the name and of the extra field


class Entry(NamedTuple):
    """An image in an archive."""

    label: str  # its class
    name: str
    archive: int  # which of the archives
    offset: int  # of its first byte in that archive
    size: int


class TarReader(Reader):
    """Images of one tar or more. `entries` are in the order of the split, `classes` in that of the targets."""

    def __init__(
        self, archives: list[Path], entries: list[Entry], classes: tuple[str, ...], others: list[str] | None = None
    ) -> None:
        self.archives, self.classes = archives, classes
        target_of = {label: target for target, label in enumerate(classes)}
        self.targets: list[int] = [target_of[entry.label] for entry in entries]
        self.names: list[str] = [entry.name for entry in entries]
        # arrays: a million tuples would be copied into every worker as soon as it touched them
        self.places = np.array([entry[2:] for entry in entries], np.int64)
        self._others = others or []

    def encoded(self, index: int) -> bytes:
        archive, offset, size = self.places[index].tolist()
        return read_at(self.archives[archive], offset, size)

    def filename(self, index: int) -> str:
        return f"{self.archives[self.places[index, 0]]}/{self.names[index]}"

    def files(self) -> list[Path]:
        return self.archives

    def others(self) -> list[str]:
        return self._others


def read_at(path: Path, offset: int, size: int) -> bytes:
    """Bytes of a file, without a handle that processes could share. Raises OSError if it ends before."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        data = os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)
    if len(data) != size:
        raise OSError(f"{path} ends within it")
    return data


def open_tar(path: Path) -> TarReader:
    """One tar of class folders, or of one tar per class. Raises ValueError for images that lie in no class."""
    return _by_class([path], [None])


def open_class_tars(folder: Path, paths: list[Path]) -> TarReader:
    """A folder of one tar per class, which is named as the tar is."""
    paths = sorted(paths, key=lambda path: sort_key(path.name))
    return _by_class(paths, [path.stem for path in paths])


def _by_class(paths: list[Path], labels: list[str | None]) -> TarReader:
    entries: list[Entry] = []
    others: list[str] = []
    for archive, (path, outer) in enumerate(zip(paths, labels, strict=True)):
        for label, info, offset in _members(path, outer):
            if info.name.endswith(".cls"):
                raise ValueError(
                    f"{path} holds webdataset samples ({info.name}); lay the shards beside one another in the data "
                    "folder, named like train-000000.tar"
                )
            if is_image(info.name):
                label, name = _place(path, label, info.name)
                entries.append(Entry(label, f"{label}/{name}", archive, offset, info.size))
            else:
                others.append(f"{path}/{info.name}")
    if not entries:
        raise ValueError(f"no image in {paths[0] if len(paths) == 1 else paths[0].parent}; {SORT}")
    entries.sort(key=lambda entry: sort_key(entry.name))
    names = {entry.label for entry in entries}
    check_order(names, str(paths[0]))
    return TarReader(paths, entries, tuple(sorted(names, key=natural_key)), others)


def _place(path: Path, label: str | None, name: str) -> tuple[str, str]:
    """Class and file name of a member. A tar of a folder has that folder before all its names."""
    parts = PurePosixPath(name).parts
    if label is None and len(parts) == 3 and parts[0] in SPLIT_FOLDERS:
        parts = parts[1:]
    if label is not None and (len(parts) == 1 or (len(parts) == 2 and parts[0] == label)):
        return label, parts[-1]
    if label is None and len(parts) == 2:
        return parts[0], parts[1]
    raise ValueError(f"{path}/{name} does not lie in a class folder directly under {path.name}: {SORT}")


def _members(path: Path, label: str | None) -> Iterator[tuple[str | None, tarfile.TarInfo, int]]:
    """The files of a tar, and those of the tars in it if `label` is None: class if known, header, absolute offset."""
    try:
        with tarfile.open(path, mode="r:") as tar:
            for info in _listed(tar):
                inner = tar.extractfile(info) if label is None and info.name.endswith(".tar") else None
                if inner is None:
                    yield label, info, info.offset_data
                    continue
                with tarfile.open(fileobj=inner, mode="r:") as class_tar:
                    for member in _listed(class_tar):
                        yield PurePosixPath(info.name).stem, member, info.offset_data + member.offset_data
    except tarfile.ReadError as error:
        raise ValueError(f"{path} is not a whole, uncompressed tar: {error}") from None


def _listed(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The regular files. Raises tarfile.ReadError unless the list ends as tars do, with a block of zeros."""
    while (info := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # a million headers would take a gigabyte
        if info.isreg():
            yield info
    assert tar.fileobj is not None
    # tarfile takes a damaged header, and the end of a file cut short, for the end of the list
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(BLOCK) != bytes(BLOCK):
        raise tarfile.ReadError("it is damaged or was cut short")


def open_shards(paths: list[Path]) -> TarReader:
    """Webdataset shards: samples `key.jpg` + `key.cls`, in the order of shards and members; other members are ignored.

    Raises ValueError for a sample without an image or class, and for classes that are not numbers from 0 up.
    """
    entries: list[Entry] = []
    for archive, path in enumerate(paths):
        images: dict[str, Entry] = {}
        labels: dict[str, str] = {}
        try:
            with tarfile.open(path, mode="r:") as tar:
                for info in _listed(tar):
                    folder, _, name = info.name.rpartition("/")
                    key = f"{folder}/{name.split('.')[0]}"
                    if name.endswith(".cls"):
                        content = tar.extractfile(info)
                        assert content is not None
                        labels[key] = content.read().decode("ascii", "replace").strip()
                    elif is_image(name):
                        if key in images:
                            raise ValueError(f"{path}: {info.name} is a second image of one sample")
                        images[key] = Entry("", info.name, archive, info.offset_data, info.size)
        except tarfile.ReadError as error:
            raise ValueError(f"{path} is not a whole, uncompressed tar: {error}") from None
        for key in images.keys() ^ labels.keys():
            missing = "class (.cls)" if key in images else "image (.jpg, .jpeg, .png)"
            raise ValueError(f"{path}: the sample {key.strip('/')!r} has no {missing}")
        for key, entry in images.items():
            if not labels[key].isdecimal():
                raise ValueError(f"{path}: the class of {entry.name} is {labels[key]!r}; expected a number from 0 up")
            entries.append(entry._replace(label=str(int(labels[key]))))
    return TarReader(paths, entries, _numbered({int(entry.label) for entry in entries}, str(paths[0].parent)))


def _numbered(targets: set[int], where: str) -> tuple[str, ...]:
    """Numbers as class names. Raises ValueError for gaps, which would make classes that no image has."""
    if not targets:
        raise ValueError(f"no image in {where}")
    if missing := set(range(max(targets) + 1)) - targets:
        raise ValueError(f"{where}: class numbers go up to {max(targets)}, and no image has class {min(missing)}")
    return tuple(map(str, range(len(targets))))


class ZipReader(Reader):
    """Swin's layout: a zip, and a text file with a line `<class>/<file>` TAB `<target>` for every image.

    Raises ValueError, with file and line, for a map that is malformed, that names what the zip has not, or in which a
    class has two targets.
    """

    def __init__(self, archive: Path, index: Path) -> None:
        if not index.is_file():
            raise ValueError(f"{archive} needs {index.name} beside it, with lines <class>/<file> TAB <class number>")
        self.archive, self.index = archive, index
        try:
            with zipfile.ZipFile(archive) as opened:
                found = {info.filename: info for info in opened.infolist()}
        except zipfile.BadZipFile as error:
            raise ValueError(f"{archive} is not a whole zip: {error}") from None
        label_of: dict[int, str] = {}
        self.names: list[str] = []
        self.targets: list[int] = []
        for number, line in enumerate(index.read_text().splitlines(), start=1):
            name, _, target = line.partition("\t")
            label, *rest = PurePosixPath(name).parts or ("",)
            where = f"{index}, line {number}"
            if len(rest) != 1 or not target.strip().isdecimal():
                raise ValueError(f"{where}: {line!r} is not of the form <class>/<file> TAB <class number>")
            if name not in found:
                raise ValueError(f"{where}: {name} is not in {archive}")
            if label_of.setdefault(int(target), label) != label:
                raise ValueError(f"{where}: class number {int(target)} is both {label_of[int(target)]} and {label}")
            self.names.append(name)
            self.targets.append(int(target))
        _numbered(set(label_of), str(index))
        self.classes: tuple[str, ...] = tuple(label_of[target] for target in sorted(label_of))
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"{index}: a class has two class numbers")
        infos = [found[name] for name in self.names]
        for info in infos:
            if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{archive}: {info.filename} is encrypted or compressed in a way other than deflate")
        self.places = np.array([(i.header_offset, i.compress_size, i.compress_type, i.CRC) for i in infos], np.int64)
        mapped = set(self.names)
        self._others = [f"{archive}/{name}" for name in found if name not in mapped and not name.endswith("/")]

    def encoded(self, index: int) -> bytes:
        # not through a ZipFile: each worker would hold its own list of ImageNet's files, most of a gigabyte
        offset, size, method, checksum = self.places[index].tolist()
        signature, name, extra = LOCAL_HEADER.unpack(read_at(self.archive, offset, LOCAL_HEADER.size))
        data = read_at(self.archive, offset + LOCAL_HEADER.size + name + extra, size)
        try:
            data = data if method == zipfile.ZIP_STORED else zlib.decompress(data, -zlib.MAX_WBITS)
        except zlib.error as error:
            raise OSError(f"damaged in the zip: {error}") from None
        if signature != b"PK\3\4" or zlib.crc32(data) != checksum:
            raise OSError("damaged in the zip: its checksum is another")
        return data

    def filename(self, index: int) -> str:
        return f"{self.archive}/{self.names[index]}"

    def files(self) -> Iterable[Path]:
        return self.archive, self.index

    def others(self) -> list[str]:
        return self._others


def numbered_files(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    """Files whose names match `pattern`, with groups `set`, `number` and, if names tell it, `of`; in order of numbers.

    Raises ValueError if they belong to more than one set, or one of a set is missing.
    """
    found = {path: match for path in folder.iterdir() if (match := pattern.fullmatch(path.name)) and path.is_file()}
    paths = sorted(found, key=lambda path: int(found[path]["number"]))
    if len(sets := sorted({match["set"] for match in found.values()})) > 1:
        raise ValueError(f"{folder} holds files of more than one set: {', '.join(sets)}; keep one of them in a folder")
    counts = {int(match["of"]) for match in found.values() if match.groupdict().get("of")}
    for number, path in enumerate(paths):
        if int(found[path]["number"]) != number:
            raise ValueError(f"{folder}: before {path.name} there is no file number {number}")
    if counts and counts != {len(paths)}:
        raise ValueError(f"{folder} holds {len(paths)} of the {max(counts)} files of {paths[0].name}")
    return paths
