"""Small image sets on disk, in every layout that the harness reads: BUILDERS[layout](root, split, images)."""

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ImageFiles = dict[str, bytes]  # <class>/<file> -> its bytes, in the order of the split


def jpeg_bytes(seed: int, size: tuple[int, int] = (24, 20)) -> bytes:
    """Noise, so that no two are alike and a cut is noticed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


def coloured(root: Path, train: int = 64, val: int = 13) -> Path:
    """Class folders of 16 x 16 noise whose red, green or blue is raised: three classes that a small model learns."""
    generator = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for channel, name in enumerate(("red", "green", "blue")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 156, (16, 16, 3))
                pixels[..., channel] += 100
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{i}.png")
    return root


def images(split: str, per_class: int = 6, classes: tuple[str, ...] = ("cat", "dog")) -> ImageFiles:
    """Files of the same names in every class: a reader must not mix them up."""
    start = 0 if split == "train" else 1000
    return {
        f"{label}/{i}.jpg": jpeg_bytes(start + 100 * number + i)
        for number, label in enumerate(classes)
        for i in range(per_class)
    }


def write_tar(path: Path, members: ImageFiles) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(members))


def tar_bytes(members: ImageFiles) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def by_class(files: ImageFiles) -> dict[str, ImageFiles]:
    classes: dict[str, ImageFiles] = {}
    for name, data in files.items():
        label, _, file = name.partition("/")
        classes.setdefault(label, {})[file] = data
    return classes


def class_folders(root: Path, split: str, files: ImageFiles) -> None:
    for name, data in files.items():
        path = root / split / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def tar_of_folders(root: Path, split: str, files: ImageFiles) -> None:
    write_tar(root / f"{split}.tar", files)


def tar_of_tars(root: Path, split: str, files: ImageFiles) -> None:
    """As ILSVRC2012_img_train.tar."""
    classes = {f"{label}.tar": tar_bytes(members) for label, members in by_class(files).items()}
    write_tar(root / f"ILSVRC2012_img_{split}.tar", classes)


def class_tars(root: Path, split: str, files: ImageFiles) -> None:
    for label, members in by_class(files).items():
        write_tar(root / split / f"{label}.tar", members)


def zip_and_map(root: Path, split: str, files: ImageFiles, compression: int = zipfile.ZIP_STORED) -> None:
    labels = sorted(by_class(files))
    root.mkdir(exist_ok=True)
    with zipfile.ZipFile(root / f"{split}.zip", "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    lines = [f"{name}\t{labels.index(name.partition('/')[0])}\n" for name in files]
    (root / f"{split}_map.txt").write_text("".join(lines))


def deflated_zip(root: Path, split: str, files: ImageFiles) -> None:
    zip_and_map(root, split, files, zipfile.ZIP_DEFLATED)


def shards(root: Path, split: str, files: ImageFiles) -> None:
    """Two of them, with keys of their own."""
    labels = sorted(by_class(files))
    names = list(files)
    for number, start in enumerate(range(0, len(names), (len(names) + 1) // 2)):
        members: dict[str, bytes] = {}
        for name in names[start : start + (len(names) + 1) // 2]:
            label, _, file = name.partition("/")
            key = f"{label}_{file.partition('.')[0]}"
            members |= {
                f"{key}.jpg": files[name],
                f"{key}.cls": str(labels.index(label)).encode(),
                f"{key}.json": b"{}",
            }
        write_tar(root / f"set-{split}-{number:06}.tar", members)


def parquet(root: Path, split: str, files: ImageFiles, labels: list[str] | None = None) -> None:
    """Two files with row groups of three images, as `datasets` writes them."""
    pa = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install -e '.[hf]'")
    import pyarrow.parquet

    labels = labels or sorted(by_class(files))
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": labels}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("label", pa.int64())], metadata=metadata)
    (root / "data").mkdir(parents=True, exist_ok=True)
    names, half = list(files), (len(files) + 1) // 2
    name = {"val": "validation"}.get(split, split)
    for number in (0, 1):
        rows = [
            {"image": {"bytes": files[n], "path": n.partition("/")[2]}, "label": labels.index(n.partition("/")[0])}
            for n in names[number * half : (number + 1) * half]
        ]
        path = root / f"data/{name}-0000{number}-of-00002.parquet"
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=3)


BUILDERS: dict[str, Callable[[Path, str, ImageFiles], None]] = {
    "class folders": class_folders,
    "tar of folders": tar_of_folders,
    "tar of tars": tar_of_tars,
    "class tars": class_tars,
    "zip": zip_and_map,
    "deflated zip": deflated_zip,
    "shards": shards,
    "parquet": parquet,
}


def remove(path: Path) -> None:
    """A file, or a folder and all in it."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()
