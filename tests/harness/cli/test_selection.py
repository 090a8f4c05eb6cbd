"""From the texts of a command line to what they mean: settings, grids, image sets, recipes, cells."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backbones import preset
from harness.cells import FOLDER, MICRO, Cell, DataSource, Preprocessing
from harness.cells.source import Columns, folder_and_columns
from harness.cli.selection import TASKS, ad_hoc, data_source, narrowed, recipe_named, select
from harness.cli.specs import settings
from harness.published.recipes import recipe_of
from harness.sweeps.expand import expand
from harness.sweeps.quickstart import FASHION


def keys(cells: list[Cell]) -> list[str]:
    return [cell.key for cell in cells]


# settings


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("window=7", 7),
        ("stages=LLSS", "LLSS"),
        ("stages=LLMS3", "LLMS3"),
        ("image_size=(192,256)", (192, 256)),
        ("image_size=192,256", (192, 256)),
        ("sr_ratios=8421", 8421),
        ("split_size=56-28-14-7", "56-28-14-7"),
        ("class_token=False", False),
        ("softmax_window=None", None),
        ("attention=focused(focusing_factor=4)", "focused(focusing_factor=4)"),
    ],
)
def test_settings_read_python_values_and_leave_other_text_as_it_is(text: str, value: object) -> None:
    assert settings([text]) == {text.partition("=")[0]: value}


def test_several_settings() -> None:
    assert settings(["window=7", "stages=LLSS"]) == {"window": 7, "stages": "LLSS"}
    assert settings([]) == {}


@pytest.mark.parametrize("text", ["window", "=7", "window=", ""])
def test_a_setting_without_name_or_value_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"cannot read --set {text!r}; write it as in --set window=7"):
        settings([text])


# ad_hoc


def test_a_grid_is_every_task_on_every_backbone_with_every_attention() -> None:
    cells = ad_hoc(["deit_micro", "swin_micro"], ["softmax", "linear(kernel_size=3)"], ["costs", "speed"], {})
    assert [(c.backbone.name, c.backbone.attention.name, c.task.name) for c in cells] == [
        (backbone, attention, task)
        for backbone in ("deit_micro", "swin_micro")
        for attention in ("softmax", "linear")
        for task in ("costs", "speed")
    ]
    assert {c.backbone.attention.options.get("kernel_size") for c in cells} == {None, 3}


def test_without_attentions_each_preset_keeps_its_own() -> None:
    cells = ad_hoc(["swin_t", "flatten_swin_t"], [], ["costs"], {})
    assert [cell.backbone for cell in cells] == [preset("swin_t"), preset("flatten_swin_t")]


def test_overrides_go_to_every_backbone() -> None:
    cells = ad_hoc(["deit_micro", "swin_micro"], ["linear"], ["costs"], {"image_size": 64, "num_classes": 3})
    assert {cell.backbone.image_size for cell in cells} == {(64, 64)}
    assert {cell.backbone.num_classes for cell in cells} == {3}


@pytest.mark.parametrize(
    ("backbone", "attention", "task", "message"),
    [
        ("swin_x", "softmax", "costs", "unknown preset 'swin_x'; did you mean swin_t"),
        ("swin_t", "focussed", "costs", "unknown attention 'focussed'; did you mean focused"),
        ("swin_t", "softmax", "cost", "unknown task 'cost'; did you mean costs"),
        ("swin_t", "focused(kernel_size=4)", "costs", "kernel_size=4 is not allowed"),
    ],
)
def test_unknown_names_in_a_grid(backbone: str, attention: str, task: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ad_hoc([backbone], [attention], [task], {})


# narrowed


def test_only_keeps_cells_whose_label_holds_one_of_the_texts() -> None:
    cells = expand("quickstart")
    assert narrowed(cells, []) == cells
    assert len(narrowed(cells, ["cswin_micro"])) == 12
    assert {c.task.name for c in narrowed(cells, ["speed", "train"])} == {"speed", "train"}
    (one,) = narrowed(cells, ["cswin_micro linear(feature_map='relu', kernel_size=None) costs"])
    assert one.backbone.attention.name == "linear"


def test_only_that_matches_nothing_is_refused_and_shows_a_name() -> None:
    cells = expand("quickstart")
    with pytest.raises(ValueError, match="--only swim cswim: no cell holds this") as error:
        narrowed(cells, ["swim", "cswim"])
    assert cells[0].label in str(error.value)


# data_source


def test_data_is_an_embedded_set_or_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_source("fashion_mnist_14k") == DataSource(name="fashion_mnist_14k")
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path)
    absolute = DataSource.folder(tmp_path / "images")
    assert data_source("images") == data_source("./images/") == data_source(str(tmp_path / "images")) == absolute


def test_data_that_is_neither_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--data nowhere: no such folder, and no image set .*fashion_mnist_14k"):
        data_source("nowhere")


# recipe


def test_a_recipe_is_the_presets_own_or_the_small_one_that_fits() -> None:
    folder = DataSource.folder("/photos")
    assert recipe_named(None, preset("flatten_swin_t"), folder, {}) == recipe_of("flatten_swin_t")
    assert recipe_named(None, preset("deit_micro"), folder, {}) == FOLDER
    assert recipe_named(None, preset("deit_micro"), FASHION, {}) == MICRO
    assert recipe_named("pvt_t", preset("deit_micro"), FASHION, {}) == recipe_of("pvt_tiny")
    changed = recipe_named("micro", preset("deit_t"), folder, {"epochs": 9, "evaluation": "squash:0.9"})
    assert changed == replace(MICRO, epochs=9, evaluation=Preprocessing("squash", 0.9))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("swim_t", {}, "unknown recipe 'swim_t'; did you mean swin_t"),
        (None, {"epoch": 3}, "unknown field of a recipe 'epoch'; did you mean epochs"),
        (None, {"evaluation": "stretch"}, "unknown kind 'stretch'; allowed: pad, short_side, squash"),
        (None, {"evaluation": "squash:wide"}, "write it as in squash or short_side:0.9"),
        (None, {"mixup_images": 8}, "mixup_images has no effect"),
    ],
)
def test_recipes_and_changes_that_are_not_there(name: str | None, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe_named(name, preset("deit_micro"), FASHION, changes)


# select


def chosen(sweep: str | None = None, **changes: Any) -> list[Cell]:
    nothing: dict[str, Any] = {"backbones": (), "attentions": (), "tasks": (), "overrides": {}}
    return select(sweep, **(nothing | changes))


def test_a_sweep_or_a_grid() -> None:
    assert keys(chosen("quickstart")) == keys(expand("quickstart"))
    assert keys(chosen(backbones=["swin_t"], tasks=["costs"])) == [Cell(preset("swin_t"), TASKS["costs"]).key]
    (narrow,) = narrowed(chosen(backbones=["swin_t", "pvt_t"], tasks=["costs"]), ["swin_t"])
    assert narrow.backbone.name == "swin_t"


@pytest.mark.parametrize(
    ("sweep", "grid"),
    [
        (None, {}),
        (None, {"backbones": ["swin_t"]}),
        (None, {"tasks": ["costs"]}),
        (None, {"overrides": {"window": 7}}),
    ],
    ids=["nothing", "no task", "no backbone", "overrides alone"],
)
def test_too_little_is_refused(sweep: str | None, grid: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="name a sweep, or --backbone and --task"):
        chosen(sweep, **grid)


@pytest.mark.parametrize(
    "grid", [{"backbones": ["swin_t"]}, {"attentions": ["linear"]}, {"tasks": ["costs"]}, {"overrides": {"window": 7}}]
)
def test_a_sweep_and_a_grid_at_once_are_refused(grid: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a sweep brings its own cells"):
        chosen("quickstart", **grid)


def test_equal_cells_of_a_grid_stand_once() -> None:
    """As those of a sweep do: presets that are aliases, attentions spelled in two ways."""
    cells = chosen(
        backbones=["pvt_t", "pvt_tiny"], attentions=["softmax", "softmax(fused=True)"], tasks=["costs", "costs"]
    )
    assert len(keys(cells)) == 1


def test_columns_are_named_behind_a_folder(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    text = f"{tmp_path}/./set,label=fine_label,image=img"
    assert data_source(text) == DataSource.folder(f"{tmp_path}/set,image=img,label=fine_label")
    assert folder_and_columns(data_source(text).root or "") == (tmp_path / "set", Columns("img", "fine_label"))
    assert data_source(f"imagenet={tmp_path}/set,label=x") == DataSource("imagenet", root="elsewhere")
    assert data_source(f"imagenet={tmp_path}/set,label=x").root == f"{tmp_path}/set,label=x"
    with pytest.raises(ValueError, match=r"no such folder"):
        data_source(f"{tmp_path}/set,column=x")
