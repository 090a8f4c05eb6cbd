#!/usr/bin/env bash
# Who guesses what: whoever trains with timm on class folders and evaluates with torchvision's ImageFolder (or the other way
#   round) takes the labels for the same: both number the folders in sorted order.
# What happens: timm sorts by the numbers in a name and without regard to case, torchvision by characters. Of folders 1 to 12
#   only one has the same label in both, so a perfect model is right in one of twelve images; nothing warns. Names like those
#   of ImageNet agree.
# Versions: timm 1.0.31, torchvision 0.29.1; 2026-11-29
# Source: timm/data/readers/reader_image_folder.py, find_images_and_targets (natural_key); torchvision/datasets/folder.py,
#   find_classes; https://github.com/huggingface/pytorch-image-models/issues/222
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet timm==1.0.31 torch==2.14.1 torchvision==0.29.1
venv/bin/python -I - <<'END'
import sys
from pathlib import Path

import timm
import torchvision
from PIL import Image
from timm.data import create_dataset

FOLDERS = {
    "numbers": [str(number) for number in range(1, 13)],
    "capitals": ["apple", "Banana", "cherry"],
    "ImageNet": ["n01440764", "n02085620", "n15075141"],
}

print(f"timm {timm.__version__}, torchvision {torchvision.__version__}: labels of class folders")
same = {}
for kind, names in FOLDERS.items():
    for name in names:
        Path(kind, name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(f"{kind}/{name}/0.png")
    timms = create_dataset("", root=kind).reader.class_to_idx
    theirs = torchvision.datasets.ImageFolder(kind).class_to_idx
    same[kind] = sum(timms[name] == theirs[name] for name in names)
    print(f"{kind}: {', '.join(names)}")
    print(f"  expected: {len(names)} of {len(names)} labels are the same")
    print(f"  seen:     {same[kind]} of {len(names)}")
    print("            timm       ", [timms[name] for name in names])
    print("            torchvision", [theirs[name] for name in names])
sys.exit(0 if same == {"numbers": 1, "capitals": 1, "ImageNet": 3} else "this has changed")
END
