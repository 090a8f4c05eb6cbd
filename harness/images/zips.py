"""The reader of Swin's layout of ImageNet: one zip per split, and a text file with the class of each image."""

import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np

from harness.images.names import left_behind, numbered_classes
from harness.images.readers import Reader, read_at
from results.wording import printable

LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a file in a zip: signature, lengths of the name and of the extra field


class ZipReader(Reader):
    """Swin's layout: a zip, and a text file with a line `<class>/<file>` TAB `<target>` per image.

    Raises ValueError, with file and line, for a map that is malformed, names a file that is not in the zip, or gives a
    class two targets.
    """

    def __init__(self, archive: Path, index: Path) -> None:
        if not index.is_file():
            raise ValueError(f"{archive} needs {index.name} beside it, with lines <class>/<file> TAB <class number>")
        self.archive, self.index = archive, index
        try:
            with zipfile.ZipFile(archive) as opened:
                infos = opened.infolist()
        except zipfile.BadZipFile as error:
            raise ValueError(f"{archive} is not a complete zip: {error}") from None
        found = {_name(info): info for info in infos} | {info.filename: info for info in infos}
        label_of: dict[int, str] = {}
        self.names: list[str] = []
        self.targets: list[int] = []
        for number, line in enumerate(index.read_text("utf-8-sig", "surrogateescape").splitlines(), start=1):
            name, _, target = line.partition("\t")
            label, *rest = PurePosixPath(name).parts or ("",)
            where = f"{index}, line {number}"
            if len(rest) != 1 or not target.strip().isdecimal():
                raise ValueError(f"{where}: {printable(line)!r} is not of the form <class>/<file> TAB <class number>")
            if name not in found:
                raise ValueError(f"{where}: {printable(name)} is not in {archive}")
            if left := left_behind(name):
                raise ValueError(
                    f"{where}: {printable(name)} is no image of a class: systems and programs leave {left} behind; "
                    "leave it out of the map, and number the classes without it"
                )
            if label_of.setdefault(int(target), label) != label:
                raise ValueError(f"{where}: class number {int(target)} is both {label_of[int(target)]} and {label}")
            self.names.append(name)
            self.targets.append(int(target))
        numbered_classes(set(label_of), str(index))
        self.classes: tuple[str, ...] = tuple(label_of[target] for target in sorted(label_of))
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"{index}: a class has two class numbers")
        mapped = [found[name] for name in self.names]
        for info in mapped:
            if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{archive}: {info.filename} is encrypted or not compressed by deflate")
        self.places = np.array([(i.header_offset, i.compress_size, i.compress_type, i.CRC) for i in mapped], np.int64)
        taken = {info.header_offset for info in mapped}
        self._others = [
            f"{archive}/{_name(info)}" for info in infos if info.header_offset not in taken and not info.is_dir()
        ]

    def encoded(self, index: int) -> bytes:
        # not through a ZipFile: each worker would have its own list of ImageNet's files, nearly a gigabyte
        offset, size, method, checksum = self.places[index].tolist()
        signature, name, extra = LOCAL_HEADER.unpack(read_at(self.archive, offset, LOCAL_HEADER.size))
        data = read_at(self.archive, offset + LOCAL_HEADER.size + name + extra, size)
        try:
            data = data if method == zipfile.ZIP_STORED else zlib.decompress(data, -zlib.MAX_WBITS)
        except zlib.error as error:
            raise OSError(f"damaged in the zip: {error}") from None
        if signature != b"PK\3\4" or zlib.crc32(data) != checksum:
            raise OSError("damaged in the zip: its checksum does not match")
        return data

    def filename(self, index: int) -> str:
        return f"{self.archive}/{self.names[index]}"

    def files(self) -> Iterable[Path]:
        return self.archive, self.index

    def others(self) -> list[str]:
        return self._others


def _name(info: zipfile.ZipInfo) -> str:
    """Return the name of a file in a zip. Without a flag for UTF-8, zipfile takes its bytes for those of DOS."""
    return info.filename if info.flag_bits & 0x800 else info.filename.encode("cp437").decode("utf-8", "surrogateescape")
