"""The idx format of MNIST and similar sets, and where Debian's package of Fashion-MNIST puts its four files."""

import gzip
import zlib
from pathlib import Path

import numpy as np

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
ORIGINAL_NAMES = {"train": "train", "val": "t10k"}  # our name of a split -> its name in the files' names


def read_idx(path: Path) -> np.ndarray:
    """Return the array in a gzipped file: two zeros, type 8 (bytes), the rank, big-endian sizes, the data.

    Raises ValueError for a file with other content, FileNotFoundError for a missing one.
    """
    try:
        raw = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is not an idx file of bytes, such as those of MNIST")
    rank = raw[3]
    shape = tuple(np.frombuffer(raw, ">u4", count=rank, offset=4).tolist())
    data = np.frombuffer(raw, np.uint8, offset=4 + 4 * rank)
    if data.size != np.prod(shape):
        raise ValueError(f"{path} has {data.size} bytes, but its header says {shape}")
    return data.reshape(shape)


def idx_files(folder: Path, split: str) -> tuple[Path, Path]:
    """Return the files of images and labels of a split, as Fashion-MNIST and MNIST name them."""
    original = ORIGINAL_NAMES[split]
    return folder / f"{original}-images-idx3-ubyte.gz", folder / f"{original}-labels-idx1-ubyte.gz"
