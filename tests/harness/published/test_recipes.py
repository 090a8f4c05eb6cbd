"""Published recipes: every field is that of results/published/recipes.csv, and every published preset has one."""

from typing import Any

import pandas as pd
import pytest

import backbones
from harness.cells import Recipe
from harness.images.transforms import eval_transform
from harness.published.recipes import ASSUMED, FINE_TUNED, RECIPES, recipe_of
from results.tables.reproduction import PUBLISHED

TABLE = pd.read_csv(PUBLISHED / "recipes.csv", dtype=str, keep_default_na=False).set_index("config")
CONFIGS = {
    "deit_t": "deit_tiny_patch16_224",
    "deit_s": "deit_small_patch16_224",
    "deit_b": "deit_base_patch16_224",
    "swin_t": "swin_tiny_patch4_window7_224",
    "swin_s": "swin_small_patch4_window7_224",
    "swin_b": "swin_base_patch4_window7_224",
    "swin_b_384": "swin_base_patch4_window12_384_finetune",
    "cswin_t": "CSWin_64_12211_tiny_224",
    "cswin_s": "CSWin_64_24322_small_224",
    "cswin_b": "CSWin_96_24322_base_224",
    "cswin_b_384": "CSWin_96_24322_base_384",
}
DEFAULTS = {
    "pvt": "defaults of PVT main.py",
    "cswin": "defaults of CSWin main.py",
    "cswin_b_384": "defaults of CSWin finetune.py",
}
ON_TABLE = [name for name in RECIPES if name not in ASSUMED]


def row_of(name: str) -> dict[str, str]:
    """The row of a preset, with what it leaves blank from the defaults of its repository."""
    config = f"{name}.yaml" if f"{name}.yaml" in TABLE.index else f"baseline {CONFIGS.get(name, name)}"
    row: dict[Any, str] = TABLE.loc[config].to_dict()
    defaults = DEFAULTS.get(name) or DEFAULTS.get(name.split("_")[0])
    if defaults is None:
        return row
    rest = TABLE.loc[defaults].to_dict()
    return {column: text or rest[column] for column, text in row.items()} | {"note": row["note"] + rest["note"]}


def number(text: str) -> float:
    return float(text.split()[0])  # "5e-06 (lr as passed)", "0.25 pixel x1"


def optional(text: str) -> float | None:
    return None if text in ("", "none") else float(text)


def of_row(row: dict[str, str]) -> dict[str, Any]:
    return {
        "epochs": int(row["epochs"]),
        # The column cooldown_epochs is an argument, which the loop of PVT does not look at.
        "cooldown_epochs": int(row["total_epochs"]) - int(row["epochs"]),
        "warmup_epochs": float(row["warmup_epochs"]),
        "batch": int(row["total_batch"]),
        "mixup_images": int(row["batch_per_gpu"]),
        "repeated_augmentation": 3 if "repeated augmentation, 3 times" in row["note"] else 1,
        "betas": tuple(map(float, row["betas"].split("/"))),
        "eps": float(row["eps"]),
        "weight_decay": float(row["weight_decay"]),
        "drop_path": float(row["drop_path"]),
        "clip_grad": optional(row["clip_grad"]),
        "ema_decay": optional(row["ema_decay"]),
        "rand_augment": row["randaugment"],
        "random_erasing": number(row["random_erasing"]),
        "mixup": float(row["mixup"]),
        "cutmix": float(row["cutmix"]),
        "mixup_prob": float(row["mixup_prob"]),
        "label_smoothing": float(row["label_smoothing"]),
        "interpolation": row["interpolation"],
        # All sources have 0.4, which timm drops beside RandAugment.
        "color_jitter": 0.0,
        "augmentation": "imagenet",
        "input": "pillow",
    }


@pytest.mark.parametrize("name", ON_TABLE)
def test_every_field_is_that_of_the_table(name: str) -> None:
    row, recipe = row_of(name), recipe_of(name)
    expected = of_row(row)
    assert {field: getattr(recipe, field) for field in expected} == expected
    for field in ("lr", "warmup_lr", "min_lr"):
        published = number(row["lr_effective" if field == "lr" else f"{field}_effective"])
        assert recipe.effective(getattr(recipe, field)) == pytest.approx(published, rel=1e-12), field
    rest = set(Recipe.__dataclass_fields__) - set(expected)
    assert rest == {"lr", "warmup_lr", "min_lr", "evaluation"}, "a further field is not compared yet"
    assert (row["optimizer"], row["lr_schedule"], row["switch_prob"]) == ("adamw", "cosine", "0.5")
    assert (row["init_from"] == "224 checkpoint") == (name in FINE_TUNED)


@pytest.mark.parametrize("name", [name for name in ON_TABLE if row_of(name)["val_transform"]])
def test_evaluation_resizes_and_crops_as_the_table_says(name: str) -> None:
    text, evaluation = row_of(name)["val_transform"], recipe_of(name).evaluation
    size = backbones.preset(name).image_size
    transform: Any = eval_transform(size, 3, evaluation)
    resize, crop, _ = transform.transforms[0].transforms
    assert (evaluation.kind == "squash") == ("squash" in text)
    resized = f"({','.join(map(str, resize.size))})" if evaluation.kind == "squash" else f"short side to {resize.size}"
    assert resized in text
    assert f"centre crop {size[0]}" in text or "no crop" in text
    assert tuple(crop.size) == size
    assert evaluation.interpolation == resize.interpolation.value == "bicubic"


def test_what_the_table_leaves_out_is_evaluated_as_flatten_is() -> None:
    """As `results/published/README.md` says of Agent Attention, InLine and PolaFormer."""
    left_out = {name for name in ON_TABLE if not row_of(name)["val_transform"]}
    assert left_out == {f"{name}_deit_{size}" for name in ("agent", "inline") for size in "tsb"}
    assert {recipe_of(name).evaluation for name in left_out} == {recipe_of("flatten_swin_t").evaluation}


def test_every_published_preset_has_a_recipe() -> None:
    assert set(RECIPES) == {name for name in backbones.presets() if not name.endswith("_micro")}


def test_assumed_recipes_are_those_of_a_sibling() -> None:
    assert recipe_of("flatten_deit_t") == recipe_of("deit_t")
    assert recipe_of("flatten_deit_s") == recipe_of("deit_s")
    assert recipe_of("flatten_deit_b") == recipe_of("deit_b")
    assert recipe_of("flatten_pvt_v2_b5") == recipe_of("flatten_pvt_v2_b4")
    assert {name for name in ASSUMED if name.startswith("flatten_")} == {
        "flatten_deit_t",
        "flatten_deit_s",
        "flatten_deit_b",
        "flatten_pvt_v2_b5",
    }
    for name in ("agent_pvt_l", "inline_pvt_l"):
        assert recipe_of(name) == recipe_of("flatten_pvt_b")
        assert ASSUMED[name] == "recipe not known here; that of flatten_pvt_b, on the same backbone"
    assert recipe_of("pola_swin_t") == recipe_of("flatten_swin_t")


def test_fine_tuning_starts_from_the_same_model_at_224_pixels() -> None:
    assert set(FINE_TUNED) == {name for name in RECIPES if name.endswith("_384")}
    for name, start in FINE_TUNED.items():
        assert backbones.preset(start).image_size == (224, 224)
        assert name == f"{start}_384"


def test_aliases() -> None:
    assert recipe_of("pvt_t") == recipe_of("pvt_tiny")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("swin_micro", "no recipe was published for swin_micro; all presets have one but deit_micro, pvt_micro"),
        ("swim_t", "unknown preset 'swim_t'; did you mean swin_t"),
    ],
)
def test_without_a_recipe(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        recipe_of(name)
    assert "\n" not in str(error.value)
