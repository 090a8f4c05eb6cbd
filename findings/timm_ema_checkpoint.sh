#!/usr/bin/env bash
# Who guesses what: whoever loads a training checkpoint with timm's create_model(checkpoint_path=...) expects the weights under
#   its key "state_dict", the model as it was trained: nobody asked for another.
# What happens: if the file holds "state_dict_ema" too, as timm's CheckpointSaver writes it under --model-ema, that moving
#   average is loaded instead; only a log message of level INFO says so, and create_model has no option for it. timm's
#   validate.py --checkpoint asks for the trained weights unless --use-ema is given, so two tools report two accuracies of one
#   file. load_checkpoint(..., use_ema=False) after create_model loads what was trained.
# Versions: timm 1.0.31; 2026-11-29
# Source: timm/models/_helpers.py, load_state_dict and load_checkpoint (use_ema=True); timm/models/_factory.py, create_model;
#   timm/utils/checkpoint_saver.py; https://github.com/huggingface/pytorch-image-models/blob/main/validate.py
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet timm==1.0.31 torch==2.14.1 torchvision==0.29.1
venv/bin/python -I - <<'END'
import sys

import timm
import torch
from timm.models import load_checkpoint

name, key = "vit_tiny_patch16_224", "head.bias"
weights = timm.create_model(name).state_dict()
trained = {**weights, key: torch.full_like(weights[key], 1)}
average = {**weights, key: torch.full_like(weights[key], 2)}
torch.save({"state_dict": trained, "state_dict_ema": average}, "checkpoint.pth")

model = timm.create_model(name, checkpoint_path="checkpoint.pth")
seen = model.head.bias[0].item()
load_checkpoint(model, "checkpoint.pth", use_ema=False)
asked = model.head.bias[0].item()
print(f"timm {timm.__version__}: a bias in a checkpoint is 1 as trained and 2 in the moving average")
print("expected: create_model 1.0, use_ema=False 1.0")
print(f"seen:     create_model {seen}, use_ema=False {asked}")
sys.exit(0 if (seen, asked) == (2, 1) else "this has changed")
END
