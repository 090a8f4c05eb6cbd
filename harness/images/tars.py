"""Readers of splits in tars: of class folders, of one tar per class, and webdataset shards.

    reader = open_tar(Path("/data/ILSVRC2012_img_train.tar"))     # a tar of one tar per class

Every tar is listed once, when it is opened, and its images are then read by their offsets. timm's own reader of tars
(`ReaderImageInTar`) is not used: it streams all 138 GB of ImageNet's tar to list it, lets the disk decide the order of
files that have the same name in two classes, and ignores the rest of a tar after a damaged header. timm's reader of
webdataset shards is iterable only, whereas a run that resumes exactly needs images by index.
"""

import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from harness.images.names import (
    SORT,
    SPLIT_FOLDERS,
    Classes,
    is_image,
    left_behind,
    numbered_classes,
    sort_key,
)
from harness.images.readers import Reader, read_at
from results.wording import printable

BLOCK = 512  # bytes; a tar consists of such blocks
LOOKED_AT = 1 << 20  # bytes behind the last member: tar fills its last 10 KiB with zeros


class Entry(NamedTuple):
    """An image in an archive."""

    label: str  # its class
    name: str
    archive: int  # the index of its archive
    offset: int  # of its first byte in that archive
    size: int


class TarReader(Reader):
    """Images of one or more tars. `entries` are in the order of the split, `classes` in that of the targets."""

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


def open_tar(path: Path) -> TarReader:
    """Open one tar of class folders, or of one tar per class. Raises ValueError for images that are in no class."""
    return _by_class(path, [path], [None])


def open_class_tars(folder: Path, paths: list[Path]) -> TarReader:
    """Open a folder of one tar per class, where a class has the name of its tar."""
    paths = sorted(paths, key=lambda path: sort_key(path.name))
    return _by_class(folder, paths, [path.stem for path in paths])


def _by_class(where: Path, paths: list[Path], labels: list[str | None]) -> TarReader:
    entries: list[Entry] = []
    others: list[str] = []
    classes = Classes(where)
    for archive, (path, outer) in enumerate(zip(paths, labels, strict=True)):
        if outer is not None:
            classes.add(outer)
        for label, info, offset in _members(path, outer):
            parts = _parts(label, info.name)
            if info.isdir() or (info.issym() and len(parts) == 1):  # a link to a folder is a class that is not there
                if len(parts) == 1:
                    classes.add(parts[0])
            elif info.name.endswith(".cls"):
                raise ValueError(
                    f"{path} has webdataset samples ({info.name}); put the shards into the data folder itself, "
                    "named like train-000000.tar"
                )
            elif not classes.is_image(parts):
                others.append(f"{path}/{info.name}")
            elif not info.isreg():
                raise _link(path, info)
            elif len(parts) == 2:
                entries.append(Entry(parts[0], "/".join(parts), archive, offset, info.size))
            else:
                raise ValueError(
                    f"{path}/{printable(info.name)} is not in a class folder directly under {path.name}: {SORT}"
                )
    names = classes.in_order(entry.name for entry in entries)
    entries.sort(key=lambda entry: sort_key(entry.name))
    for entry, following in pairwise(entries):
        if entry.name == following.name:
            raise ValueError(f"{paths[entry.archive]} has {printable(entry.name)} twice: write it anew")
    return TarReader(paths, entries, names, others)


def _parts(label: str | None, name: str) -> tuple[str, ...]:
    """Return the path of a member from its class on. A tar of a folder, of a class or a split, begins with its name."""
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if label is not None:
        return parts if parts[:1] == (label,) else (label, *parts)
    in_class = len(parts) == 2 and is_image(name)  # the name of a class may be "train"
    return parts[1:] if parts and parts[0] in SPLIT_FOLDERS and not in_class else parts


def _members(path: Path, label: str | None) -> Iterator[tuple[str | None, tarfile.TarInfo, int]]:
    """Yield the files and folders of a tar, and of the tars in it if `label` is None.

    Each comes with its class if known, its header and its absolute offset. An inner tar comes first, as a folder.
    """
    try:
        with tarfile.open(path, mode="r:") as tar:
            for info in _listed(tar):
                inner = None
                if label is None and info.isreg() and info.name.endswith(".tar") and not left_behind(info.name):
                    inner = tar.extractfile(info)
                if inner is None:
                    yield label, info, info.offset_data
                    continue
                folder = tarfile.TarInfo(PurePosixPath(info.name).stem)
                folder.type = tarfile.DIRTYPE
                yield None, folder, 0
                with tarfile.open(fileobj=inner, mode="r:") as class_tar:
                    for member in _listed(class_tar):
                        yield folder.name, member, info.offset_data + member.offset_data
    except tarfile.ReadError as error:
        raise ValueError(f"{path} is not a complete, uncompressed tar: {error}") from None


def _listed(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield files, folders and links. Raises tarfile.ReadError unless the tar ends with a block of zeros."""
    while (info := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # a million headers would take a gigabyte
        if info.isreg() or info.isdir() or info.islnk() or info.issym():
            yield info
    assert tar.fileobj is not None
    # tarfile mistakes a damaged header, or the end of a truncated file, for the end of the list
    tar.fileobj.seek(tar.offset)
    end = tar.fileobj.read(LOOKED_AT)
    if end[:BLOCK] != bytes(BLOCK):
        raise tarfile.ReadError("it is damaged or truncated")
    if end.strip(b"\0"):
        raise tarfile.ReadError("more follows its end, as where tars were joined")


def _link(path: Path, info: tarfile.TarInfo) -> ValueError:
    return ValueError(
        f"{path}/{printable(info.name)} is a link to {printable(info.linkname)} and not an image of its own: write the "
        "tar anew, with tar --dereference --hard-dereference"
    )


def open_shards(paths: list[Path]) -> TarReader:
    """Open webdataset shards: samples `key.jpg` + `key.cls`, in order of shards and members; others are ignored.

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
                    if info.isdir() or left_behind(info.name):
                        continue
                    if not info.isreg() and (name.endswith(".cls") or is_image(name)):
                        raise _link(path, info)
                    if name.endswith(".cls"):
                        content = tar.extractfile(info)
                        assert content is not None
                        labels[key] = content.read().decode("ascii", "replace").strip()
                    elif is_image(name):
                        if key in images:
                            raise ValueError(f"{path}: {info.name} is a second image of one sample")
                        images[key] = Entry("", info.name, archive, info.offset_data, info.size)
        except tarfile.ReadError as error:
            raise ValueError(f"{path} is not a complete, uncompressed tar: {error}") from None
        for key in images.keys() ^ labels.keys():
            missing = "class (.cls)" if key in images else "image (.jpg, .jpeg, .png)"
            raise ValueError(f"{path}: the sample {key.strip('/')!r} has no {missing}")
        for key, entry in images.items():
            if not labels[key].isdecimal():
                raise ValueError(f"{path}: the class of {entry.name} is {labels[key]!r}; expected a number from 0 up")
            entries.append(entry._replace(label=str(int(labels[key]))))
    return TarReader(paths, entries, numbered_classes({int(entry.label) for entry in entries}, str(paths[0].parent)))
