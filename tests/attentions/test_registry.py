"""The registry and AttentionSpec: strict names, strict options, one canonical text."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from attentions import Attention, AttentionSpec, Site, _registry, load_file, lookup, names, register


def test_every_file_of_the_folder_is_registered_under_its_own_name():
    assert {"softmax", "linear", "focused", "dwc"} <= set(names())
    for name in names():
        assert lookup(name).__module__ == f"attentions.{name}"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("focused", "focused(focusing_factor=3, kernel_size=5, positional_encoding=True)"),
        (
            " focused(kernel_size=None, focusing_factor=4) ",
            "focused(focusing_factor=4, kernel_size=None, positional_encoding=True)",
        ),
        ("linear(feature_map=elu)", "linear(feature_map='elu', kernel_size=None)"),
        ('linear(feature_map="elu")', "linear(feature_map='elu', kernel_size=None)"),
        ("softmax()", "softmax(fused=True)"),
    ],
)
def test_parse_and_text_are_inverse(text, canonical):
    spec = AttentionSpec.parse(text)
    assert str(spec) == canonical
    assert AttentionSpec.parse(canonical) == spec
    assert hash(AttentionSpec.parse(canonical)) == hash(spec)


def test_equal_options_in_any_order_are_the_same_spec_and_survive_pickling():
    spec = AttentionSpec("focused", {"kernel_size": 3, "focusing_factor": 4})
    assert spec == AttentionSpec("focused", {"focusing_factor": 4, "kernel_size": 3})
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert spec != AttentionSpec("focused", {"focusing_factor": 4})


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("focsed", ["unknown attention 'focsed'", "did you mean focused", "softmax"]),
        ("focused(kernel_sise=3)", ["unknown option of focused 'kernel_sise'", "did you mean kernel_size"]),
        ("focused(kernel_size='5')", ["kernel_size='5'", "int | None"]),
        ("focused(focusing_factor=2.5)", ["focusing_factor=2.5", "int"]),
        ("focused(focusing_factor=True)", ["focusing_factor=True", "int"]),
        ("linear(feature_map=gelu)", ["'gelu'", "'relu' or 'elu'"]),
        ("focused(3)", ["cannot read"]),
        ("focused(kernel_size=3, kernel_size=5)", ["cannot read"]),
        ("focused(**x)", ["cannot read"]),
        ("focused(kernel_size=print())", ["cannot read"]),
        ("", ["cannot read"]),
        ("a b", ["cannot read"]),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(text, parts):
    with pytest.raises(ValueError) as error:
        AttentionSpec.parse(text)
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_values_that_only_the_constructor_knows_are_refused_there(site):
    for text in ("focused(kernel_size=4)", "linear(kernel_size=0)", "dwc(kernel_size=2)", "focused(focusing_factor=0)"):
        with pytest.raises(ValueError, match="is not allowed"):
            AttentionSpec.parse(text).build(site)


def test_a_taken_name_and_a_loose_constructor_are_refused():
    with pytest.raises(ValueError, match=r"is taken by attentions\.softmax\.SoftmaxAttention"):

        @register("softmax")
        class Again(Attention):
            pass

    class Positional(Attention):
        def __init__(self, site: Site, factor: int = 3) -> None:
            super().__init__(site)

    class Bare(Attention):
        def __init__(self, site: Site, *, factor=3) -> None:
            super().__init__(site)

    for cls, message in ((Positional, "must be keyword-only"), (Bare, "needs an annotation and a default")):
        with pytest.raises(ValueError, match=message):
            register("new_attention")(cls)
    assert "new_attention" not in names()


def test_an_attention_from_a_file_reaches_other_processes(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from attentions import Attention, register\n"
        "@register('mine')\n"
        "class Mine(Attention):\n"
        "    def __init__(self, site, *, depth: int = 2) -> None:\n"
        "        super().__init__(site)\n"
    )
    try:
        load_file(path)
        load_file(path)
        code = "import pickle, sys; print(pickle.load(sys.stdin.buffer))"
        pickled = pickle.dumps(AttentionSpec.parse("mine(depth=3)"))
        root = Path(__file__).parents[2]
        shown = subprocess.run([sys.executable, "-c", code], input=pickled, capture_output=True, cwd=root, check=True)
        assert shown.stdout.decode().strip() == "mine(depth=3)"
    finally:
        _registry._REGISTRY.pop("mine")


@pytest.mark.parametrize(
    ("text", "message"), [(None, "there is no Python file"), ("1 +", "SyntaxError"), ("1 / 0", "ZeroDivisionError")]
)
def test_a_file_that_cannot_be_loaded_is_one_clear_line(tmp_path, text, message):
    path = tmp_path / "broken.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        load_file(path)
    assert "\n" not in str(error.value)


def test_a_site_whose_heads_do_not_divide_is_refused(site):
    with pytest.raises(ValueError, match="3 heads do not divide 32 channels"):
        Site(32, 3, site.queries, site.keys)
