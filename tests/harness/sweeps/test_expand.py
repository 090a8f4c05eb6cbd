"""Sweeps that come with the project, and a user's own."""

from pathlib import Path

import pytest

import attentions
import backbones
import results
from harness.cells import RunWeights
from harness.published.models import spec_of
from harness.published.recipes import FINE_TUNED, RECIPES, recipe_of
from harness.sweeps.atlas import HOSTS
from harness.sweeps.expand import SWEEPS, expand
from results import tables


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_expands_to_distinct_cells(name):
    cells = expand(name)
    assert len({cell.key for cell in cells}) == len(cells) > 0
    assert SWEEPS[name].__doc__


def test_paper_costs_are_of_every_preset():
    assert [cell.backbone.name for cell in expand("paper_costs")] == backbones.presets()


def test_quickstart_trains_four_attentions_in_two_families():
    cells = expand("quickstart")
    assert {cell.task.name for cell in cells} == {"costs", "speed", "train"}
    assert len({cell.backbone.family for cell in cells}) == 2
    assert len({str(cell.backbone.attention) for cell in cells}) == 4
    assert len(cells) == 24


@pytest.mark.parametrize(
    ("sweep", "values"),
    [("ablation_focusing_factor", [2, 3, 4, 8, 32]), ("ablation_dwc", [None, 3, 5, 7])],
)
def test_ablations_take_the_values_they_promise(sweep, values):
    option = "focusing_factor" if "factor" in sweep else "kernel_size"
    for name in ("flatten_swin_t", "swin_micro"):
        found = [cell.backbone.attention.options[option] for cell in expand(sweep) if cell.backbone.name == name]
        assert list(dict.fromkeys(found)) == values


def of_the_paper(preset: str) -> bool:
    """Whether it is FLatten's, or what FLatten is compared with, and not one of its successors."""
    return not preset.startswith(("agent_", "inline_", "pola_"))


def test_paper_accuracy_trains_every_published_row_with_a_top1():
    cells = expand("paper_accuracy")
    rows = tables.published_rows("flatten")
    rows = rows[(rows["primary"] == "1") & (rows["top1"] != "")]
    without_recipe = (rows["model"] == "DeiT-B") & (rows["resolution"] == 384)
    assert without_recipe.sum() == 1
    specs = [cell.backbone for cell in cells]
    assert {spec_of(target) for target in tables.targets(rows[~without_recipe])} == set(specs)
    assert len(specs) == len(set(specs))
    unpublished = {"flatten_deit_s", "flatten_deit_b", "flatten_pvt_v2_b5"}
    assert {spec.name for spec in specs} == {name for name in RECIPES if of_the_paper(name)} - unpublished
    assert sum(spec.name == "flatten_swin_t" for spec in specs) == 1 + 4 + 3 + 3, "and p, windows and stages"
    assert sum(spec.name == "flatten_deit_t" for spec in specs) == 1 + 2, "and linear, without and with focusing"


def test_paper_accuracy_fine_tunes_from_its_own_runs_at_224_pixels_and_cswin_from_their_averages():
    by_key = {cell.key: cell for cell in expand("paper_accuracy")}
    following = [cell for cell in by_key.values() if cell.needs]
    assert {cell.backbone.name for cell in following} == {name for name in FINE_TUNED if of_the_paper(name)}
    for cell in following:
        start = by_key[cell.needs[0]]
        assert start.backbone == backbones.preset(FINE_TUNED[cell.backbone.name])
        weights = cell.training.weights
        assert isinstance(weights, RunWeights)
        assert (weights.which, weights.strict) == ("last", True)
        assert weights.ema == ("cswin" in cell.backbone.name)


def test_paper_accuracy_trains_on_imagenet_by_the_recipe_of_the_preset():
    for cell in expand("paper_accuracy"):
        assert cell.task.name == "train"
        assert cell.training.recipe == recipe_of(cell.backbone.name)
        assert (cell.training.data.name, cell.training.data.root) == ("imagenet", None)
        assert cell.training.device == "cuda"
        assert cell.backbone.num_classes == 1000


def test_a_sweep_of_the_users_own(tmp_path):
    path = tmp_path / "my_sweeps.py"
    path.write_text(
        "from backbones import preset\n"
        "from harness.cells import Cell, Costs\n"
        "def mine():\n"
        "    return [Cell(preset('deit_micro', attention=a), Costs()) for a in ('softmax', 'linear', 'softmax')]\n"
        "def wrong():\n"
        "    return 3\n"
        "def empty():\n"
        "    return []\n"
    )
    assert [cell.backbone.attention.name for cell in expand(f"{path}:mine")] == ["softmax", "linear"]
    for function, message in (
        ("wrong", "does not return a list of cells"),
        ("empty", "has no cells"),
        ("yours", "has no function 'yours'"),
    ):
        with pytest.raises(ValueError, match=message):
            expand(f"{path}:{function}")


def test_sweeps_that_cannot_be_found_are_one_clear_line(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("import nowhere_to_be_found")
    for name, message in (
        ("quikstart", "unknown sweep 'quikstart'; did you mean quickstart"),
        ("nowhere.py:mine", "there is no Python file 'nowhere\\.py'"),
        (f"{broken}:mine", "cannot be loaded: ModuleNotFoundError"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            expand(name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", SWEEPS)
def test_each_cell_of_a_sweep_has_a_label_of_its_own(name: str) -> None:
    labels = [cell.label for cell in expand(name)]
    assert len(set(labels)) == len(labels)


def test_the_committed_runs_are_those_of_the_sweep() -> None:
    """A change of the recipe, or of what a cell is, makes them runs of something else."""
    records, _ = results.read_all(Path(results.__file__).parent / "fashion_mnist")
    assert {record.key for record in records} == {cell.key for cell in expand("fashion_mnist")}


def test_the_atlas_has_every_pair_that_is_possible() -> None:
    pairs = {(cell.backbone.name, cell.backbone.attention.name) for cell in expand("atlas")}
    missing = {(host, name) for host in HOSTS for name in attentions.names()} - pairs
    assert {name for _, name in missing} == {"xca"}, "its keys are as many as its queries, unlike those of a PVT"
    assert {backbones.preset(host).family for host, _ in missing} == {"pvt", "pvt_v2"}
    families = {backbones.preset(name).family for name in backbones.presets()}
    assert {backbones.preset(host).family for host in HOSTS} == families
