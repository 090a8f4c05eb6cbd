"""The registry and AttentionSpec: strict names, strict options, one canonical text."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from attentions import (
    AttentionSpec,
    Site,
    _registry,
    broken_packages,
    load,
    loaded_files,
    lookup,
    names,
    temporary_registry,
)
from backbones import preset


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
    texts = ["focused(kernel_size=4)", "linear(kernel_size=0)", "dwc(kernel_size=2)", "focused(focusing_factor=0)"]
    texts += ["angular(kernel_size=4)", "angular(threshold=2)"]
    texts += ["enhanced(scales=())", "enhanced(scales=(3, 4))", "enhanced(scales=('5',))", "external(memory=0)"]
    for text in texts:
        with pytest.raises(ValueError, match="is not allowed"):
            AttentionSpec.parse(text).build(site)


pytestmark = pytest.mark.usefixtures("users_attentions")

# Attentions of the user's own, in files

FLOATS = """
from typing import Literal
from attentions import Attention, Macs, register

@register("mine")
class Mine(Attention):
    def __init__(self, site, *, a: float = 1, b: float | None = None, c: int | float = 1, d: tuple[float, ...] = (1, 2),
                 e: Literal[1, 2] = 1) -> None:
        super().__init__(site)

    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        return v

    def macs(self):
        return Macs()
"""


def test_a_whole_number_is_a_float_where_the_option_is_one(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FLOATS)
    load(str(tmp_path / "mine.py"))
    assert str(AttentionSpec("mine")) == "mine(a=1.0, b=None, c=1, d=(1.0, 2.0), e=1)"
    given = [AttentionSpec.parse(f"mine(a={a}, b={a}, c=2.0, d=({a},))") for a in ("2", "2.0")]
    assert len({*given}) == len({*map(str, given)}) == 1
    assert str(given[0]) == "mine(a=2.0, b=2.0, c=2.0, d=(2.0,), e=1)"
    for text in ("mine(e=True)", "mine(e=1.0)", "mine(a=True)"):
        assert "is not allowed; it takes" in refused(partial(AttentionSpec.parse, text))


WHOLE = """
from attentions import Attention, Macs, Site, register

@register("mine")
class Mine(Attention):
    def __init__(self, site: Site, *, depth: int = 2, sizes: tuple[int, ...] = (3, 5)) -> None:
        super().__init__(site)

    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        return v

    def macs(self):
        return Macs()
"""
CLASS = "class Mine(Attention):"
OPTIONS = "*, depth: int = 2, sizes: tuple[int, ...] = (3, 5)"


def changed(*changes: tuple[str, str]) -> str:
    text = WHOLE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


def refused(call: Callable[[], object]) -> str:
    """Return the one line of the error; check that nothing is registered."""
    before = names()
    with pytest.raises(ValueError) as error:
        call()
    assert names() == before
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_file_that_torch_cannot_trace_is_refused(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/m\xfcll.py"))
    try:
        path.write_text(WHOLE)
    except OSError:
        pytest.skip("needs a file system that takes any bytes as a name")
    with pytest.raises(ValueError, match=r"/m\\xfcll.py has a name that is not UTF-8, .*: rename it, or its folder"):
        load(str(path))


def test_a_file_is_loaded_once_and_its_attentions_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(WHOLE + WHOLE.replace('"mine"', '"other"').replace("class Mine", "class Other"))
    assert load(str(path)) == ["mine", "other"]
    assert load(str(path)) == ["mine", "other"]
    copy = tmp_path / "copy" / "mine.py"
    copy.parent.mkdir()
    copy.write_text(path.read_text())
    assert load(str(copy)) == ["mine", "other"]
    assert loaded_files() == [path]
    spec = AttentionSpec.parse("mine(sizes=(7,))")
    assert str(spec) == "mine(depth=2, sizes=(7,))"
    assert AttentionSpec.parse(str(spec)) == spec
    for text in ("mine(sizes=7)", "mine(sizes=(7, 'x'))"):
        assert "it takes tuple[int, ...]" in refused(partial(AttentionSpec.parse, text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", 'no attention is registered in {path}: decorate a class with @register("name")'),
        (changed(('@register("mine")\n', "")), "no attention is registered in {path}: "),
        ("1 +", "{path} cannot be loaded: SyntaxError: invalid syntax (mine.py, line 1)"),
        ("\n1 / 0", "{path} cannot be loaded: ZeroDivisionError: division by zero (mine.py, line 2)"),
        ("assert False", "{path} cannot be loaded: AssertionError (mine.py, line 1)"),
        ("raise SystemExit(3)", "{path} cannot be loaded: SystemExit: 3 (mine.py, line 1)"),
        ("import nowhere", "{path} cannot be loaded: ModuleNotFoundError: No module named 'nowhere' (mine.py, line 1)"),
        (WHOLE + "1 / 0", "division by zero (mine.py, line 14)"),
        (WHOLE + 'raise RuntimeError("two\\nlines")', "{path} cannot be loaded: RuntimeError: two lines (mine.py, "),
        (WHOLE + WHOLE, "'mine' is taken by Mine in {path} (mine.py, line 17)"),
        (changed(('"mine"', '"linear"')), "'linear' is taken by attentions.linear.LinearAttention (mine.py, line 4)"),
        (changed(('"mine"', '"my-own"')), "attention name 'my-own' is not a valid Python name (mine.py, line 4)"),
        (changed(('"mine"', '"class"')), "attention name 'class' is not a valid Python name (mine.py, line 4)"),
        (
            changed(('@register("mine")', "@register")),
            'takes a name, as in @register("my_attention") (mine.py, line 4)',
        ),
        (
            changed((CLASS, CLASS + '\n    reads = "qx"')),
            "Mine: reads='qx' is not allowed; it takes letters from",
        ),
        (changed((CLASS, CLASS + "\n    exponent = -1")), "Mine: exponent=-1 is not allowed; it takes a number from 0"),
        (
            changed((CLASS, CLASS + "\n    exempt = ['mask']")),
            "Mine: exempt=['mask'] is not allowed; it takes a mapping from laws",
        ),
        (changed((CLASS, "class Mine:")), "Mine is not a subclass of attentions.Attention (mine.py, line 4)"),
        (changed((CLASS, "def Mine():")), "Mine is not a subclass of attentions.Attention (mine.py, line 4)"),
        (changed(("def forward", "def forwards")), "Mine has no forward(), the computation itself (mine.py, line 4)"),
        (changed(("def macs", "def mac")), "Mine has no macs(), the closed formula of its multiply-adds (mine.py, "),
        (
            changed((", bias=None", "")),
            "forward must be (self, q, k, v, *, bias=None, x=None, regions=None): got an un",
        ),
        (changed((", x=None", "")), "got an unexpected keyword argument 'x' (mine.py, line 4)"),
        (changed((", regions=None", ", regions")), "Mine: forward must be (self, q, k, v, *, bias=None, x=None, regio"),
        (changed(("q, k, v, *", "q, k, *")), "forward must be (self, q, k, v, *, bias=None, x=None, regions=None): t"),
        (changed(("site: Site, ", "")), "Mine: the constructor's first argument must be `site` (mine.py, line 4)"),
        (
            changed(("site: Site, *,", "*, site: Site,")),
            "Mine: the constructor's first argument must be `site` (mine.p",
        ),
        (
            changed(("class Mine(", "@__import__('dataclasses').dataclass(kw_only=True)\nclass Mine(")),
            "Mine: a dataclass does not call super().__init__(site); write the constructor yourself (mine.py, line 4)",
        ),
        (changed((OPTIONS, "depth: int = 2")), "Mine: option 'depth' must be keyword-only (mine.py, line 4)"),
        (changed((OPTIONS, "**options: int")), "Mine: option 'options' must be keyword-only (mine.py, line 4)"),
        (changed((OPTIONS, "*, depth=2")), "Mine: option 'depth' needs an annotation and a default (mine.py, line 4)"),
        (changed((OPTIONS, "*, depth: int")), "Mine: option 'depth' needs an annotation and a default (mine.py, line"),
        (changed((OPTIONS, "*, depth: int = 2.5")), "Mine: option 'depth' has the default 2.5; it takes int (mine.py"),
        (changed((OPTIONS, "*, depth: bool = 1")), "Mine: option 'depth' has the default 1; it takes bool (mine.py"),
        (changed((OPTIONS, "*, depth: tuple[int, ...] = (1.5,)")), "has the default (1.5,); it takes tuple[int, ...]"),
        (
            changed((OPTIONS, "*, depth: list[int] = []")),
            "'depth' is annotated list[int]; allowed are bool, int, float",
        ),
        (changed((OPTIONS, "*, depth: Site | None = None")), "'depth' is annotated attentions._contract.Site | None; "),
        (changed((OPTIONS, "*, depth: tuple[int, int] = (1, 2)")), "'depth' is annotated tuple[int, int]; allowed are"),
        (
            changed((OPTIONS, "*, depth: 'Depth' = 2")),
            "constructor has an unknown annotation: name 'Depth'",
        ),
    ],
    ids=lambda value: value[:60] if "\n" not in value else "",
)
def test_a_file_that_is_no_attention_is_one_clear_line_and_registers_nothing(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    assert said.format(path=path) in refused(lambda: load(str(path)))
    assert loaded_files() == ([path] if said.startswith("no attention") else [])


def test_a_name_that_another_file_has_taken_names_that_file(tmp_path: Path) -> None:
    first, second = tmp_path / "first.py", tmp_path / "second.py"
    first.write_text(WHOLE)
    second.write_text(WHOLE + "# another\n")
    load(str(first))
    said = refused(lambda: load(str(second)))
    assert said.startswith(f"{second} cannot be loaded: attention name 'mine' is taken by Mine in {first} (second.py, ")


@pytest.mark.parametrize(
    "line",
    [
        "self.x = [x.item() for x in torch.linspace(0, 1, site.heads)]",
        "self.x = float(numpy.asarray(torch.ones(3)).sum())",
        "self.x = 1 if torch.ones(1) > 0 else 0",
        "self.register_buffer('x', torch.from_numpy(numpy.ones(3)))",
        "self.register_buffer('x', torch.ones(3, device='cpu'))",
    ],
    ids=["item", "numpy", "a condition", "a buffer of numpy's", "a buffer on a device of its own"],
)
def test_a_constructor_may_ask_for_values_when_a_model_is_described(tmp_path: Path, site: Site, line: str) -> None:
    (tmp_path / "mine.py").write_text(
        f"import numpy, torch\n{changed(('super().__init__(site)', f'super().__init__(site); {line}'))}"
    )
    load(str(tmp_path / "mine.py"))
    state = torch.get_rng_state()
    with torch.device("meta"):
        module = AttentionSpec("mine").build(site)
    assert torch.equal(state, torch.get_rng_state())
    assert all(value.is_meta for value in module.buffers())
    preset("deit_micro", attention="mine")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("super().__init__(site)", "self.site = site", "its constructor does not call super().__init__(site)"),
        (
            "super().__init__(site)",
            "super().__init__(site); self.a = torch.nn.LazyLinear(3)",
            "mine: no shape before the first forward pass: a.weight, a.bias; instead of a lazy module",
        ),
        ("super().__init__(site)", "super().__init__(site); 1 / 0", "the constructor of mine fails: ZeroDivisionError"),
    ],
    ids=["no call of super", "lazy", "an error"],
)
def test_what_a_constructor_leaves_undone_is_one_clear_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    (tmp_path / "mine.py").write_text(f"import torch\n{changed((old, new))}")
    load(str(tmp_path / "mine.py"))
    assert said in refused(lambda: preset("deit_micro", attention="mine"))


def test_a_file_is_the_same_attention_when_another_imports_it(tmp_path: Path) -> None:
    (tmp_path / "piece_a.py").write_text(WHOLE)
    (tmp_path / "derived.py").write_text(
        'from attentions import register\nfrom piece_a import Mine\n\n@register("derived")\nclass Derived(Mine): pass\n'
    )
    for order in (("piece_a", "derived"), ("derived", "piece_a")):
        with temporary_registry():
            for name in order:
                assert set(load(str(tmp_path / f"{name}.py"))) >= {{"piece_a": "mine"}.get(name, name)}
                assert load(str(tmp_path / f"{name}.py"))
            assert pickle.loads(pickle.dumps(AttentionSpec("derived"))) == AttentionSpec("derived")


def test_modules_beside_two_files_must_not_share_a_name(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "piece_b.py").write_text(f"x = '{folder}'\n")
        (tmp_path / folder / f"mine_{folder}.py").write_text(
            f"from piece_b import x\nassert x == '{folder}'\n" + WHOLE.replace('"mine"', f'"{folder}"')
        )
    a, b = tmp_path / "a", tmp_path / "b"
    load(str(a / "mine_a.py"))
    said = f"{b / 'mine_b.py'} imports piece_b, which is {a / 'piece_b.py'} already: rename one of the two files"
    assert refused(lambda: load(str(b / "mine_b.py"))) == said
    (b / "piece_b.py").write_text((a / "piece_b.py").read_text())
    (b / "mine_b.py").write_text((b / "mine_b.py").read_text().replace("== 'b'", "== 'a'"))
    assert load(str(b / "mine_b.py")) == ["b"], "a copy is as good"


def test_what_lies_beside_a_file_hides_neither_the_library_nor_us(tmp_path: Path) -> None:
    for name in ("random", "results", "attentions", "torch"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('hidden')")
    (tmp_path / "attention.py").write_text(f"import random, torch\nrandom.random\n{WHOLE}")
    assert load(str(tmp_path / "attention.py")) == ["mine"]
    (tmp_path / "random.py").write_text(f"from results import logits\n{WHOLE}")
    said = refused(lambda: load(str(tmp_path / "random.py")))
    assert "ImportError: cannot import name 'logits' from 'results'" in said
    assert "; the results beside it has the name of " in said
    assert said.endswith("results/__init__.py: rename it")


def test_a_folder_with_the_name_of_a_module_is_no_package(tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "mine.py").write_text(f"import json\nfrom .pieces import x\n{WHOLE}")
    said = refused(lambda: load(str(tmp_path / "json" / "mine.py")))
    assert said.startswith(f"{tmp_path}/json/mine.py is a part of a package json, which is the name of ")
    assert said.endswith("json/__init__.py: rename its folder")


def test_a_file_that_does_not_load_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"from piece_c import x\n{WHOLE}")
    (tmp_path / "piece_c.py").write_text("\n1 / 0\n")
    assert "ZeroDivisionError: division by zero (piece_c.py, line 2)" in refused(lambda: load(str(path)))
    (tmp_path / "piece_c.py").write_text("y = 1\n")
    assert "cannot import name 'x' from 'piece_c'" in refused(lambda: load(str(path)))
    (tmp_path / "piece_c.py").write_text("x = 10\n")
    assert load(str(path)) == ["mine"]


def test_a_file_gets_a_command_line_of_its_own_and_prints_beside_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "import argparse, sys\nparser = argparse.ArgumentParser()\nparser.add_argument('--dim', default=3)\n"
    monkeypatch.setattr(sys, "argv", ["attention-bench", "check", "--quick"])
    (tmp_path / "mine.py").write_text(f"{options}print('dim', parser.parse_args().dim, sys.argv)\n{WHOLE}")
    assert load(str(tmp_path / "mine.py")) == ["mine"]
    assert capsys.readouterr() == ("", f"dim 3 ['{tmp_path}/mine.py']\n")
    assert sys.argv == ["attention-bench", "check", "--quick"]


def test_what_is_no_file_and_no_module_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.py").mkdir()
    Path("notes.txt").touch()
    for text, said in (
        ("nowhere.py", "there is no Python file 'nowhere.py'"),
        ("folder.py", "there is no Python file 'folder.py': it is a folder"),
        (f"{tmp_path}", f"there is no Python file '{tmp_path}': it is a folder"),
        ("notes.txt", "there is no Python file 'notes.txt': its name must end in .py"),
        ("", "there is no Python file '.': it is a folder"),
        (f"{'x' * 300}.py", f"there is no Python file '{'x' * 300}.py'"),
        ("nowhere", "no module 'nowhere' is installed; the name of a file must end in .py"),
        ("attentions.nowhere", "no module 'attentions.nowhere' is installed; the name of a file must end in .py"),
        ("json", 'no attention is registered in json: decorate a class with @register("name")'),
    ):
        assert refused(partial(load, text)) == said


# Attentions of the user's own, in installed packages


@pytest.fixture
def site_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder where packages are installed."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    broken_packages.cache_clear()
    yield folder
    broken_packages.cache_clear()


def install(folder: Path, package: str, text: str) -> None:
    """Install a package that announces its one module, `attention`."""
    (folder / package).mkdir()
    (folder / package / "__init__.py").touch()
    (folder / package / "attention.py").write_text(text)
    about = folder / f"{package}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[{_registry.GROUP}]\n{package} = {package}.attention\n")


def test_what_a_package_announces_has_a_name_like_all_others(site_packages: Path) -> None:
    install(site_packages, "plugin_a", WHOLE)
    assert str(AttentionSpec.parse("mine(depth=3, sizes=())")) == "mine(depth=3, sizes=())"
    assert "mine" in names()
    assert broken_packages() == ()
    assert load("plugin_a.attention") == ["mine"]
    assert load("plugin_a") == ["mine"]


def test_a_broken_package_is_said_and_keeps_no_other_from_working(site_packages: Path) -> None:
    install(site_packages, "plugin_a", changed(('"mine"', '"linear"')))
    install(site_packages, "plugin_b", WHOLE + "1 / 0")
    install(site_packages, "plugin_c", "")
    install(site_packages, "plugin_d", WHOLE)
    assert lookup("linear").__module__ == "attentions.linear"
    assert not {name for name in sys.modules if name.startswith("plugin")}, "who needs none of them loads none"
    assert lookup("mine").__module__ == "plugin_d.attention"
    said = (
        "the attentions of package plugin_a are skipped: module plugin_a.attention cannot be loaded: attention name "
        "'linear' is taken by attentions.linear.LinearAttention (attention.py, line 4)",
        "the attentions of package plugin_b are skipped: module plugin_b.attention cannot be loaded: "
        "ZeroDivisionError: division by zero (attention.py, line 14)",
        "the attentions of package plugin_c are skipped: no attention is registered in plugin_c.attention: decorate "
        'a class with @register("name")',
    )
    assert broken_packages() == said
    message = refused(lambda: lookup("minee"))
    assert message.startswith("unknown attention 'minee'; did you mean mine")
    assert all(line in message for line in said)


# In other processes


@pytest.mark.parametrize("kind", ["file", "module", "announced"])
def test_an_attention_reaches_other_processes(site_packages: Path, tmp_path: Path, kind: str) -> None:
    if kind == "file":
        (tmp_path / "mine.py").write_text(WHOLE)
        load(str(tmp_path / "mine.py"))
    else:
        install(site_packages, "plugin_a", WHOLE)
        if kind == "module":
            (site_packages / "plugin_a-1.0.dist-info" / "entry_points.txt").unlink()
            load("plugin_a.attention")
    pickled = pickle.dumps(AttentionSpec.parse("mine(depth=3)"))
    shown = subprocess.run(
        [sys.executable, "-P", "-c", "import pickle, sys; print(pickle.load(sys.stdin.buffer))"],
        input=pickled,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": f"{Path(__file__).parents[2]}:{site_packages}"},
        check=True,
    )
    assert shown.stdout.decode().strip() == "mine(depth=3, sizes=(3, 5))"


def test_a_site_whose_heads_do_not_divide_is_refused(site):
    with pytest.raises(ValueError, match="3 heads do not divide 32 channels"):
        Site(32, 3, site.queries, site.keys)
