"""Attentions of the user's own on the command line: --import in every command and in jobs, new, list."""

import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch

import attentions
from attentions import AttentionSpec, Grid, Site, _registry
from harness.cli.attentions import TEMPLATE
from tests.harness.command_line import Ask, photos, records, refused
from tests.nightly import LONG
from tests.pages import file_named
from tests.slurm.cluster import wait_for

pytestmark = pytest.mark.usefixtures("users_files", "users_attentions")

MINE = """
from attentions import Attention, Macs, register

@register("mine")
class Mine(Attention):
    \"\"\"The mean of the values.\"\"\"

    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        return v.mean(dim=1, keepdim=True).expand_as(q)

    def macs(self):
        return Macs()
"""

SWEEP = """
from backbones import preset
from harness.cells import Cell, Costs

def mine():
    return [Cell(preset("deit_micro", attention="mine"), Costs())]
"""

COSTS = "--backbone deit_micro --attention mine --task costs"


def another_process() -> None:
    """Nothing of the user's is loaded, as when a command begins."""
    _registry._REGISTRY.pop("mine", None)
    _registry._forget(set())
    for name in [name for name in sys.modules if name.startswith("plugin")]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def _begin() -> None:
    another_process()


# --import


def test_every_command_takes_an_attention_from_a_file(ask: Ask) -> None:
    Path("mine.py").write_text(MINE)
    Path("costs.py").write_text(SWEEP)
    for line in (
        "--import mine.py list attentions",
        "list attentions --import mine.py",
        "show deit_micro --import=mine.py --attention mine",
        f"run {COSTS} --import mine.py --dry-run",
        f"run {COSTS} --import mine.py",
        f"submit {COSTS} --import mine.py --cluster local --dry-run",
        "run --import mine.py costs.py:mine",
        "table costs.py:mine --import mine.py",
        "--import mine.py table",
        "--import mine.py status",
        "train deit_micro --attention mine --data fashion_mnist_14k --dry-run --import mine.py",
    ):
        answer = ask(line)
        assert (answer.status, answer.err) == (0, ""), line
        assert "mine" in answer.out or line.endswith("status")
        another_process()
    assert [record.status for record in records()] == ["done"]


def test_several_files_and_a_module(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plugin_a", "b", "c"):
        Path(f"{name}.py").write_text(MINE.replace('"mine"', f'"{name}"'))
    monkeypatch.syspath_prepend(Path.cwd())
    answer = ask("list attentions --import plugin_a --import b.py --import c.py")
    assert (answer.status, answer.err) == (0, "")
    assert {"plugin_a", "b", "c"} <= set(answer.out.splitlines())


def test_help_says_it(ask: Ask) -> None:
    answer = ask("--help")
    assert answer.status == 0
    assert "--import FILE.py" in " ".join(answer.out.split())
    assert "--import FILE.py" in " ".join(ask("run --help").out.split())


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("nowhere.py", "there is no Python file 'nowhere.py'"),
        ("my_sweeps.py", 'no attention is registered in my_sweeps.py: decorate a class with @register("name")'),
        ("./folder", "there is no Python file 'folder': it is a folder"),
        ("notes.txt", "there is no Python file 'notes.txt': its name must end in .py"),
        ("no_module", "no module 'no_module' is installed; the name of a file must end in .py"),
        ("syntax.py", "syntax.py cannot be loaded: SyntaxError: '(' was never closed (syntax.py, line 2)"),
        ("taken.py", "attention name 'softmax' is taken by attentions.softmax.SoftmaxAttention (taken.py, line 4)"),
        ("half.py", "half.py cannot be loaded: ZeroDivisionError: division by zero (half.py, line 13)"),
        ("", "there is no Python file '.': it is a folder"),
    ],
)
@pytest.mark.parametrize("line", [f"run {COSTS} --import", "list --import", "status --import"])
def test_what_cannot_be_loaded_is_refused(ask: Ask, line: str, named: str, said: str) -> None:
    Path("folder").mkdir()
    Path("notes.txt").touch()
    Path("syntax.py").write_text("\nprint(")
    Path("taken.py").write_text(MINE.replace('"mine"', '"softmax"'))
    Path("half.py").write_text(f"{MINE}1 / 0\n")
    assert said in refused(ask, f"{line} {shlex.quote(named)}")
    assert "mine" not in attentions.names()


@pytest.mark.parametrize("line", ["list --import", "--import", "run --import --backbone deit_micro"])
def test_import_without_a_file_is_refused(ask: Ask, line: str) -> None:
    assert refused(ask, line).startswith("--import takes a Python file or an installed module, as in --import my_att")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            ("    def forward", "    def __init__(self, site):\n        1 / 0\n\n    def forward"),
            "the constructor of mine ",
        ),
        (
            ("return Macs()", "return Macs(attention=1 / 0)"),
            "macs() of mine fails: ZeroDivisionError: division by zero",
        ),
        (("return Macs()", "return 3"), "macs() of mine fails: "),
    ],
)
def test_what_the_users_code_raises_is_one_line(ask: Ask, changes: tuple[str, str], said: str) -> None:
    Path("mine.py").write_text(MINE.replace(*changes))
    message = refused(ask, "show deit_micro --attention mine --import mine.py")
    assert said in message


def test_a_formula_that_counts_something_else_fails_the_cell(ask: Ask) -> None:
    Path("mine.py").write_text(MINE.replace("Macs()", "Macs(attention=1000000)"))
    answer = ask(f"run {COSTS} --import mine.py")
    assert answer.status == 1
    (record,) = records()
    assert record.status == "failed"


def test_a_trained_one_is_evaluated_and_compared(ask: Ask) -> None:
    Path("mine.py").write_text(MINE)
    photos()
    train = "train deit_micro --data photos --set num_classes=3 --change epochs=1 warmup_epochs=0 batch=22"
    for attention in ("mine", "softmax"):
        assert ask(f"{train} --attention {attention} --import mine.py").status == 0
    (key,) = (record.key for record in records() if record.cell["backbone"]["attention"] == "mine")
    another_process()
    evaluate = f"evaluate --checkpoint runs/{key} --data photos"
    said = refused(ask, evaluate)
    assert said.startswith("unknown attention 'mine'")
    assert said.endswith("; load your own with --import FILE.py\n")
    assert ask(f"{evaluate} --import mine.py").status == 0
    assert "mine" in ask("compare").out


# In other processes


def test_isolated_cells_find_it(ask: Ask) -> None:
    Path("mine.py").write_text(MINE)
    assert ask(f"run {COSTS} --isolate --import mine.py").status == 0
    assert [record.status for record in records()] == ["done"]


IN_TWO_FILES = MINE.replace("v.mean(dim=1, keepdim=True).expand_as(q)", "mean(v).expand_as(q)")
PIECES = "def mean(v):\n    return v.mean(dim=1, keepdim=True)\n"


@pytest.mark.parametrize("kind", ["files", pytest.param("module", marks=LONG)])
def test_jobs_find_it_and_resume_finds_it_again(ask: Ask, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Of a file, and of those beside it that it imports, they run the copy; a module they import by its name."""
    path = Path("plugin_mine.py")
    path.write_text(MINE)
    if kind == "files":
        path.write_text(f"from pieces import mean\n{IN_TWO_FILES}")
        Path("pieces.py").write_text(PIECES)
    else:
        monkeypatch.syspath_prepend(Path.cwd())
        monkeypatch.setenv("PYTHONPATH", str(Path.cwd()), prepend=os.pathsep)
    named = str(path) if kind == "files" else path.stem
    answer = ask(f"submit {COSTS} --cluster local --import {named}")
    assert (answer.status, answer.err) == (0, "")
    another_process()
    if kind == "files":
        for each in (path, Path("pieces.py")):
            each.write_text("raise RuntimeError('edited since')")
    for again in (True, False):
        wait_for(lambda: any(word in ask("status").out for word in ("1 done", "failed")))
        (record,) = records()
        assert (record.status, record.error) == ("done", None)
        if again:
            (Path("runs") / f"{record.key}.json").unlink()
            shutil.rmtree(Path("runs") / record.key)
            wait_for(lambda: "1 dropped" in ask("status").out)
            answer = ask("resume")
            assert answer.out.startswith("submitted 1 cell"), answer
            another_process()


# new


def test_new_writes_an_attention_that_works(ask: Ask) -> None:
    answer = ask("new my_idea --out folder")
    assert (answer.status, answer.err) == (0, "")
    first, *commands = answer.out.splitlines()
    assert first == "wrote folder/my_idea.py: linear attention as a starting point; edit it, then run"
    text = Path("folder/my_idea.py").read_text()
    assert text == TEMPLATE.read_text().replace("my_attention", "my_idea").replace("MyAttention", "MyIdeaAttention")
    assert text.count("my_idea") > 2
    assert [command.split()[1] for command in commands] == ["check", "run", "run"]
    assert all("folder/my_idea.py" in command for command in commands)
    assert ask(commands[1].removeprefix("attention-bench ")).status == 0
    assert [record.status for record in records()] == ["done"] * 4
    another = "run --backbone pvt_micro pvt_v2_micro cswin_micro --task costs --attention 'my_idea(temperature=0.5)'"
    assert ask(f"{another} --import folder/my_idea.py").status == 0
    assert len(records()) == 7


@pytest.mark.parametrize(
    ("site", "tokens"),
    [
        (Site(32, 4, Grid(6, 4), Grid(6, 4)), (24, 24)),
        (Site(12, 1, Grid(3, 5, 1), Grid(3, 5, 1)), (16, 16)),
        (Site(12, 3, Grid(8, 4), Grid(4, 2)), (32, 8)),
    ],
    ids=["map", "class token", "reduced keys"],
)
@pytest.mark.parametrize("name", ["my_attention(temperature=0.7)", "cosine(contrast=0.5)"])
def test_the_template_and_the_example_are_what_they_say(
    ask: Ask, name: str, site: Site, tokens: tuple[int, int]
) -> None:
    Path("cosine.py").write_text(file_named("cosine.py"))
    attentions.load(str(TEMPLATE))
    attentions.load("cosine.py")
    module = AttentionSpec.parse(name).build(site)
    n, m = tokens
    q, k, v, weight = (torch.randn(2, t, site.dim, dtype=torch.float64, requires_grad=True) for t in (n, m, m, n))
    ours, reference = module(q, k, v), module.naive(q, k, v)
    torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-12)
    gradients = [torch.autograd.grad((out * weight).sum(), (q, k, v)) for out in (ours, reference)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)
    for scale in (0.0, 1e-3, 1.0, 1e3):
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            inputs = [(scale * x.detach()).to(dtype).requires_grad_() for x in (q, k, v)]
            out = module(*inputs)
            assert out.dtype == dtype
            assert all(x.isfinite().all() for x in (out, *torch.autograd.grad(out.float().sum(), inputs)))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("new linear", "there is an attention 'linear' already (see attention-bench list attentions)"),
        ("new mine", "mine.py exists, and is not overwritten"),
        ("new mine --out here", "here/mine.py exists, and is not overwritten"),
        ("new torch", "there is a Python module 'torch', which a file of that name would hide"),
        ("new my-idea", "'my-idea' cannot be the name of an attention: it takes letters, digits and _, a letter first"),
        ("new class", "'class' cannot be the name of an attention"),
        ("new _idea", "'_idea' cannot be the name of an attention"),
        ("new 2nd", "'2nd' cannot be the name of an attention"),
        ("new idea.py", "'idea.py' cannot be the name of an attention"),
        ("new ../idea", "'../idea' cannot be the name of an attention"),
        ("new idea --out mine.py", "mine.py exists, and is not overwritten"),
        ("new idea --out mine.py/folder", "cannot write mine.py/folder/idea.py: Not a directory"),
        ("new mine --import mine.py", "there is an attention 'mine' already"),
    ],
)
def test_new_refuses(ask: Ask, line: str, said: str) -> None:
    Path("here").mkdir()
    for path in ("mine.py", "here/mine.py"):
        Path(path).write_text(MINE)
    assert said in refused(ask, line)


@pytest.mark.parametrize("name", ["attention", "tensor", "f", "x__2", "My", "given", "macs"])
def test_any_name_makes_a_file_that_loads(ask: Ask, name: str) -> None:
    assert ask(f"new {name}").status == 0
    assert attentions.load(f"{name}.py") == [name]
    AttentionSpec(name).build(Site(4, 2, Grid(2, 2), Grid(2, 2)))(*torch.randn(3, 1, 4, 4))


# list


def test_an_attention_is_listed_on_two_lines_that_can_be_read(ask: Ask) -> None:
    Path("mine.py").write_text(MINE)
    header, *lines = ask("list attentions --import mine.py").out.splitlines()
    assert header.startswith("attention, with its defaults; how it grows with N tokens, laws that hold (check), and ")
    about = dict(zip(lines[::2], lines[1::2], strict=True))
    assert [line.partition("(")[0] for line in about] == attentions.names()
    assert about["mine"].split(maxsplit=2) == ["O(N)", "-", "The mean of the values."]
    assert about["softmax(fused=True)"].split()[:3] == ["O(N^2)", "25/25", "Softmax"]
    assert "2308.00442" in about["focused(focusing_factor=3, kernel_size=5, positional_encoding=True)"]
    assert all(len(line) <= 150 for line in lines)


def test_a_package_that_cannot_be_loaded_is_said_by_list_and_disturbs_nothing_else(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path.cwd())
    Path("plugin_a-1.0.dist-info").mkdir()
    Path("plugin_a-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: plugin-a\nVersion: 1.0\n")
    Path("plugin_a-1.0.dist-info/entry_points.txt").write_text(f"[{_registry.GROUP}]\na = plugin_a\n")
    Path("plugin_a.py").write_text("1 / 0")
    said = (
        "attention-bench: the attentions of package plugin-a are skipped: module plugin_a cannot be loaded: "
        "ZeroDivisionError: division by zero (plugin_a.py, line 1)\n"
    )
    _registry.broken_packages.cache_clear()
    assert ask("show deit_micro --attention linear").err == ""
    answer = ask("list attentions")
    assert (answer.status, answer.err) == (0, said)
    assert "linear" in answer.out
    assert said.removeprefix("attention-bench: ") in refused(ask, "show deit_micro --attention mine")
    _registry.broken_packages.cache_clear()
    Path("plugin_a.py").write_text(MINE + "# mended\n")
    answer = ask("show deit_micro --attention mine")
    assert (answer.status, answer.err) == (0, "")
