"""Reading single images of parquet files: equal to pyarrow's in every form that writers use, and quick in any order."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.images import pages
from harness.images.parquet import ParquetReader

pa = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install -e '.[hf]'")

GENERATOR = np.random.default_rng(0)
VALUES = [
    None if i % 37 == 5 else GENERATOR.bytes(int(GENERATOR.integers(5, 9000))) if i % 3 else b"abc" * i * 20
    for i in range(150)
]
VALUES[100] = VALUES[99]


def written(path: Path, values: list[bytes | None], struct: bool, **options: Any) -> ParquetReader:
    import pyarrow.parquet

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if struct else pa.binary()
    rows = [{"bytes": value, "path": f"{i}.jpg"} for i, value in enumerate(values)] if struct else values
    table = pa.table({"image": pa.array(rows, kind), "label": pa.array([i % 2 for i in range(len(values))])})
    pyarrow.parquet.write_table(table, path, **options)
    return ParquetReader([path])


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip", "brotli", "lz4"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False], ids=["dictionary", "plain"])
@pytest.mark.parametrize("small", [1, 1 << 21], ids=["in blocks", "whole"])
def test_images_in_any_order_are_those_that_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str, version: str, dictionary: bool, small: int
) -> None:
    monkeypatch.setattr(pages, "SMALL", small)
    for struct, page_size in ((True, 30_000), (False, 1 << 20)):
        reader = written(
            tmp_path / "train.parquet", VALUES, struct, row_group_size=70, compression=compression,
            data_page_version=version, use_dictionary=dictionary, data_page_size=page_size, write_batch_size=20,
        )  # fmt: skip
        assert (reader.pages.chunks[0].codec is None) == (compression == "lz4"), "which pyarrow alone reads"
        for i in np.random.default_rng(1).permutation(len(VALUES)).tolist():
            if VALUES[i] is None:
                with pytest.raises(OSError, match="the row has no image"):
                    reader.encoded(i)
            else:
                assert reader.encoded(i) == VALUES[i], i


def test_pages_cut_by_content_are_read(tmp_path: Path) -> None:
    """As `datasets` writes them."""
    values: list[bytes | None] = [GENERATOR.bytes(40_000) for _ in range(60)]
    try:
        reader = written(tmp_path / "x.parquet", values, True, use_content_defined_chunking=True)
    except TypeError:
        pytest.skip("needs pyarrow 21 or newer")
    assert [reader.encoded(i) for i in (59, 0, 30)] == [values[i] for i in (59, 0, 30)]


def test_a_damaged_page_is_an_error_of_that_image(tmp_path: Path) -> None:
    reader = written(tmp_path / "x.parquet", VALUES, True)
    chunk = reader.pages.chunks[0]
    data = bytearray((tmp_path / "x.parquet").read_bytes())
    data[chunk.start : chunk.start + 40] = b"\xff" * 40
    (tmp_path / "x.parquet").write_bytes(data)
    with pytest.raises(OSError, match=r"x.parquet is damaged"):
        reader.encoded(1)


def test_what_is_learned_of_pages_is_not_pickled(tmp_path: Path) -> None:
    reader = written(tmp_path / "x.parquet", VALUES, True)
    before = len(pickle.dumps(reader))
    reader.encoded(0)
    assert len(pickle.dumps(reader)) == before
    assert pickle.loads(pickle.dumps(reader)).encoded(1) == VALUES[1]


@pytest.mark.parametrize("compression", ["none", "snappy"])
def test_shuffled_order_decodes_no_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    """What is decompressed for an image, once its row group is known, is a little more than that image."""
    monkeypatch.setattr(pages, "SMALL", 1)
    values: list[bytes | None] = [GENERATOR.bytes(30_000) for _ in range(200)]
    reader = written(tmp_path / "x.parquet", values, True, row_group_size=100, compression=compression)
    order = np.random.default_rng(2).permutation(200).tolist()
    for i in order:
        reader.encoded(i)
    sizes: list[int] = []
    monkeypatch.setattr(pages, "_decompressed", counted(pages._decompressed, sizes))
    assert all(reader.encoded(i) == values[i] for i in order)
    assert sum(sizes) <= (0 if compression == "none" else 200 * (30_000 + 2 * pages.BLOCK))


def counted(call: Callable[[str, bytes, int], bytes], sizes: list[int]) -> Callable[[str, bytes, int], bytes]:
    def counting(codec: str, data: bytes, size: int) -> bytes:
        sizes.append(size)
        return call(codec, data, size)

    return counting
