"""Published recipes: how FLatten Transformers, their successors and their baselines were trained, by preset.

    Train(recipe_of("flatten_swin_t"), DataSource("imagenet"), device="cuda")

The numbers are those of `results/published/recipes.csv`, row by row, with their sources; a test compares every field.
What all of them share comes first, then each family as a base and what its sizes change.

What official code does differently and a recipe cannot express:

* DeiT, PVT and CSWin set the learning rate once per epoch (DeiT and PVT an epoch late); here every update sets it.
* CSWin applies Mixup before erasing; here erasing comes first, as everywhere else.
"""

from dataclasses import replace

from backbones import preset, presets
from harness.cells import Preprocessing, Recipe
from harness.cells.recipe import LR_BATCH


def _absolute(rate: float, batch: int) -> float:
    """Return what a recipe with this batch states for a rate that its source does not scale with the batch."""
    return rate * LR_BATCH / batch


SHORT_SIDE = Preprocessing("short_side", crop_pct=0.875)  # 224 of 256
SQUASH = Preprocessing("squash", crop_pct=0.875)  # 224 of 256, 384 of 438
SQUASH_WHOLE = Preprocessing("squash", crop_pct=1.0)
SHORT_SIDE_248 = Preprocessing("short_side", crop_pct=0.9)  # 224 of 248
SHORT_SIDE_WHOLE = Preprocessing("short_side", crop_pct=1.0)

# The augmentation of DeiT (arXiv 2012.12877, table 9), which all of them share. All sources also have a colour jitter
# of 0.4, which timm ignores with RandAugment; it is 0 here, since a recipe refuses values without effect.
_COMMON = Recipe(
    epochs=300,
    batch=8 * 128,
    mixup_images=128,
    lr=5e-4,
    weight_decay=0.05,
    betas=(0.9, 0.999),
    eps=1e-8,
    label_smoothing=0.1,
    mixup=0.8,
    cutmix=1.0,
    mixup_prob=1.0,
    rand_augment="rand-m9-mstd0.5-inc1",
    color_jitter=0.0,
    random_erasing=0.25,
    interpolation="bicubic",
)

# FLatten: LeapLabTHU/FLatten-Transformer@abdb115, cfgs/*.yaml, config.py, main.py, main_ema.py, README.md. All three
# rates scale with the batch. No clipping is what `CLIP_GRAD: None` means; the large PVTs clip at 1.0.

_FLATTEN_PVT = replace(
    _COMMON,
    cooldown_epochs=10,
    warmup_epochs=5,
    warmup_lr=1e-6,
    min_lr=1e-5,
    drop_path=0.1,
    evaluation=SQUASH,
)
_FLATTEN_PVT_DEEP = replace(_FLATTEN_PVT, drop_path=0.3, clip_grad=1.0)
_FLATTEN_SWIN = replace(
    _COMMON,
    warmup_epochs=20,
    warmup_lr=5e-7,
    min_lr=5e-6,
    clip_grad=5.0,
    evaluation=SQUASH,
)
_FLATTEN_CSWIN = replace(
    _COMMON,
    cooldown_epochs=10,
    warmup_epochs=20,
    warmup_lr=1e-6,
    min_lr=1e-5,
    evaluation=SQUASH,
)

_FLATTEN = {
    "flatten_pvt_t": _FLATTEN_PVT,
    "flatten_pvt_s": replace(_FLATTEN_PVT, batch=8 * 64, mixup_images=64),
    "flatten_pvt_m": replace(_FLATTEN_PVT_DEEP, batch=8 * 64, mixup_images=64),
    "flatten_pvt_b": replace(_FLATTEN_PVT_DEEP, batch=8 * 32, mixup_images=32),
    "flatten_pvt_v2_b0": _FLATTEN_PVT,
    "flatten_pvt_v2_b1": _FLATTEN_PVT,
    "flatten_pvt_v2_b2": _FLATTEN_PVT,
    "flatten_pvt_v2_b3": _FLATTEN_PVT_DEEP,
    "flatten_pvt_v2_b4": replace(_FLATTEN_PVT_DEEP, batch=8 * 64, mixup_images=64),
    "flatten_swin_t": replace(_FLATTEN_SWIN, drop_path=0.2),
    "flatten_swin_s": replace(_FLATTEN_SWIN, drop_path=0.3),
    "flatten_swin_b": replace(_FLATTEN_SWIN, batch=8 * 64, mixup_images=64, drop_path=0.5),
    "flatten_swin_b_384": replace(
        _FLATTEN_SWIN,
        epochs=30,
        warmup_epochs=5,
        batch=8 * 32,
        mixup_images=32,
        lr=2e-5,
        warmup_lr=2e-8,
        min_lr=2e-7,
        weight_decay=1e-8,
        drop_path=0.5,
        evaluation=SQUASH_WHOLE,
    ),
    "flatten_cswin_t": replace(_FLATTEN_CSWIN, batch=8 * 256, mixup_images=256, drop_path=0.2, ema_decay=0.99984),
    "flatten_cswin_s": replace(_FLATTEN_CSWIN, drop_path=0.4, ema_decay=0.99984),
    "flatten_cswin_b": replace(
        _FLATTEN_CSWIN, batch=8 * 64, mixup_images=64, weight_decay=0.1, drop_path=0.5, ema_decay=0.99982
    ),
    # Mixup and CutMix stay as strong as from scratch, unlike CSWin's own fine-tuning below.
    "flatten_cswin_b_384": replace(
        _FLATTEN_CSWIN,
        epochs=20,
        warmup_epochs=0,
        batch=8 * 32,
        mixup_images=32,
        lr=5e-6,
        warmup_lr=5e-6,
        min_lr=5e-7,
        weight_decay=1e-8,
        drop_path=0.7,
        ema_decay=0.99982,
    ),
}

# LeapLabTHU/Agent-Attention@207ce3e and LeapLabTHU/InLine@e463a6f: the configurations of their DeiTs, with the defaults
# of FLatten's Swins. Mixup is of the images of one of 8 GPUs.

_SUCCESSORS = {
    "agent_deit_t": replace(_FLATTEN_SWIN, batch=8 * 512, mixup_images=512, drop_path=0.0),
    "agent_deit_s": replace(_FLATTEN_SWIN, drop_path=0.1),
    "agent_deit_b": replace(_FLATTEN_SWIN, drop_path=0.3),
    "inline_deit_t": replace(_FLATTEN_SWIN, batch=8 * 512, mixup_images=512, drop_path=0.1),
    "inline_deit_s": replace(_FLATTEN_SWIN, drop_path=0.1),
    "inline_deit_b": replace(_FLATTEN_SWIN, batch=8 * 64, mixup_images=64, drop_path=0.1),
}

# The originals. In DeiT, PVT and CSWin only lr follows the batch: warm-up and lowest rate are absolute. They are stated
# such that `effective` gives the official values at the recipe's own batch; at another batch they scale with it.

# facebookresearch/deit: main.py, README_deit.md. Its 10 cooldown epochs are an argument that the loop does not run. It
# keeps a moving average (0.99996) too, but evaluates the weights as trained alone, so none is asked for here.
_DEIT = replace(
    _COMMON,
    warmup_epochs=5,
    batch=4 * 256,
    mixup_images=256,
    warmup_lr=_absolute(1e-6, 4 * 256),
    min_lr=_absolute(1e-5, 4 * 256),
    drop_path=0.1,
    repeated_augmentation=3,
    evaluation=SHORT_SIDE,
)
# whai362/PVT@57e2dfa classification/: configs, main.py. As in DeiT, from which its main.py comes, the cooldown is not
# run, and augmentation is repeated three times, since nothing switches that default off.
_PVT = replace(
    _COMMON,
    warmup_epochs=5,
    warmup_lr=_absolute(1e-6, 8 * 128),
    min_lr=_absolute(1e-5, 8 * 128),
    drop_path=0.1,
    repeated_augmentation=3,
    evaluation=SHORT_SIDE,
)
_PVT_DEEP = replace(_PVT, drop_path=0.3, clip_grad=1.0)
# microsoft/Swin-Transformer: config.py, configs/swin/*.yaml, get_started.md, data/build.py. All three rates scale.
_SWIN = replace(
    _COMMON,
    warmup_epochs=20,
    warmup_lr=5e-7,
    min_lr=5e-6,
    clip_grad=5.0,
    evaluation=SHORT_SIDE,
)
# microsoft/CSWin-Transformer@f111ae2: commands of README.md, defaults of main.py, finetune.py and models/cswin.py. The
# lr of a command is absolute as well: 2e-3 for 2048 images and 1e-3 for 1024 are both 5e-4 for 512.
_CSWIN = replace(
    _COMMON,
    cooldown_epochs=10,
    warmup_epochs=20,
    batch=8 * 256,
    mixup_images=256,
    lr=_absolute(2e-3, 8 * 256),
    warmup_lr=_absolute(1e-6, 8 * 256),
    min_lr=_absolute(1e-5, 8 * 256),
    interpolation="random",
    ema_decay=0.99984,
    evaluation=SHORT_SIDE_248,
)

_ORIGINALS = {
    "deit_t": _DEIT,
    "deit_s": _DEIT,
    "deit_b": replace(_DEIT, batch=16 * 64, mixup_images=64),
    "pvt_tiny": _PVT,
    "pvt_small": _PVT,
    "pvt_medium": _PVT_DEEP,
    "pvt_large": _PVT_DEEP,
    "pvt_v2_b0": _PVT,
    "pvt_v2_b1": _PVT,
    "pvt_v2_b2": _PVT,
    "pvt_v2_b2_li": _PVT,
    "pvt_v2_b3": _PVT_DEEP,
    "pvt_v2_b4": _PVT_DEEP,
    "pvt_v2_b5": _PVT_DEEP,
    "swin_t": replace(_SWIN, drop_path=0.2),
    "swin_s": replace(_SWIN, drop_path=0.3),
    # --accumulation-steps 2: an update of two times 8 GPUs times 64 images.
    "swin_b": replace(_SWIN, batch=2 * 8 * 64, mixup_images=64, drop_path=0.5),
    "swin_b_384": replace(
        _SWIN,
        epochs=30,
        warmup_epochs=5,
        batch=2 * 8 * 64,
        mixup_images=64,
        lr=2e-5,
        warmup_lr=2e-8,
        min_lr=2e-7,
        weight_decay=1e-8,
        drop_path=0.5,
        # Both sides to 384: the one original that squashes.
        evaluation=SQUASH_WHOLE,
    ),
    "cswin_t": replace(_CSWIN, drop_path=0.2),
    "cswin_s": replace(_CSWIN, drop_path=0.4),
    "cswin_b": replace(
        _CSWIN,
        batch=8 * 128,
        mixup_images=128,
        lr=_absolute(1e-3, 8 * 128),
        warmup_lr=_absolute(1e-6, 8 * 128),
        min_lr=_absolute(1e-5, 8 * 128),
        weight_decay=0.1,
        drop_path=0.5,
        ema_decay=0.99992,
    ),
    "cswin_b_384": replace(
        _CSWIN,
        epochs=20,
        warmup_epochs=0,
        batch=8 * 32,
        mixup_images=32,
        lr=_absolute(5e-6, 8 * 32),
        warmup_lr=_absolute(1e-6, 8 * 32),
        min_lr=_absolute(5e-7, 8 * 32),
        weight_decay=1e-8,
        drop_path=0.7,
        mixup=0.1,
        cutmix=0.1,
        ema_decay=0.9998,
        evaluation=SHORT_SIDE_WHOLE,
    ),
}

# Successors of FLatten whose recipe is not known here, and the model of FLatten on the same backbone.
# FLatten calls its large PVT b.
_SAME_BACKBONE = {
    "agent_pvt_t": "flatten_pvt_t",
    "agent_pvt_s": "flatten_pvt_s",
    "agent_pvt_m": "flatten_pvt_m",
    "agent_pvt_l": "flatten_pvt_b",
    "agent_swin_t": "flatten_swin_t",
    "agent_swin_s": "flatten_swin_s",
    "agent_swin_b": "flatten_swin_b",
    "agent_cswin_t": "flatten_cswin_t",
    "agent_cswin_s": "flatten_cswin_s",
    "agent_cswin_b": "flatten_cswin_b",
    "agent_cswin_b_384": "flatten_cswin_b_384",
    "agent_swin_b_384": "flatten_swin_b_384",
    "inline_pvt_t": "flatten_pvt_t",
    "inline_pvt_s": "flatten_pvt_s",
    "inline_pvt_m": "flatten_pvt_m",
    "inline_pvt_l": "flatten_pvt_b",
    "inline_swin_t": "flatten_swin_t",
    "inline_swin_s": "flatten_swin_s",
    "inline_swin_b": "flatten_swin_b",
    "inline_cswin_t": "flatten_cswin_t",
    "inline_cswin_s": "flatten_cswin_s",
    "inline_cswin_b": "flatten_cswin_b",
    "inline_cswin_b_384": "flatten_cswin_b_384",
    "pola_pvt_t": "flatten_pvt_t",
    "pola_pvt_s": "flatten_pvt_s",
    "pola_swin_t": "flatten_swin_t",
    "pola_swin_s": "flatten_swin_s",
    "pola_swin_b": "flatten_swin_b",
}

RECIPES: dict[str, Recipe] = {
    **_ORIGINALS,
    **_FLATTEN,
    **_SUCCESSORS,
    "flatten_deit_t": _ORIGINALS["deit_t"],
    "flatten_deit_s": _ORIGINALS["deit_s"],
    "flatten_deit_b": _ORIGINALS["deit_b"],
    "flatten_pvt_v2_b5": _FLATTEN["flatten_pvt_v2_b4"],
    **{name: _FLATTEN[of_flatten] for name, of_flatten in _SAME_BACKBONE.items()},
}
"""By preset, for every published one: from scratch, except those in FINE_TUNED."""

ASSUMED: dict[str, str] = {
    "flatten_deit_t": "recipe not published; that of DeiT-T, since the paper says it follows each baseline",
    "flatten_deit_s": "model and recipe not published; recipe of DeiT-S",
    "flatten_deit_b": "model and recipe not published; recipe of DeiT-B",
    "flatten_pvt_v2_b5": "model and recipe not published; recipe of FLatten-PVTv2-B4",
    **{
        name: f"recipe not known here; that of {of_flatten}, on the same backbone"
        for name, of_flatten in _SAME_BACKBONE.items()
    },
}
"""Presets without a recipe of their own, and why they have this one: to be shown with numbers made with it."""

FINE_TUNED: dict[str, str] = {
    "swin_b_384": "swin_b",
    "cswin_b_384": "cswin_b",
    "flatten_swin_b_384": "flatten_swin_b",
    "flatten_cswin_b_384": "flatten_cswin_b",
    "agent_swin_b_384": "agent_swin_b",
    "agent_cswin_b_384": "agent_cswin_b",
    "inline_cswin_b_384": "inline_cswin_b",
}
"""Presets whose recipe fine-tunes, and the preset from whose weights at 224 pixels it starts.

With learning rates around 1e-5 training from scratch leads nowhere. CSWin-B starts from the moving average of CSWin-B;
FLatten's source does not say which weights it uses, so FLatten-CSWin-B is assumed to do as CSWin-B does.
"""


def recipe_of(name: str) -> Recipe:
    """Return the recipe of a preset, whatever fields of the spec were replaced: an ablation is trained like its preset.

    Raises:
        ValueError: for a preset without a recipe, such as the micro ones, or an unknown name.
    """
    name = preset(name).name
    if name not in RECIPES:
        without = [preset for preset in presets() if preset not in RECIPES]
        raise ValueError(f"no recipe was published for {name}; all presets have one but {', '.join(without)}")
    return RECIPES[name]
