"""Which images a model got right: one bit per image in a small .npy file, written completely or not at all.

A paired comparison needs it in addition to the records. 50,000 images take 6.25 kB. What classes they are of is in the
folder of the records, once for each list of images.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from results.records import read_json, write_bytes, write_text

LISTS = "image_lists"
"""The folder of image lists, in the folder of the records; each file has the name of its list's hash."""


class ImageList(NamedTuple):
    """The classes of a list of images: their names, and the number of each image's class."""

    classes: list[str]
    targets: np.ndarray


def write_image_list(folder: Path, val_list: str, classes: Sequence[str], targets: Sequence[int]) -> None:
    """Write the classes of the images whose list has this hash, unless the folder of records has them already.

    Raises ValueError if the file cannot be written.
    """
    path = folder / LISTS / f"{val_list}.json"
    if not path.exists():
        write_text(path, json.dumps({"classes": list(classes), "targets": list(map(int, targets))}) + "\n")


def read_image_list(folder: Path, val_list: str) -> ImageList | None:
    """Return the classes of a list of images; None where the folder of records has none, as earlier ones had not.

    Raises ValueError, with the path, for a damaged file.
    """
    path = folder / LISTS / f"{val_list}.json"
    if not path.exists():
        return None
    values = read_json(path)
    classes, targets = values.get("classes"), values.get("targets")
    if not isinstance(classes, list) or not isinstance(targets, list) or not set(targets) <= set(range(len(classes))):
        raise ValueError(f"{path}: not a list of images and their classes")
    return ImageList([str(name) for name in classes], np.array(targets, dtype=int))


def write_correct(path: Path, correct: np.ndarray) -> Path:
    """Write (N,) bools, in the order of the image list and eight per byte, and return the path.

    Raises ValueError if the file cannot be written.
    """
    assert correct.dtype == np.bool_, correct.dtype
    assert correct.ndim == 1, correct.shape
    assert len(correct), "no images"
    buffer = io.BytesIO()
    np.save(buffer, np.packbits(correct), allow_pickle=False)
    return write_bytes(path, buffer.getvalue())


def read_correct(path: Path, n_images: int) -> np.ndarray:
    """Return the (n_images,) bools that `write_correct` stored.

    Raises ValueError with the path and what is wrong for a file that is missing, damaged or about other images.
    """
    try:
        packed = np.load(path, allow_pickle=False)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
    # Which error numpy raises depends on where the file is truncated.
    except (ValueError, EOFError, SyntaxError) as error:
        raise ValueError(f"{path}: not a complete file of which images were right") from error
    if not isinstance(packed, np.ndarray) or packed.dtype != np.uint8 or packed.ndim != 1:
        raise ValueError(f"{path}: not a file of which images were right: it must hold packed bits")
    expected = -(-n_images // 8)
    if len(packed) != expected:
        least, most = max(8 * len(packed) - 7, 0), 8 * len(packed)
        raise ValueError(f"{path}: holds {least} to {most} images, but its record says {n_images}")
    bits: np.ndarray = np.unpackbits(packed).astype(bool)
    # The last byte is padded with zeros: a one there belongs to a longer list of images.
    if bits[n_images:].any():
        raise ValueError(f"{path}: holds more than the {n_images} images that its record says")
    return bits[:n_images]
