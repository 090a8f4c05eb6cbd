"""list and show: what there is, and what a preset is with other values; what is refused in one line."""

import pytest

import backbones
from harness.sweeps.expand import SWEEPS
from tests.harness.command_line import Ask, refused

# list


def test_lists(ask: Ask) -> None:
    kinds = {
        "attentions": ["softmax(fused=True)", "focused(focusing_factor=3, kernel_size=5, positional_encoding=True)"],
        "backbones": backbones.presets(),
        "sweeps": list(SWEEPS),
        "tasks": ["costs", "speed", "train", "evaluate"],
    }
    everything = ask("list").out
    for kind, names in kinds.items():
        answer = ask(f"list {kind}")
        assert (answer.status, answer.err) == (0, "")
        assert all(name in answer.out for name in names)
        assert answer.out in everything


# show


def test_show(ask: Ask) -> None:
    answer = ask("show flatten_swin_t --attention 'focused(kernel_size=3)' --set window=7")
    assert (answer.status, answer.err) == (0, "")
    assert answer.out.split()[:3] == ["stage", "map", "tokens"]
    assert "focused(focusing_factor=3, kernel_size=3, positional_encoding=True)" in answer.out
    assert "Shift mask of focused in shifted windows: ignored" in answer.out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("show swin_x", "unknown preset 'swin_x'; did you mean swin_t or swin_s or swin_b?"),
        ("show swin_t --attention fokused", "unknown attention 'fokused'; did you mean focused? (allowed: "),
        (
            "show swin_t --attention 'focused(focusing=4)'",
            "unknown option of focused 'focusing'; did you mean focusing_factor? (allowed: focusing_factor, kernel",
        ),
        ("show swin_t --attention 'focused(4)'", "cannot read attention 'focused(4)'; write it as in focused("),
        ("show swin_t --attention ''", "cannot read attention ''"),
        ("show swin_t --attention 'focused(kernel_size=4)'", "kernel_size=4 is not allowed"),
        ("show swin_t --attention 'focused(kernel_size=x)'", "kernel_size='x' is not allowed"),
        ("show swin_t --attention 'softmax(fused=1)'", "fused=1 is not allowed; it takes bool"),
        ("show swin_t --set windw=7", "unknown override of swin_t (swin) 'windw'; did you mean window?"),
        ("show pvt_t --set window=7", "unknown override of pvt_tiny (pvt) 'window'"),
        ("show swin_t --set window", "cannot read --set 'window'; write it as in --set window=7"),
        ("list backbone", "unknown kind 'backbone'; did you mean backbones?"),
    ],
)
def test_unknown_names_are_refused(ask: Ask, line: str, said: str) -> None:
    assert said in refused(ask, line)


@pytest.mark.parametrize(
    ("preset", "value"),
    [
        ("swin_t", "name=other"),
        ("swin_t", "attention=3"),
        ("swin_t", "stages=5"),
        ("swin_t", "stages=LLX"),
        ("swin_t", "stages=None"),
        ("swin_t", "num_classes=many"),
        ("swin_t", "num_classes=0"),
        ("swin_t", "in_channels=3.5"),
        ("swin_t", "image_size=large"),
        ("swin_t", "image_size=(224,224,3)"),
        ("swin_t", "window=x"),
        ("swin_t", "window=2.5"),
        ("swin_t", "window=None"),
        ("swin_t", "window=0"),
        ("swin_t", "softmax_window=x"),
        ("swin_t", "dim=x"),
        ("swin_t", "dim=0"),
        ("swin_t", "heads=x"),
        ("swin_t", "heads=(3,6)"),
        ("swin_t", "heads=None"),
        ("swin_t", "block_counts=None"),
        ("swin_t", "block_counts=(2,2,0,2)"),
        ("swin_t", "patch_size=0"),
        ("swin_t", "mlp_ratio=x"),
        ("swin_t", "honour_shift_mask=maybe"),
        ("pvt_t", "sr_ratios=None"),
        ("pvt_t", "sr_ratios=abcd"),
        ("pvt_t", "dims=(64,128)"),
        ("pvt_t", "mlp_ratios=x"),
        ("pvt_t", "class_token=perhaps"),
        ("pvt_v2_b2_li", "pooled_keys=perhaps"),
        ("cswin_t", "split_size=0"),
        ("cswin_t", "split_size=x"),
        ("deit_t", "depth=x"),
        ("deit_t", "depth=0"),
        ("deit_t", "patch_size=None"),
        ("deit_t", "patch_size=0"),
        ("deit_t", "mlp_ratio=x"),
    ],
)
def test_values_of_the_wrong_kind_are_refused(ask: Ask, preset: str, value: str) -> None:
    assert value.partition("=")[0] in refused(ask, f"show {preset} --set '{value}'")


@pytest.mark.parametrize("text", ["false", "False", "no", "0"])
def test_a_text_for_no_never_means_yes(ask: Ask, text: str) -> None:
    """Refused, or read as False; a text that is not empty is true to Python."""
    answer = ask(f"show flatten_swin_t --set window=7 honour_shift_mask={text}")
    assert answer.status == 2 or "Shift mask of focused in shifted windows: ignored" in answer.out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("show deit_t --set image_size=225", "multiples of 16 (near: 224x224)"),
        ("show pvt_t --set image_size=100", "multiples of 32 (near: 96x96)"),
        ("show swin_t --set image_size=225", "multiples of 4 (near: 224x224)"),
        ("show swin_t --set image_size=200", "7x7 windows do not tile"),
        ("show cswin_t --set image_size=200", "stripes of 2 do not tile"),
        ("show swin_t --set dim=97", "3 heads do not divide 97 channels"),
        ("show deit_t --set heads=5", "5 heads do not divide 192 channels"),
        ("show pvt_t --set sr_ratios=3333", "a spatial reduction of 3 does not divide; allowed there: 1, 2, 4,"),
        ("show swin_t --set window=9", "9x9 windows do not tile; allowed for window there: 1, 2, 4, 7, 8, 14, 28, 56"),
    ],
)
def test_what_does_not_divide_is_refused(ask: Ask, line: str, said: str) -> None:
    assert said in refused(ask, line)
