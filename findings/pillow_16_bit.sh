#!/usr/bin/env bash
# Who guesses what: whoever trains on 16-bit greyscale PNGs (X-rays, microscopes, depth) through torchvision's ImageFolder or
#   timm's ImageDataset, which both open a file with Pillow and call convert("RGB"), expects what other programs do: values
#   are scaled to 8 bits, and the image looks the same.
# What happens: values are clipped at 255. Of a ramp from 0 to 65535 all but the darkest 1/256 comes out white; there is no
#   warning, and a network trains on white images.
# Versions: Pillow 13.0.0; 2026-11-28
# Source: https://github.com/python-pillow/Pillow/issues/3011; torchvision/datasets/folder.py, pil_loader;
#   timm/data/dataset.py, ImageDataset.__getitem__
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pillow==13.0.0 numpy==2.4.6
venv/bin/python -I - <<'END'
import sys

import numpy
import PIL
from PIL import Image

ramp = numpy.arange(65536, dtype=numpy.uint16).reshape(256, 256)
Image.fromarray(ramp).save("ramp.png")
image = Image.open("ramp.png")
values = numpy.asarray(image.convert("RGB"))[..., 0].ravel()
at = [0, 100, 1000, 16384, 32768, 65535]
seen = values[at].tolist()
print(f"Pillow {PIL.__version__}: a 16-bit ramp, mode {image.mode}, after convert('RGB'), at {at}")
print("expected:", [round(value / 257) for value in at])
print("seen:    ", seen, f"and {(values == 255).mean():.1%} of all pixels are white")
sys.exit(0 if seen == [0, 100, 255, 255, 255, 255] else "this has changed")
END
