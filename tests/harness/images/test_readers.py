"""Readers of every layout: the same bytes in the same order, also after a fork, and damage named."""

import io
import json
import multiprocessing
import os
import pickle
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.cells import DataSource
from harness.cells.source import Columns
from harness.images.batches import Images, batches, eval_order
from harness.images.layouts import find_split, open_split
from harness.images.readers import ArrayReader, FolderReader, Reader
from harness.images.sources import open_val
from harness.images.tars import TarReader, open_class_tars, open_shards, open_tar
from harness.images.zips import ZipReader
from tests.harness import image_sets
from tests.harness.image_sets import BUILDERS, ImageFiles, images, write_tar

LAYOUTS = pytest.mark.parametrize("layout", BUILDERS)


def reader_of(root: Path, layout: str, files: ImageFiles | None = None, split: str = "val") -> Reader:
    BUILDERS[layout](root, split, images(split) if files is None else files)
    return open_split(find_split(root, split))  # type: ignore[arg-type]


def array_reader(path: Path) -> ArrayReader:
    np.save(path, np.zeros(1))
    pixels = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4)
    return ArrayReader("mine/val", pixels, [0, 1], ("a", "b"), [path])


@LAYOUTS
def test_every_layout_holds_the_same_images_in_the_same_order(tmp_path: Path, layout: str) -> None:
    files = images("val")
    reader = reader_of(tmp_path, layout)
    assert [reader.encoded(i) for i in range(len(reader))] == list(files.values())
    assert reader.targets == [0] * 6 + [1] * 6
    assert reader.classes == (("0", "1") if layout == "shards" else ("cat", "dog"))
    assert len({reader.filename(i) for i in range(len(reader))}) == len(reader)
    assert np.array_equal(np.asarray(reader.rgb(7)), np.asarray(Image.open(io.BytesIO(files["dog/1.jpg"]))))
    assert all(path.is_file() for path in reader.files())


@pytest.mark.parametrize("layout", ["class folders", "tar of folders", "tar of tars", "class tars", "zip"])
def test_names_end_in_class_and_file(tmp_path: Path, layout: str) -> None:
    reader = reader_of(tmp_path, layout)
    assert reader.filename(7).startswith(str(tmp_path))
    assert reader.filename(7).endswith("/dog/1.jpg")


@pytest.mark.parametrize("layout", ["class folders", "tar of folders", "tar of tars", "class tars"])
def test_natural_order_of_classes_and_files(tmp_path: Path, layout: str) -> None:
    names = [f"c{c}/{i}.jpg" for c in (10, 9) for i in (2, 10, "01", 1)]
    random.Random(0).shuffle(names)
    reader = reader_of(tmp_path, layout, {name: image_sets.jpeg_bytes(n) for n, name in enumerate(names)})
    assert reader.classes == ("c9", "c10")
    order = ["/".join(Path(reader.filename(i)).parts[-2:]) for i in range(len(reader))]
    assert order == [f"c{c}/{i}.jpg" for c in (9, 10) for i in ("01", 1, 2, 10)]


def wrong(reader: Reader, order: list[int], files: list[bytes], answer: multiprocessing.Queue) -> None:
    answer.put([i for i in order if reader.encoded(i) != files[i]])


@LAYOUTS
def test_a_reader_used_before_workers_fork_serves_each_its_own_bytes(tmp_path: Path, layout: str) -> None:
    # larger than a buffer: a handle that was shared would have to move for every read
    generator = np.random.default_rng(0)
    named = {name: generator.bytes(30_000) for name in images("val", per_class=40)}
    files = list(named.values())
    reader = reader_of(tmp_path, layout, named)
    for i in (3, 50, 0):
        assert reader.encoded(i) == files[i]
    context = multiprocessing.get_context("fork")
    orders = [random.Random(seed).choices(range(80), k=400) for seed in range(3)]
    answers = [context.Queue() for _ in orders]
    for order, answer in zip(orders, answers, strict=True):
        context.Process(target=wrong, args=(reader, order, files, answer), daemon=True).start()
    here = [reader.encoded(i) for i in orders[0]]  # the parent reads on at the same time
    assert [answer.get(timeout=60) for answer in answers] == [[]] * 3
    assert here == [files[i] for i in orders[0]]


@LAYOUTS
def test_pickled_readers_are_small_and_alike(tmp_path: Path, layout: str) -> None:
    reader = reader_of(tmp_path, layout)
    reader.encoded(0)
    text = pickle.dumps(reader)
    assert len(text) < 20_000
    assert pickle.loads(text).encoded(9) == reader.encoded(9)  # which is what spawned workers get


@LAYOUTS
@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_named(tmp_path: Path, layout: str, workers: int) -> None:
    files = images("val")
    files["dog/1.jpg"] = files["dog/1.jpg"][:-200]
    reader = reader_of(tmp_path, layout, files)
    data = Images(reader, lambda image: np.zeros(1), seed=0)  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="unreadable image") as error:
        list(batches(data, eval_order(12, 12), workers=workers))
    assert reader.filename(7) in str(error.value)
    assert "\n" not in str(error.value)


def test_no_image_at_all_is_named_without_pillows_memory_address(tmp_path: Path) -> None:
    reader = reader_of(tmp_path, "class folders", {"cat/0.jpg": b"<html>", "dog/0.jpg": b""})
    with pytest.raises(Image.UnidentifiedImageError) as error:  # type: ignore[attr-defined]
        reader.rgb(0)
    assert (
        reader.unreadable(0, error.value) == f"unreadable image {reader.filename(0)}: not an image that Pillow can read"
    )


@LAYOUTS
def test_stamp_knows_names_targets_sizes_and_times(tmp_path: Path, layout: str) -> None:
    reader = reader_of(tmp_path, layout)
    stamp = reader.stamp()
    assert len(stamp) == 16
    assert int(stamp, 16) >= 0
    assert open_split(find_split(tmp_path, "val")).stamp() == stamp == pickle.loads(pickle.dumps(reader)).stamp()
    path = next(iter(reader.files()))
    os.utime(path, ns=(1, 1))
    touched = reader.stamp()
    assert touched != stamp
    reader.targets[0] = 1
    assert reader.stamp() != touched


# Arrays


def test_arrays_are_no_files(tmp_path: Path) -> None:
    reader = array_reader(tmp_path / "a.npy")
    assert reader.image(1).getpixel((0, 0)) == 16
    assert reader.rgb(1).mode == "RGB"
    assert reader.filename(1) == "mine/val[1]"
    assert len(reader.stamp()) == 16
    with pytest.raises(ValueError, match="mine/val is an array and not image files"):
        reader.encoded(0)
    with pytest.raises(ValueError, match="has 1 images, but there are 2 labels"):
        ArrayReader("mine", np.zeros((1, 2, 2), np.uint8), [0, 1], ("a", "b"), [tmp_path])


# What is refused


@pytest.mark.parametrize("layout", ["class folders", "tar of folders", "tar of tars", "class tars"])
def test_classes_that_natural_order_cannot_tell_apart(tmp_path: Path, layout: str) -> None:
    files = {f"{label}/{i}.jpg": b"x" for label in ("1", "01", "2") for i in range(2)}
    with pytest.raises(ValueError, match="the classes '01' and '1' differ only in case or leading zeros"):
        reader_of(tmp_path, layout, files)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"0.jpg": b"x", "1.jpg": b"x"}, r"train.tar/0.jpg is not in a class folder .*sort the images into one"),
        ({"deep/cat/0.jpg": b"x"}, "deep/cat/0.jpg is not in a class folder directly under"),
        ({"cat.txt": b"x"}, r"no image \(.*\) in .*train.tar; sort the images"),
        ({"a.cls": b"1", "a.jpg": b"x"}, r"webdataset samples .*named like train-000000.tar"),
    ],
)
def test_tars_without_classes(tmp_path: Path, members: ImageFiles, message: str) -> None:
    write_tar(tmp_path / "train.tar", members)
    with pytest.raises(ValueError, match=message):
        open_tar(tmp_path / "train.tar")


def test_a_tar_of_the_split_folder_is_a_tar_of_its_classes(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {"./val/cat/0.jpg": b"0", "./val/dog/0.jpg": b"1", "./val/cat/Thumbs.db": b"2"})
    reader = open_tar(tmp_path / "x.tar")
    assert reader.classes == ("cat", "dog")
    assert reader.encoded(1) == b"1"
    assert reader.others() == [f"{tmp_path}/x.tar/./val/cat/Thumbs.db"]


def test_a_class_tar_may_hold_its_own_folder_and_no_other(tmp_path: Path) -> None:
    write_tar(tmp_path / "cat.tar", {"cat/0.jpg": b"0"})
    assert open_class_tars(tmp_path, [tmp_path / "cat.tar"]).filename(0) == f"{tmp_path}/cat.tar/cat/0.jpg"
    write_tar(tmp_path / "cat.tar", {"dog/0.jpg": b"0"})
    with pytest.raises(ValueError, match=r"dog/0.jpg is not in a class folder"):
        open_class_tars(tmp_path, [tmp_path / "cat.tar"])


def cut_after_the_first_member(data: bytes) -> bytes:
    return data[: 512 + -(-len(next(iter(images("val").values()))) // 512) * 512]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(cut_after_the_first_member, id="cut between two images"),
        pytest.param(lambda data: data[:1700], id="cut within an image"),
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: b"\x1f\x8b" + data, id="compressed"),
        pytest.param(
            lambda data: cut_after_the_first_member(data) + b"\7" * 512 + data[len(cut_after_the_first_member(data)) :],
            id="a damaged header",
        ),
    ],
)
@pytest.mark.parametrize("open_as", [open_tar, lambda path: open_shards([path])], ids=["tar", "shard"])
def test_a_tar_that_is_not_whole_is_refused(
    tmp_path: Path, damage: Callable[[bytes], bytes], open_as: Callable[[Path], TarReader]
) -> None:
    path = tmp_path / "train.tar"
    write_tar(path, images("val"))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="is not a complete, uncompressed tar") as error:
        open_as(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_class_tar_within_a_tar_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    inner = image_sets.tar_bytes({"0.jpg": bytes(600), "1.jpg": bytes(600)})
    write_tar(tmp_path / "train.tar", {"cat.tar": inner[: 512 + 1024]})
    with pytest.raises(ValueError, match="is not a complete, uncompressed tar: it is damaged or truncated"):
        open_tar(tmp_path / "train.tar")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.jpg": b"x"}, r"the sample 'a' has no class \(.cls\)"),
        ({"a.cls": b"0"}, "the sample 'a' has no image"),
        ({"a.jpg": b"x", "a.cls": b"cat"}, "the class of a.jpg is 'cat'; expected a number from 0 up"),
        ({"a.jpg": b"x", "a.png": b"x", "a.cls": b"0"}, "a.png is a second image of one sample"),
        ({"a.jpg": b"x", "a.cls": b"2", "b.jpg": b"x", "b.cls": b"0"}, "go up to 2, but no image has class 1"),
        ({"a.json": b"{}"}, "no image in"),
    ],
)
def test_shards_are_checked(tmp_path: Path, members: ImageFiles, message: str) -> None:
    write_tar(tmp_path / "train-0.tar", members)
    with pytest.raises(ValueError, match=message):
        open_shards([tmp_path / "train-0.tar"])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("cat/0.jpg 0\n", r"val_map.txt, line 1: 'cat/0.jpg 0' is not of the form"),
        ("cat/0.jpg\tcat\n", "line 1: .*is not of the form"),
        ("0.jpg\t0\n", "line 1: .*is not of the form <class>/<file> TAB <class number>"),
        ("cat/0.jpg\t0\ncat/99.jpg\t0\n", "line 2: cat/99.jpg is not in .*val.zip"),
        ("cat/0.jpg\t0\ndog/0.jpg\t0\n", "line 2: class number 0 is both cat and dog"),
        ("cat/0.jpg\t0\ncat/1.jpg\t1\n", "a class has two class numbers"),
        ("cat/0.jpg\t0\ndog/0.jpg\t2\n", "go up to 2, but no image has class 1"),
        ("", "no image in"),
    ],
)
def test_maps_are_checked(tmp_path: Path, lines: str, message: str) -> None:
    image_sets.zip_and_map(tmp_path, "val", images("val"))
    (tmp_path / "val_map.txt").write_text(lines)
    with pytest.raises(ValueError, match=message):
        ZipReader(tmp_path / "val.zip", tmp_path / "val_map.txt")


def test_zips_are_checked(tmp_path: Path) -> None:
    image_sets.zip_and_map(tmp_path, "val", images("val"))
    paths = tmp_path / "val.zip", tmp_path / "val_map.txt"
    paths[1].write_text("".join(paths[1].read_text().splitlines(keepends=True)[1:]))
    assert ZipReader(*paths).others() == [f"{tmp_path}/val.zip/cat/0.jpg"], "what the map leaves out"
    whole = paths[0].read_bytes()
    paths[0].write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"val.zip is not a complete zip"):
        ZipReader(*paths)
    image_sets.zip_and_map(tmp_path, "val", images("val"), zipfile.ZIP_BZIP2)
    with pytest.raises(ValueError, match="is encrypted or not compressed by deflate"):
        ZipReader(*paths)
    paths[1].unlink()
    with pytest.raises(ValueError, match=r"val.zip needs val_map.txt beside it"):
        ZipReader(*paths)


@pytest.mark.parametrize("layout", ["zip", "deflated zip"])
def test_bytes_that_changed_in_a_zip_are_noticed(tmp_path: Path, layout: str) -> None:
    reader = reader_of(tmp_path, layout)
    path = tmp_path / "val.zip"
    data = bytearray(path.read_bytes())
    data[300] ^= 255
    path.write_bytes(data)
    with pytest.raises(OSError, match="damaged in the zip"):
        reader.encoded(0)


def test_an_archive_that_shrinks_after_opening_is_noticed(tmp_path: Path) -> None:
    reader = reader_of(tmp_path, "tar of folders")
    path = tmp_path / "val.tar"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(OSError, match=r"val.tar ends within the image"):
        reader.encoded(11)


def test_folder_lists_what_is_no_image(tmp_path: Path) -> None:
    image_sets.class_folders(tmp_path, "val", images("val") | {"cat/9.heic": b"x", "dog/notes": b"x"})
    assert FolderReader(tmp_path / "val").others() == [f"{tmp_path}/val/cat/9.heic", f"{tmp_path}/val/dog/notes"]


# Parquet


def rewrite(root: Path, change: Callable[[dict], dict], metadata: bool = True) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install -e '.[hf]'")
    import pyarrow.parquet as pq

    for path in (root / "data").glob("*.parquet"):
        table = pq.ParquetFile(path).read()
        changed = pa.Table.from_pylist([change(row) for row in table.to_pylist()])
        pq.write_table(changed.replace_schema_metadata(table.schema.metadata if metadata else None), path)


def test_parquet_without_a_description_has_numbers_for_classes(tmp_path: Path) -> None:
    reader_of(tmp_path, "parquet")
    rewrite(tmp_path, lambda row: row, metadata=False)
    reader = open_split(find_split(tmp_path, "val"))
    assert reader.classes == ("0", "1")
    assert reader.encoded(11) == list(images("val").values())[11]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row | {"label": -1}, "the label is -1; expected a class number from 0 to 1"),
        (lambda row: row | {"label": None}, "the label is None; expected a class number"),
        (
            lambda row: row | {"label": float(row["label"])},
            "column label holds double and not class numbers .whole ones",
        ),
        (lambda row: row | {"label": [row["label"]]}, "column label holds list<.*> and not class numbers"),
        (lambda row: row | {"second": row["image"]}, "has the columns image, label, second; expected one of images"),
    ],
)
def test_parquet_is_checked(tmp_path: Path, change: Callable[[dict], dict], message: str) -> None:
    reader_of(tmp_path, "parquet")
    rewrite(tmp_path, change)
    with pytest.raises(ValueError, match=message):
        open_split(find_split(tmp_path, "val"))


def test_tars_that_were_joined_or_added_to_are_refused(tmp_path: Path) -> None:
    """A reader stops at the end of the first one: whole classes would be missing."""
    image_sets.tar_of_folders(tmp_path, "val", images("val"))
    image_sets.tar_of_folders(tmp_path / "more", "val", images("val", classes=("emu",)))
    path = tmp_path / "val.tar"
    whole = path.read_bytes()
    path.write_bytes(whole + (tmp_path / "more/val.tar").read_bytes())
    with pytest.raises(ValueError, match=r"val.tar is not a complete, .*: more follows its end, as where tars were"):
        open_split(find_split(tmp_path, "val"))
    path.write_bytes(whole)
    with tarfile.open(path, "a") as tar:
        tar.addfile(tarfile.TarInfo("cat/0.jpg"))
    with pytest.raises(ValueError, match=r"val.tar has cat/0.jpg twice"):
        open_split(find_split(tmp_path, "val"))


def test_a_map_of_windows_is_read(tmp_path: Path) -> None:
    image_sets.zip_and_map(tmp_path, "val", images("val"))
    lines = (tmp_path / "val_map.txt").read_bytes()
    (tmp_path / "val_map.txt").write_bytes(b"\xef\xbb\xbf" + lines.replace(b"\n", b"\r\n"))
    assert len(open_split(find_split(tmp_path, "val"))) == 12


def test_a_row_without_an_image_is_named(tmp_path: Path) -> None:
    reader_of(tmp_path, "parquet")
    rewrite(tmp_path, lambda row: row | {"image": {"bytes": None, "path": row["image"]["path"]}})
    with pytest.raises(OSError, match="the row has no image"):
        open_split(find_split(tmp_path, "val")).encoded(0)


def test_a_parquet_file_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    reader_of(tmp_path, "parquet")
    path = tmp_path / "data/validation-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"validation-00001-of-00002.parquet is not a complete parquet file"):
        open_split(find_split(tmp_path, "val"))


def test_missing_pyarrow_is_a_line_that_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "val-00000-of-00001.parquet").touch()
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(ValueError, match=r"which need pyarrow: pip install -e '.\[hf\]'"):
        open_split(find_split(tmp_path, "val"))


def as_files(root: Path, split: str, rows: list[dict], name: str, metadata: dict[str, str] | None = None) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install -e '.[hf]'")
    import pyarrow.parquet as pq

    path = root / name.format(split=split)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows).replace_schema_metadata(metadata), path)


def rows_of(split: str, **columns: Callable[[str, bytes], object]) -> list[dict]:
    """A row per image, with columns made of its class and its bytes."""
    return [
        {column: value(name.partition("/")[0], data) for column, value in columns.items()}
        for name, data in images(split).items()
    ]


@pytest.mark.parametrize(
    "name",
    ["data/{split}-00000-of-00001.parquet", "data/{split}-00000-of-00001-70d52db3c749a935.parquet",
     "plain_text/{split}-00000-of-00001.parquet", "default/{split}/0000.parquet", "data/{split}/0000.parquet",
     "{split}/0000.parquet", "{split}/part-00000-of-00001.parquet", "{split}.parquet",
     "{split}/part-00000-1f3c-42ab-9d-c000.snappy.parquet", "{split}/part-00000-tid-7-1f3c-1-c000.parquet"],
)  # fmt: skip
def test_places_of_parquet_files(tmp_path: Path, name: str) -> None:
    """As the Hub has them, as it converts them (refs/convert/parquet), and as pandas and Spark write them."""
    for split in ("train", "validation"):
        rows = rows_of(split, image=lambda _, data: data, label=lambda label, _: int(label == "dog"))
        as_files(tmp_path, split, rows, name)
    (tmp_path / ".cache").mkdir()
    reader = open_split(find_split(tmp_path, "val"))
    assert reader.targets == [0] * 6 + [1] * 6
    assert reader.encoded(7) == images("val")["dog/1.jpg"]
    assert len(open_split(find_split(tmp_path, "train"))) == 12


def test_two_configurations_are_refused(tmp_path: Path) -> None:
    rows = rows_of("val", image=lambda _, data: data, label=lambda label, _: int(label == "dog"))
    for name in ("small", "large"):
        as_files(tmp_path, "val", rows, f"{name}/{{split}}/0000.parquet")
    with pytest.raises(ValueError, match=r"as parquet \(large/val/0000.parquet\) and as parquet \(small/val/0000"):
        find_split(tmp_path, "val")


def test_text_labels_are_classes_in_natural_order(tmp_path: Path) -> None:
    number = {"cat": "class 10", "dog": "class 9"}
    rows = rows_of("val", picture=lambda _, data: {"bytes": data}, kind=lambda label, _: number[label])
    as_files(tmp_path, "val", rows, "{split}.parquet")
    reader = open_split(find_split(tmp_path, "val"))
    assert reader.classes == ("class 9", "class 10")
    assert reader.targets == [1] * 6 + [0] * 6
    as_files(tmp_path, "val", [*rows, rows[0] | {"kind": None}], "{split}.parquet")
    with pytest.raises(ValueError, match=r"row 12: the label is None; expected a text"):
        open_split(find_split(tmp_path, "val"))


def test_columns_are_named_where_there_is_a_choice(tmp_path: Path) -> None:
    """CIFAR-100 has coarse and fine labels."""
    rows = rows_of("val", img=lambda _, data: data, thumb=lambda _, data: data[:9],
                   fine_label=lambda label, _: int(label == "dog"), coarse_label=lambda label, _: 0)  # fmt: skip
    as_files(tmp_path, "val", rows, "{split}.parquet")
    with pytest.raises(ValueError, match=r"columns img, .*, coarse_label; expected one .*--data FOLDER,image=NAME,la"):
        open_split(find_split(tmp_path, "val"))
    source = DataSource.folder(f"{tmp_path},image=img,label=fine_label")
    assert open_val(source, 2).targets == [0] * 6 + [1] * 6
    assert open_val(source, 2).encoded(3) == images("val")["cat/3.jpg"]
    assert source != DataSource.folder(f"{tmp_path},image=img,label=coarse_label"), "another set, and another key"
    with pytest.raises(ValueError, match="expected one of images and one of classes"):
        find_split(tmp_path, "val", Columns("img", "nothing")).open()
    with pytest.raises(ValueError, match="the column fine_label holds int64 and not images as bytes"):
        find_split(tmp_path, "val", Columns("fine_label", "coarse_label")).open()


@pytest.mark.parametrize(
    "metadata", ["no JSON", "[]", '{"info": {"features": null}}', '{"info": {"features": {"label": [{}], "x": "y"}}}']
)
def test_an_odd_description_is_none(tmp_path: Path, metadata: str) -> None:
    """A feature may be a list of others, for one."""
    rows = rows_of("val", image=lambda _, data: data, label=lambda label, _: int(label == "dog"))
    as_files(tmp_path, "val", rows, "{split}.parquet", {"huggingface": metadata})
    assert open_split(find_split(tmp_path, "val")).classes == ("0", "1")


def test_a_described_class_counts_beside_a_list_of_features(tmp_path: Path) -> None:
    rows = rows_of("val", image=lambda _, data: data, kind=lambda label, _: int(label == "dog"), boxes=lambda *_: [1])
    features = {"kind": {"_type": "ClassLabel", "names": ["cat", "dog"]}, "boxes": [{"dtype": "int64"}]}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    as_files(tmp_path, "val", rows, "{split}.parquet", metadata)
    assert open_split(find_split(tmp_path, "val")).classes == ("cat", "dog")


def test_columns_are_of_parquet_files_alone(tmp_path: Path) -> None:
    image_sets.class_folders(tmp_path, "val", images("val"))
    with pytest.raises(ValueError, match=r"no columns to choose from \(label=x\): only parquet files have"):
        find_split(tmp_path, "val", Columns(label="x"))
