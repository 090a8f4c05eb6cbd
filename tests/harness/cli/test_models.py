"""list and show: what there is, and what a preset is with other values; what is refused in one line."""

import inspect

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
    listed = [line.split(maxsplit=1) for line in ask("list sweeps").out.splitlines()[1:]]
    assert sorted(listed) == sorted([name, str(inspect.getdoc(each)).splitlines()[0]] for name, each in SWEEPS.items())


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
        (
            "show swin_x",
            "unknown preset 'swin_x'; did you mean swin_t or swin_s or swin_b? (allowed: the 82 of `attention-bench "
            "list backbones`)\n",
        ),
        ("show swin_t --attention fokused", "unknown attention 'fokused'; did you mean focused? (allowed: "),
        (
            "show swin_t --attention 'focused(focusing=4)'",
            "unknown option of focused 'focusing'; did you mean focusing_factor? (allowed: focusing_factor, kernel",
        ),
        ("show swin_t --attention 'focused(4)'", "cannot read attention 'focused(4)'; write it as in focused("),
        ("show swin_t --attention ''", "cannot read attention ''; write it as in focused("),
        ("show swin_t --attention 'focused(kernel_size=4)'", "kernel_size=4 is not allowed; it takes None or an odd "),
        ("show swin_t --attention 'focused(kernel_size=x)'", "kernel_size='x' is not allowed; it takes int | None"),
        ("show swin_t --attention 'softmax(fused=1)'", "fused=1 is not allowed; it takes bool"),
        ("show swin_t --set windw=7", "unknown override of swin_t (swin) 'windw'; did you mean window?"),
        ("show pvt_t --set window=7", "unknown override of pvt_tiny (pvt) 'window'"),
        ("show swin_t --set window", "cannot read --set 'window'; write it as in --set window=7"),
        ("list backbone", "unknown kind 'backbone'; did you mean backbones?"),
    ],
)
def test_unknown_names_are_refused(ask: Ask, line: str, said: str) -> None:
    assert said in refused(ask, line)


NUMBER, NUMBERS, FOUR = "a number from 1 up", "numbers from 1 up", "4 numbers from 1 up"
SIZE = "a number of pixels, or (height, width)"


@pytest.mark.parametrize(
    ("preset", "name", "value", "allowed"),
    [
        ("swin_t", "stages", 5, "a string"),
        ("swin_t", "stages", "LLX", "4 letters L, S or M, and after an M also the number of"),
        ("swin_t", "stages", None, "a string"),
        ("swin_t", "num_classes", "many", NUMBER),
        ("swin_t", "num_classes", 0, NUMBER),
        ("swin_t", "in_channels", 3.5, NUMBER),
        ("swin_t", "image_size", "large", SIZE),
        ("swin_t", "image_size", (224, 224, 3), SIZE),
        ("swin_t", "window", "x", NUMBER),
        ("swin_t", "window", 2.5, NUMBER),
        ("swin_t", "window", None, NUMBER),
        ("swin_t", "window", 0, NUMBER),
        ("swin_t", "softmax_window", "x", NUMBER),
        ("swin_t", "dim", "x", NUMBER),
        ("swin_t", "dim", 0, NUMBER),
        ("swin_t", "heads", "x", FOUR),
        ("swin_t", "heads", (3, 6), FOUR),
        ("swin_t", "heads", None, FOUR),
        ("swin_t", "block_counts", None, NUMBERS),
        ("swin_t", "block_counts", (2, 2, 0, 2), NUMBERS),
        ("swin_t", "patch_size", 0, NUMBER),
        ("swin_t", "mlp_ratio", "x", NUMBER),
        ("swin_t", "honour_shift_mask", "maybe", "True or False"),
        ("pvt_tiny", "sr_ratios", None, FOUR),
        ("pvt_tiny", "sr_ratios", "abcd", FOUR),
        ("pvt_tiny", "dims", (64, 128), FOUR),
        ("pvt_tiny", "mlp_ratios", "x", FOUR),
        ("pvt_tiny", "class_token", "perhaps", "True or False"),
        ("pvt_v2_b2_li", "pooled_keys", "perhaps", "True or False"),
        ("cswin_t", "split_size", 0, FOUR),
        ("cswin_t", "split_size", "x", FOUR),
        ("deit_t", "depth", "x", NUMBER),
        ("deit_t", "depth", 0, NUMBER),
        ("deit_t", "patch_size", None, NUMBER),
        ("deit_t", "patch_size", 0, NUMBER),
        ("deit_t", "mlp_ratio", "x", NUMBER),
    ],
)
def test_values_of_the_wrong_kind_are_refused(ask: Ask, preset: str, name: str, value: object, allowed: str) -> None:
    said = refused(ask, f"show {preset} --set '{name}={value}'")
    assert f"{name}={value!r} is not allowed; it takes {allowed}" in said
    if name != "image_size":  # which is the same for every preset
        assert said.startswith(f"{preset}: ")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("name=other", "unknown override of swin_t (swin) 'name' (allowed: attention, stages, image_size, num_classes"),
        ("attention=3", "cannot read attention '3'; write it as in focused(focusing_factor=4"),
    ],
)
def test_a_name_or_an_attention_that_is_none_is_refused(ask: Ask, value: str, said: str) -> None:
    assert said in refused(ask, f"show swin_t --set {value}")


@pytest.mark.parametrize("text", ["false", "no", "0"])
def test_a_text_for_no_never_means_yes(ask: Ask, text: str) -> None:
    """A text that is not empty is true to Python."""
    said = refused(ask, f"show flatten_swin_t --set window=7 honour_shift_mask={text}")
    assert said.startswith("flatten_swin_t: honour_shift_mask=")
    assert said.endswith("is not allowed; it takes True or False\n")


def test_false_means_no(ask: Ask) -> None:
    answer = ask("show flatten_swin_t --set window=7 honour_shift_mask=False")
    assert (answer.status, answer.err) == (0, "")
    assert "Shift mask of focused in shifted windows: ignored" in answer.out


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
        ("show pvt_t --set sr_ratios=3333", "3 does not divide; allowed for sr_ratios there: 1, 2, 4, 7,"),
        ("show swin_t --set window=9", "9x9 windows do not tile; allowed for window there: 1, 7, 14, 28, 56"),
    ],
)
def test_what_does_not_divide_is_refused(ask: Ask, line: str, said: str) -> None:
    assert said in refused(ask, line)


def test_show_says_what_fits(ask: Ask) -> None:
    answer = ask("show deit_micro --fit --batch 8")
    assert (answer.status, answer.err) == (0, "")
    assert "largest batch, 80 GB" in answer.out
    assert "a batch of 8 in fp32" in answer.out
    assert "unchecked on CUDA" in answer.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--batch 8", "--batch has no effect without --fit"),
        ("--precision bf16", "--precision has no effect without --fit"),
        ("--fit --batch 0", "--batch 0: it takes a number from 1 up"),
    ],
)
def test_options_of_fit_are_checked(ask: Ask, options: str, said: str) -> None:
    answer = ask(f"show deit_micro {options}")
    assert answer.status == 2
    assert said in answer.err
