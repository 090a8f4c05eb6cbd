"""What is an image and a class, by its name, in every layout; and what is refused because labels would shift."""

import hashlib
import os
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cells import DataSource
from harness.images.layouts import find_split, open_split
from harness.images.names import is_image, left_behind
from harness.images.readers import Reader
from harness.images.sources import list_hash, open_splits
from tests.harness import image_sets
from tests.harness.image_sets import BUILDERS, ImageFiles, images, jpeg_bytes

APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(200)
BY_CLASS = pytest.mark.parametrize("layout", ["class folders", "tar of folders", "tar of tars", "class tars"])


def opened(root: Path, layout: str, files: ImageFiles) -> Reader:
    BUILDERS[layout](root, "val", files)
    return open_split(find_split(root, "val"))


@pytest.mark.parametrize(
    "path",
    ["._a.jpg", "cat/._a.jpg", ".DS_Store", ".ipynb_checkpoints/a.jpg", "cat/.ipynb_checkpoints/a.jpg", ".cache",
     "__MACOSX/cat/a.jpg", "cat/Thumbs.db", "Desktop.ini", "@eaDir/a.jpg", "cat/@eaDir/a.jpg/b.jpg"],
)  # fmt: skip
def test_what_programs_leave_behind_is_known(path: str) -> None:
    assert left_behind(path) is not None
    assert not is_image(path)


@pytest.mark.parametrize("path", ["./cat/a.jpg", "cat/a.b.PNG", "a..jpg", "c._x/a.webp", "x/fa\udcdfade.tif"])
def test_what_is_meant_as_an_image_is_one(path: str) -> None:
    assert left_behind(path) is None
    assert is_image(path)


@BY_CLASS
def test_files_of_a_mac_and_of_windows_are_no_images(tmp_path: Path, layout: str) -> None:
    beside = {f"{name.replace('/', '/._')}": APPLE_DOUBLE for name in images("val")}
    reader = opened(tmp_path, layout, images("val") | beside | {"cat/Thumbs.db": b"x", "dog/.DS_Store": b"x"})
    assert [reader.encoded(i) for i in range(len(reader))] == list(images("val").values())
    assert len(reader.others()) == 14


def test_an_archive_has_folders_of_a_mac_beside_its_classes(tmp_path: Path) -> None:
    files = images("val")
    outer = {f"__MACOSX/{name}": APPLE_DOUBLE for name in files} | {"._cat": APPLE_DOUBLE, "._x.tar": APPLE_DOUBLE}
    assert opened(tmp_path, "tar of folders", files | outer).classes == ("cat", "dog")


def test_shards_and_class_tars_have_files_of_a_mac_among_them(tmp_path: Path) -> None:
    image_sets.shards(tmp_path, "val", images("val"))
    for path in list(tmp_path.glob("*.tar")):
        path.with_name(f"._{path.name}").write_bytes(APPLE_DOUBLE)
    image_sets.write_tar(tmp_path / "set-val-000002.tar", {"a.jpg": jpeg_bytes(1), "a.cls": b"1", "._a.jpg": b"x"})
    assert len(open_split(find_split(tmp_path, "val"))) == 13
    image_sets.class_tars(tmp_path / "tars", "val", images("val"))
    (tmp_path / "tars/val/._cat.tar").write_bytes(APPLE_DOUBLE)
    assert open_split(find_split(tmp_path / "tars", "val")).classes == ("cat", "dog")


@BY_CLASS
def test_a_hidden_folder_is_no_class(tmp_path: Path, layout: str) -> None:
    reader = opened(tmp_path, layout, {".ipynb_checkpoints/0.jpg": jpeg_bytes(1)} | images("val"))
    assert reader.classes == ("cat", "dog")
    assert reader.targets == [0] * 6 + [1] * 6
    assert layout == "class tars" or any(".ipynb_checkpoints" in name for name in reader.others())


def test_a_hidden_class_that_is_numbered_is_refused(tmp_path: Path) -> None:
    """A map or a description has given it a number, and leaving it out would leave a gap."""
    hidden = {".ipynb_checkpoints/0.jpg": jpeg_bytes(1)} | images("val")
    with pytest.raises(
        ValueError, match=r"line 1: .*programs leave .ipynb_checkpoints behind; leave it out of the map"
    ):
        opened(tmp_path / "zip", "zip", hidden)
    with pytest.raises(ValueError, match=r"has '.ipynb_checkpoints' as a class, which is what a program left behind"):
        opened(tmp_path / "parquet", "parquet", hidden)


@BY_CLASS
@pytest.mark.parametrize("held", ["0.heic", "notes"])
def test_a_class_without_an_image_is_refused(tmp_path: Path, layout: str, held: str) -> None:
    """`bee` would vanish, and `dog` have its number."""
    with pytest.raises(ValueError, match=r"the class 'bee' has no image that can be read \(1 x .*; delete it") as error:
        opened(tmp_path, layout, images("val") | {f"bee/{held}": b"x"})
    assert "\n" not in str(error.value)


def test_an_empty_class_folder_is_refused(tmp_path: Path) -> None:
    image_sets.class_folders(tmp_path, "val", images("val"))
    (tmp_path / "val/bee").mkdir()
    with pytest.raises(ValueError, match=r"the class 'bee' has no image that can be read \(it is empty\)"):
        open_split(find_split(tmp_path, "val"))


def test_a_class_folder_that_is_elsewhere_or_cannot_be_read_does_not_vanish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the disk that a link points to is not there, or where the folder is another user's."""
    image_sets.class_folders(tmp_path, "val", images("val"))
    (tmp_path / "val/bee").symlink_to("/nowhere/bee")
    with pytest.raises(ValueError, match=r"the class 'bee' has no image that can be read"):
        open_split(find_split(tmp_path, "val"))
    (tmp_path / "val/bee").unlink()
    listed = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("cat"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ValueError, match=r"^the folder .*/val/cat cannot be read: Permission denied$"):
        open_split(find_split(tmp_path, "val"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE], ids=["symbolic", "hard"])
def test_a_link_in_a_tar_is_no_image_and_is_not_passed_over(tmp_path: Path, kind: bytes) -> None:
    """tar writes the second of two hard links so, as of images that lie in two sets."""
    link = tarfile.TarInfo("dog/9.jpg")
    link.type, link.linkname = kind, "cat/0.jpg"
    image_sets.tar_of_folders(tmp_path, "val", images("val"))
    image_sets.shards(tmp_path / "shards", "val", images("val"))
    for path in (tmp_path / "val.tar", next((tmp_path / "shards").glob("*.tar"))):
        with tarfile.open(path, "a") as tar:
            tar.addfile(link)
        with pytest.raises(ValueError, match=r"/dog/9.jpg is a link to cat/0.jpg .* tar --dereference --hard-deref"):
            open_split(find_split(path.parent, "val"))


def test_a_link_to_a_class_in_a_tar_is_a_class_without_images(tmp_path: Path) -> None:
    link = tarfile.TarInfo("bee")
    link.type, link.linkname = tarfile.SYMTYPE, "/disk/bee"
    image_sets.tar_of_folders(tmp_path, "val", images("val"))
    with tarfile.open(tmp_path / "val.tar", "a") as tar:
        tar.addfile(link)
    with pytest.raises(ValueError, match=r"the class 'bee' has no image that can be read"):
        open_split(find_split(tmp_path, "val"))


def test_every_suffix_that_is_read_counts_whatever_its_case(tmp_path: Path) -> None:
    files = {
        f"{label}/{i}{suffix}": jpeg_bytes(i) for label in "ab" for i, suffix in enumerate((".webp", ".TIF", ".bmp"))
    }
    assert opened(tmp_path, "class folders", files).targets == [0] * 3 + [1] * 3


@pytest.mark.parametrize("layout", ["class tars", "class folders", "tar of folders", "tar of tars"])
@pytest.mark.parametrize("suffix", [".json", ".txt"])
def test_shards_are_no_classes(tmp_path: Path, layout: str, suffix: str) -> None:
    """As img2dataset writes them: numbered, with an image's caption and data beside it."""
    files: ImageFiles = {}
    for shard in ("00000", "00001"):
        for i in range(3):
            files |= {f"{shard}/{shard}{i:04}.jpg": jpeg_bytes(i), f"{shard}/{shard}{i:04}{suffix}": b"{}"}
    with pytest.raises(
        ValueError, match=r"has shards of webdataset or img2dataset, not classes: 0000\d/.*\(.cls\)"
    ) as error:
        opened(tmp_path, layout, files)
    assert "\n" not in str(error.value)


@BY_CLASS
def test_shards_of_images_alone_are_no_classes_either(tmp_path: Path, layout: str) -> None:
    shards = {f"{n:05}/{n:05}{i:04}.jpg": jpeg_bytes(i) for n in range(2) for i in range(3)}
    with pytest.raises(ValueError, match=r"/000000000.jpg has the number of its shard and one within"):
        opened(tmp_path / "shards", layout, shards)
    one_is_not = shards | {"00001/1.jpg": jpeg_bytes(9)}
    assert opened(tmp_path / "classes", layout, one_is_not).classes == ("00000", "00001")


@BY_CLASS
def test_notes_beside_images_make_no_shards_of_classes(tmp_path: Path, layout: str) -> None:
    beside = {name.replace(".jpg", ".json"): b"{}" for name in images("val")}
    assert opened(tmp_path / "named", layout, images("val") | beside).classes == ("cat", "dog")
    numbered = images("val", classes=("00000", "00001"))
    assert opened(tmp_path / "numbered", layout, numbered | {"00000/about.txt": b"x"}).classes == ("00000", "00001")


# Names that are not UTF-8


def expected_hash(names: list[bytes], targets: list[int]) -> str:
    lines = b"".join(name + b"\t%d\n" % target for name, target in zip(names, targets, strict=True))
    return hashlib.sha256(lines).hexdigest()[:16]


def test_list_hash_is_over_the_bytes_of_names(tmp_path: Path) -> None:
    for split in ("train", "val"):
        image_sets.class_folders(tmp_path, split, images(split, per_class=2))
    reader = open_splits(DataSource.folder(tmp_path), 2).val
    names = [b"cat/0.jpg", b"cat/1.jpg", b"dog/0.jpg", b"dog/1.jpg"]
    assert list_hash(reader) == expected_hash(names, [0, 0, 1, 1])
    try:
        (tmp_path / "val/dog/1.jpg").rename(os.fsdecode(os.fsencode(tmp_path) + b"/val/dog/fa\xdfade.jpg"))
    except OSError:
        pytest.skip("needs a file system that takes any bytes as a name")
    reader = open_splits(DataSource.folder(tmp_path), 2).val
    assert list_hash(reader) == expected_hash([*names[:3], b"dog/fa\xdfade.jpg"], [0, 0, 1, 1])
    assert len(reader.stamp()) == 16
    assert reader.unreadable(3, ValueError("cut")).endswith("dog/fa\\xdfade.jpg: cut")


def test_classes_are_named_as_a_person_can_read_them(tmp_path: Path) -> None:
    latin = os.fsdecode("hündin".encode("latin-1"))
    forms = {"train": unicodedata.normalize("NFC", "hündin"), "val": unicodedata.normalize("NFD", "hündin")}
    for split, name in forms.items():
        image_sets.class_folders(tmp_path / "mac", split, images(split, classes=("cat", name)))
    with pytest.raises(ValueError, match=r"the same classes in two forms of Unicode, .*: hündin; rename those"):
        open_splits(DataSource.folder(tmp_path / "mac"), 2)
    try:
        image_sets.class_folders(tmp_path / "latin", "train", images("train", classes=("cat", latin)))
    except OSError:
        pytest.skip("needs a file system that takes any bytes as a name")
    image_sets.class_folders(tmp_path / "latin", "val", images("val", classes=("cat", "dog")))
    with pytest.raises(ValueError, match=r"only in train: h\\xfcndin; only in val: dog"):
        open_splits(DataSource.folder(tmp_path / "latin"), 2)


class NamedByBytes(zipfile.ZipInfo):
    """A member whose name is written as its bytes are, without the flag for UTF-8: zipfile reads it as DOS's."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return os.fsencode(self.filename), self.flag_bits


def zip_by_bytes(root: Path, split: str, files: ImageFiles) -> None:
    with zipfile.ZipFile(root / f"{split}.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(NamedByBytes(name), data)
    lines = [f"{name}\t{int(name.startswith('dog'))}\n" for name in files]
    (root / f"{split}_map.txt").write_bytes(os.fsencode("".join(lines)))


@pytest.mark.parametrize("build", [image_sets.tar_of_folders, zip_by_bytes])
@pytest.mark.parametrize("odd", [b"fa\xdfade.jpg", "faß.jpg".encode()], ids=["Latin-1", "UTF-8"])
def test_archives_have_the_hash_of_folders_whatever_their_names(
    tmp_path: Path, build: Callable[[Path, str, ImageFiles], None], odd: bytes
) -> None:
    build(tmp_path, "val", images("val", per_class=1) | {f"dog/{os.fsdecode(odd)}": jpeg_bytes(3)})
    reader = open_split(find_split(tmp_path, "val"))
    assert list_hash(reader) == expected_hash([b"cat/0.jpg", b"dog/0.jpg", b"dog/" + odd], [0, 1, 1])
    assert reader.encoded(2) == jpeg_bytes(3)
    assert reader.others() == []
