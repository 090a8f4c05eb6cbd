"""Single values of a parquet column, without decoding the row group around them.

    column = PagedColumn([Chunk(path, start, stop, rows, levels=2, codec="snappy")])
    column.value(0, row=17)                                # bytes, or None

pyarrow decodes row groups only, of a hundred to some thousand images: 100 MB for one of them. The pages within have
headers, which say where each begins (parquet's format: github.com/apache/parquet-format). A page is decoded once, to
learn where its values are, and a value is then read from its page alone: from its own bytes if they are not compressed,
from the blocks of 64 KiB around them in large pages of snappy, which most files are.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.images.readers import read_at

CODECS = {"UNCOMPRESSED": "", "SNAPPY": "snappy", "GZIP": "gzip", "ZSTD": "zstd", "BROTLI": "brotli"}
"""What pyarrow's metadata and pyarrow's decoders call a compression."""
ENCODINGS = frozenset(("PLAIN", "RLE", "BIT_PACKED", "RLE_DICTIONARY", "PLAIN_DICTIONARY"))
PLAIN, PLAIN_DICTIONARY, RLE_DICTIONARY = 0, 2, 8
DATA, DICTIONARY, DATA_2 = 0, 2, 3  # kinds of pages
HEADER = 4096  # bytes in which most headers of pages end
SMALL = 1 << 21  # bytes of a page which it is quicker to decompress than to have an index of
BLOCK = 1 << 16  # bytes that snappy compresses on their own


class Chunk(NamedTuple):
    """A column in one row group: its bytes in a file, its rows, the deepest level of nulls, its compression."""

    path: Path
    start: int
    stop: int
    rows: int
    levels: int
    codec: str | None  # of CODECS; None for one that is not among them


class Page(NamedTuple):
    """A page: its kind, encoding and rows, and where in the file its values are, with `before` them the levels."""

    kind: int
    encoding: int
    first: int  # its first row in the row group
    rows: int
    offset: int
    before: int  # bytes of levels apart from the values, never compressed
    compressed: int  # bytes
    size: int  # bytes once decompressed
    plain: bool  # whether they are not compressed


class PagedColumn:
    """Values of bytes in the chunks of a column, by chunk and row. What was learned of a page is kept."""

    def __init__(self, chunks: list[Chunk]) -> None:
        self.chunks = chunks
        self._pages: dict[int, list[Page]] = {}  # by chunk
        self._spans: dict[tuple[int, int], tuple[int, np.ndarray]] = {}  # by chunk and page
        self._blocks: dict[tuple[int, int], np.ndarray] = {}
        self._whole: tuple[tuple[int, int], bytes] = (-1, -1), b""  # the page that was decompressed last

    def __getstate__(self) -> dict[str, Any]:
        return {"chunks": self.chunks}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["chunks"])  # type: ignore[misc]

    def value(self, chunk: int, row: int) -> bytes | None:
        """Return the value in a row of a chunk. Raises OSError for a damaged file."""
        try:
            if chunk not in self._pages:
                self._pages[chunk] = list(_pages(self.chunks[chunk]))
            pages = self._pages[chunk]
            number = next(n for n, page in enumerate(pages) if page.kind != DICTIONARY and row < page.first + page.rows)
            if (chunk, number) not in self._spans:
                self._spans[chunk, number] = self._located(chunk, number)
            page, spans = self._spans[chunk, number]
            start, stop = spans[row - pages[number].first].tolist()
            return None if start < 0 else self._bytes(chunk, page, start, stop)
        except (ValueError, IndexError, StopIteration, struct.error) as error:
            raise OSError(f"{self.chunks[chunk].path} is damaged: {error}") from error

    def _located(self, chunk: int, number: int) -> tuple[int, np.ndarray]:
        """Return the page that holds the values of this one, and begin and end there (rows, 2), -1 for none."""
        page, levels = self._pages[chunk][number], self.chunks[chunk].levels
        data, at, present = self._data(chunk, number), 0, np.ones(page.rows, bool)
        if levels and page.kind == DATA:
            size = int.from_bytes(data[:4], "little")
            present, at = _hybrid(data[4 : 4 + size], levels.bit_length(), page.rows) == levels, 4 + size
        elif levels and page.kind == DATA_2:
            path = self.chunks[chunk].path
            stored = read_at(path, page.offset - page.before, page.before)
            present = _hybrid(stored, levels.bit_length(), page.rows) == levels
        spans = np.full((page.rows, 2), -1, np.int64)
        count = int(present.sum())
        if page.encoding == PLAIN:
            spans[present] = _plain(data, at, count)
            return number, spans
        if page.encoding not in (PLAIN_DICTIONARY, RLE_DICTIONARY):
            raise ValueError(f"a page of encoding {page.encoding}")
        dictionary = next(n for n, each in enumerate(self._pages[chunk]) if each.kind == DICTIONARY)
        if (chunk, dictionary) not in self._spans:
            about = self._pages[chunk][dictionary]
            self._spans[chunk, dictionary] = dictionary, _plain(self._data(chunk, dictionary), 0, about.rows)
        spans[present] = self._spans[chunk, dictionary][1][_hybrid(data[at + 1 :], data[at], count)] if count else 0
        return dictionary, spans

    def _bytes(self, chunk: int, number: int, start: int, stop: int) -> bytes:
        about, page = self.chunks[chunk], self._pages[chunk][number]
        if page.plain:
            return read_at(about.path, page.offset + start, stop - start)
        if about.codec != "snappy" or page.size <= SMALL:
            return self._data(chunk, number)[start:stop]
        if (chunk, number) not in self._blocks:
            self._blocks[chunk, number] = _snappy_blocks(read_at(about.path, page.offset, page.compressed), page.size)
        blocks = self._blocks[chunk, number]
        first, last = start // BLOCK, -(-stop // BLOCK)
        if len(blocks) <= last:  # another snappy, without such blocks
            return self._data(chunk, number)[start:stop]
        begin, end = blocks[[first, last]].tolist()
        size = min(last * BLOCK, page.size) - first * BLOCK
        part = _varint(size) + read_at(about.path, page.offset + begin, end - begin)
        return _decompressed("snappy", part, size)[start - first * BLOCK : stop - first * BLOCK]

    def _data(self, chunk: int, number: int) -> bytes:
        if self._whole[0] != (chunk, number):
            about, page = self.chunks[chunk], self._pages[chunk][number]
            data = read_at(about.path, page.offset, page.compressed)
            self._whole = (chunk, number), data if page.plain else _decompressed(about.codec or "", data, page.size)
        return self._whole[1]


def _decompressed(codec: str, data: bytes, size: int) -> bytes:
    import pyarrow

    return pyarrow.Codec(codec).decompress(data, size, asbytes=True)


def _pages(chunk: Chunk) -> Iterator[Page]:
    """Yield the pages of a chunk, in order."""
    at, row = chunk.start, 0
    while at < chunk.stop:
        header, length = _header(chunk, at)
        at += length
        kind, size, compressed = header[1], header[2], header[3]
        if kind == DICTIONARY:
            yield Page(kind, PLAIN, 0, header[7][1], at, 0, compressed, size, not chunk.codec)
        elif kind == DATA:
            yield Page(kind, header[5][2], row, header[5][1], at, 0, compressed, size, not chunk.codec)
            row += header[5][1]
        elif kind == DATA_2:
            about = header[8]
            before = about[5] + about[6]
            plain = not chunk.codec or not about.get(7, True)
            yield Page(kind, about[4], row, about[1], at + before, before, compressed - before, size - before, plain)
            row += about[1]
        at += compressed
    if row != chunk.rows:
        raise ValueError(f"its pages have {row} rows instead of {chunk.rows}")


def _header(chunk: Chunk, at: int) -> tuple[dict[int, Any], int]:
    """Return the header of the page at `at`, by Thrift's field numbers, and its length."""
    size = HEADER
    while True:
        data = read_at(chunk.path, at, min(size, chunk.stop - at))
        try:
            return _struct(data, 0)
        except IndexError:
            if len(data) < size:
                raise
            size *= 16


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """Read a struct of Thrift's compact protocol; return its values by field number, and where it ends."""
    values: dict[int, Any] = {}
    field = 0
    while data[at]:
        delta, kind = divmod(data[at], 16)
        at += 1
        if delta:
            field += delta
        else:
            number, at = _number(data, at)
            field = _signed(number)
        values[field], at = _value(data, at, kind)
    return values, at + 1


def _value(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    match kind:
        case 1 | 2:
            return kind == 1, at
        case 3:
            return data[at], at + 1
        case 4 | 5 | 6:
            number, at = _number(data, at)
            return _signed(number), at
        case 8:
            length, at = _number(data, at)
            if at + length > len(data):
                raise IndexError
            return data[at : at + length], at + length
        case 12:
            return _struct(data, at)
    raise ValueError(f"a header with a field of type {kind}")


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Read a number of 7 bits per byte; return it and where it ends."""
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at


def _signed(number: int) -> int:
    return (number >> 1) ^ -(number & 1)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


def _plain(data: bytes, at: int, count: int) -> np.ndarray:
    """Return begin and end (count, 2) of values that follow each other, each behind its length in 4 bytes."""
    spans = np.empty((count, 2), np.int64)
    length_at = struct.Struct("<I").unpack_from
    for number in range(count):
        start = at + 4
        at = start + length_at(data, at)[0]
        spans[number] = start, at
    return spans


def _hybrid(data: bytes, width: int, count: int) -> np.ndarray:
    """Read `count` numbers of `width` bits in parquet's mixture of runs and packed bits."""
    out = np.zeros(count, np.int64)
    at = done = 0
    while width and done < count:
        header, at = _number(data, at)
        if header & 1:
            size = (header >> 1) * width
            bits = np.unpackbits(np.frombuffer(data, np.uint8, size, at), bitorder="little").reshape(-1, width)
            values = (bits.astype(np.int64) << np.arange(width)).sum(1)[: count - done]
        else:
            size = (width + 7) // 8
            value = int.from_bytes(data[at : at + size], "little")
            values = np.full(min(header >> 1, count - done), value)
        out[done : done + len(values)] = values
        at, done = at + size, done + len(values)
    return out


def _snappy_blocks(data: bytes, size: int) -> np.ndarray:
    """Return where each block of a snappy stream of `size` bytes begins, and its end; nothing if it has no such blocks.

    The format is that of snappy's format_description.txt. No element crosses a block, nor refers to an earlier one.
    """
    at = _number(data, 0)[1]
    starts, done, block = [at], 0, BLOCK
    while at < len(data):
        tag = data[at]
        kind, rest = tag & 3, tag >> 2
        if kind == 0:  # a literal of up to 60 bytes, or of a length in the 1 to 4 bytes that follow
            more = max(0, rest - 59)
            length = 1 + (int.from_bytes(data[at + 1 : at + 1 + more], "little") if more else rest)
            at += 1 + more + length
        elif kind == 1:
            length = 4 + (rest & 7)
            at += 2
        else:
            length = 1 + rest
            at += 3 if kind == 2 else 5
        done += length
        if done >= block:
            if done > block:
                return np.empty(0, np.int64)
            starts.append(at)
            block += BLOCK
    if done % BLOCK:
        starts.append(at)
    return np.array(starts if done == size else [], np.int64)
