"""Make `fashion_mnist_14k/` from Debian's package `dataset-fashion-mnist`.

    apt-get install dataset-fashion-mnist
    python -m harness.images.make_fashion_mnist_14k

The first 1,200 training and the first 200 test images of each of the ten classes, in the order of the original files.
Deterministic: run again, it writes the same bytes (with another zlib possibly other bytes, never other images).
"""

import argparse
from pathlib import Path

import numpy as np

from harness.images.idx import DEBIAN_FOLDER, idx_files, read_idx

FOLDER = Path(__file__).parent / "fashion_mnist_14k"
PER_CLASS = {"train": 1200, "val": 200}  # images


def first_of_each_class(labels: np.ndarray, per_class: int) -> np.ndarray:
    """Return the indices of the first `per_class` images of every class, ascending, for (N,) labels."""
    return np.sort(np.concatenate([np.flatnonzero(labels == c)[:per_class] for c in np.unique(labels)]))


def make(source: Path, destination: Path) -> None:
    """Write train.npz and val.npz, each with `images` (N, 28, 28) uint8 and `labels` (N,) uint8."""
    for split, per_class in PER_CLASS.items():
        images, labels = (read_idx(path) for path in idx_files(source, split))
        chosen = first_of_each_class(labels, per_class)
        np.savez_compressed(destination / f"{split}.npz", images=images[chosen], labels=labels[chosen])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=DEBIAN_FOLDER, help="folder of the four idx.gz files")
    parser.add_argument("--destination", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    make(arguments.source, arguments.destination)
