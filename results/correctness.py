"""Which images a model got right: one bit an image in a small .npy file, written whole or not at all.

What a paired comparison needs beside the records; 6.25 kB for 50,000 images.
"""

import io
from pathlib import Path

import numpy as np

from results.records import write_bytes


def write_correct(path: Path, correct: np.ndarray) -> Path:
    """Write (N,) bools, in the order of the image list, eight to a byte; returns the path.

    Raises ValueError if the file cannot be written.
    """
    assert correct.dtype == np.bool_, correct.dtype
    assert correct.ndim == 1, correct.shape
    assert len(correct), "of no image"
    buffer = io.BytesIO()
    np.save(buffer, np.packbits(correct), allow_pickle=False)
    return write_bytes(path, buffer.getvalue())


def read_correct(path: Path, n_images: int) -> np.ndarray:
    """(n_images,) bools as `write_correct` stored them.

    Raises ValueError with the path and what is wrong for a file that is missing, damaged or of other images.
    """
    try:
        packed = np.load(path, allow_pickle=False)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
    # What numpy raises depends on where a file is torn.
    except (ValueError, EOFError, SyntaxError) as error:
        raise ValueError(f"{path}: not a whole file of which images were right") from error
    if not isinstance(packed, np.ndarray) or packed.dtype != np.uint8 or packed.ndim != 1:
        raise ValueError(f"{path}: not a file of which images were right: it must hold packed bits")
    expected = -(-n_images // 8)
    if len(packed) != expected:
        least, most = max(8 * len(packed) - 7, 0), 8 * len(packed)
        raise ValueError(f"{path}: holds {least} to {most} images, and its record says {n_images}")
    bits: np.ndarray = np.unpackbits(packed).astype(bool)
    # What fills the last byte is zeros: a one there belongs to a longer list of images.
    if bits[n_images:].any():
        raise ValueError(f"{path}: holds more images than the {n_images} that its record says")
    return bits[:n_images]
