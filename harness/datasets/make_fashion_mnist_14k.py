"""Makes `fashion_mnist_14k/` out of Debian's package `dataset-fashion-mnist`.

    apt-get install dataset-fashion-mnist
    python -m harness.datasets.make_fashion_mnist_14k

The first 1,200 training and the first 200 test images of each of the ten classes, in the order of the original files.
Deterministic: run again, it writes the same bytes (with another zlib possibly other bytes, never other images).
"""

import argparse
import gzip
from pathlib import Path

import numpy as np

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FOLDER = Path(__file__).parent / "fashion_mnist_14k"
SPLITS = {"train": ("train", 1200), "val": ("t10k", 200)}  # our name -> (name in the original files, images per class)


def read_idx(path: Path) -> np.ndarray:
    """An array of bytes in the idx format of MNIST: two zeros, type 8, the rank, big-endian extents, the data."""
    raw = gzip.decompress(path.read_bytes())
    rank = raw[3]
    assert raw[:3] == b"\0\0\x08", f"{path}: not an idx file of bytes"
    shape = np.frombuffer(raw, ">u4", count=rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def first_of_each_class(labels: np.ndarray, per_class: int) -> np.ndarray:
    """(N,) labels -> indices of the first `per_class` images of every class, ascending."""
    return np.sort(np.concatenate([np.flatnonzero(labels == c)[:per_class] for c in np.unique(labels)]))


def make(source: Path, destination: Path) -> None:
    """Writes train.npz and val.npz, each with `images` (N, 28, 28) uint8 and `labels` (N,) uint8."""
    for split, (original, per_class) in SPLITS.items():
        images = read_idx(source / f"{original}-images-idx3-ubyte.gz")
        labels = read_idx(source / f"{original}-labels-idx1-ubyte.gz")
        chosen = first_of_each_class(labels, per_class)
        np.savez_compressed(destination / f"{split}.npz", images=images[chosen], labels=labels[chosen])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=DEBIAN_FOLDER, help="folder of the four idx.gz files")
    parser.add_argument("--destination", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    make(arguments.source, arguments.destination)
