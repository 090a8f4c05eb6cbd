"""Synthetic photographs to race the input of a training with: JPEGs of ImageNet's usual size in pixels and bytes.

python -m tests.photographs FOLDER        # FOLDER/train/<class>/*.jpg: 400 images of 500 x 375, 120 kB each
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES, EACH = 10, 40
SIZE = 500, 375
QUALITY = 92


def photograph(seed: int) -> Image.Image:
    """Return an image whose amplitudes fall as 1/f in brightness and faster in colour, as those of photographs do."""
    random, (width, height) = np.random.default_rng(seed), SIZE
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequencies[0, 0] = 1
    noise = random.standard_normal((3, *frequencies.shape)) + 1j * random.standard_normal((3, *frequencies.shape))
    bright, red, blue = (
        plane / plane.std()
        for power, each in zip((1.0, 1.3, 1.3), noise, strict=True)
        for plane in [np.fft.irfft2(each / frequencies**power, s=(height, width))]
    )
    grey = 128 + 50 * bright
    pixels = np.stack([grey + 15 * red, grey - 7 * (red + blue), grey + 15 * blue], axis=-1)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write(root: Path, classes: int = CLASSES, each: int = EACH) -> None:
    """Write so many class folders with so many photographs each to root/train."""
    for label in range(classes):
        folder = root / "train" / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(each):
            photograph(label * each + number).save(folder / f"{number}.jpg", quality=QUALITY)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("python -m tests.photographs FOLDER")
    if Path(sys.argv[1], "train").exists():
        sys.exit(f"{sys.argv[1]}/train is there already: give a new folder")
    write(Path(sys.argv[1]))
