"""Official weights: files are recognised by name, and evaluated as the recipe that made them says."""

from pathlib import Path

import pytest

import backbones
from harness.published.official import OFFICIAL, find_official
from harness.published.recipes import RECIPES, recipe_of


@pytest.mark.parametrize("preset", OFFICIAL)
def test_preprocessing_is_that_of_the_recipe(preset: str) -> None:
    assert OFFICIAL[preset].preprocessing == recipe_of(preset).evaluation


def test_official_are_all_originals_and_what_flatten_published() -> None:
    assert set(OFFICIAL) <= set(backbones.presets())
    originals = {name for name in RECIPES if not name.startswith(("flatten_", "agent_", "inline_", "pola_"))}
    assert {name for name in OFFICIAL if not name.startswith("flatten_")} == originals
    assert sum(name.startswith("flatten_") for name in OFFICIAL) == 7


def test_the_average_counts_where_the_repository_evaluates_it() -> None:
    assert {name for name, official in OFFICIAL.items() if official.ema} == {
        name for name in OFFICIAL if name.startswith("cswin_")
    }


def test_a_name_belongs_to_one_preset() -> None:
    names = [name.lower().replace("-", "_") for official in OFFICIAL.values() for name in official.files]
    assert len(names) == len(set(names))


def test_files_are_found_by_their_published_names(tmp_path: Path) -> None:
    for name in (
        "deit_tiny_patch16_224-a1311bcf.pth",
        "swin_base_patch4_window7_224.pth",
        "swin_base_patch4_window12_384.pth",
        "cswin_base_384.pth",
        "pvt_v2_b2_li.pth",
        "FLatten-Swin-T.pth",
        "flatten_swin_b_384.pth",
        # None of ours:
        "deit_tiny_distilled_patch16_224-b40b3cf7.pth",
        "swin_base_patch4_window7_224_22k.pth",
        "swin_small_patch4_window7_224.pth.partial",
        "README.md",
    ):
        (tmp_path / name).touch()
    (tmp_path / "swin_s.pth").mkdir()
    found, missing = find_official(tmp_path)
    assert {preset: path.name for preset, path in found.items()} == {
        "deit_t": "deit_tiny_patch16_224-a1311bcf.pth",
        "pvt_v2_b2_li": "pvt_v2_b2_li.pth",
        "swin_b": "swin_base_patch4_window7_224.pth",
        "swin_b_384": "swin_base_patch4_window12_384.pth",
        "cswin_b_384": "cswin_base_384.pth",
        "flatten_swin_t": "FLatten-Swin-T.pth",
        "flatten_swin_b_384": "flatten_swin_b_384.pth",
    }
    assert missing == [preset for preset in OFFICIAL if preset not in found]


def test_every_listed_name_is_found(tmp_path: Path) -> None:
    for position in range(max(len(official.files) for official in OFFICIAL.values())):
        folder = tmp_path / str(position)
        folder.mkdir()
        named = {preset: official.files[position] for preset, official in OFFICIAL.items() if official.files[position:]}
        for name in named.values():
            (folder / name).touch()
        assert {preset: path.name for preset, path in find_official(folder)[0].items()} == named


def test_two_files_of_one_preset_are_one_clear_line(tmp_path: Path) -> None:
    for name in ("swin_t.pth", "swin_tiny_patch4_window7_224.pth"):
        (tmp_path / name).touch()
    with pytest.raises(
        ValueError,
        match=r"2 files for swin_t, but only one may be there: swin_t.pth, swin_tiny_patch4_window7_224.pth$",
    ):
        find_official(tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist or is not a folder"):
        find_official(tmp_path / "nowhere")
