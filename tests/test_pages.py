"""The pages are true: their blocks of code run, or say why not; their links, paths and names lead somewhere."""

import ast
import functools
import importlib.util
import pkgutil
import re
import shlex
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import results
from attentions import _registry
from harness.cli import main
from slurm import load
from tests.harness import command_line
from tests.harness.command_line import Ask
from tests.harness.command_line import ask as ask
from tests.harness.conftest import users_files as users_files
from tests.pages import PAGES, ROOT, Block, blocks, file_named, prose

COMMANDS, OUTPUT = {"bash", "console", "sh"}, {"", "text"}

NOT_RUN = {
    "needs ImageNet": False,
    "needs a GPU": False,
    "needs a cluster": True,
    "minutes of work": True,
    "installation": False,
}
"""Why a block may not be run, and whether the comment must say what runs the same: `<!-- not run: REASON; FILE -->`."""

SUBSTITUTES = {
    "/path/to/images": "photos",
    "--data fashion_mnist_14k": "--data ten --change epochs=1",  # 12,000 images for 3 epochs: a minute
    "--task train --epochs 1": "--task train --epochs 1 --data ten",  # the same for one epoch
}
"""What a command of a page is changed to before it is run. `runs/<key>` is the newest run folder."""


def photos() -> None:
    command_line.photos()


def ten() -> None:
    """As many classes as Fashion-MNIST has."""
    command_line.images([f"ten/train/{number}" for number in range(10)], 7)
    command_line.images([f"ten/val/{number}" for number in range(10)], 1)


def quickstart() -> None:
    """Records of trainings, and of costs and speeds: making those of the quickstart takes minutes."""
    shutil.copytree(ROOT / "results" / "fashion_mnist", "runs/quickstart")
    for path in (ROOT / "tests" / "compatibility" / "a089b83" / "quickstart").glob("*.json"):
        if results.read(path).cell["task"]["name"] != "train":
            shutil.copy(path, "runs/quickstart")


def fashion_mnist() -> None:
    shutil.copytree(ROOT / "results" / "fashion_mnist", "results/fashion_mnist")


def atlas() -> None:
    shutil.copytree(ROOT / "results" / "atlas", "results/atlas")


def weights() -> None:
    torch.save(timm.create_model("vit_small_patch16_224").state_dict(), "vit_small.pth")


PREPARED: dict[str, Callable[[], None]] = {
    "photos": photos,
    "ten": ten,
    "runs/quickstart": quickstart,
    "results/fashion_mnist": fashion_mnist,
    "results/atlas": atlas,
    "vit_small.pth": weights,
}
"""What a page takes for granted, made in the folder of its test if a command or a program of the page has the name."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def substituted(text: str) -> str:
    for given, ours in SUBSTITUTES.items():
        text = text.replace(given, ours)
    return text


def with_key(line: str) -> str:
    """A command about the newest run folder."""
    if "<key>" not in line:
        return line
    newest = max(Path("runs").glob("*/config.json"), key=lambda path: path.stat().st_mtime_ns)
    return line.replace("<key>", newest.parent.name)


def words_of(text: str) -> list[list[str]]:
    """The commands of a block, one per line, without comments."""
    lines = (shlex.split(line.removeprefix("$ "), comments=True) for line in text.splitlines())
    return [words for words in lines if words]


def file_in(block: Block) -> str | None:
    """The name of the file that a block is the content of, by the comment in its first line."""
    found = re.match(r"# (\w+\.py)\n", block.text)
    return found and found[1]


# Blocks


def fault(block: Block) -> str | None:
    """What is wrong with the mark of a block, or with its language."""
    if block.language not in COMMANDS | OUTPUT | {"python", "toml"}:
        return f"unknown language {block.language!r}"
    if block.comment is None:
        return None
    said, _, where = block.comment.removeprefix("not run: ").partition("; ")
    if not block.comment.startswith("not run: ") or said not in NOT_RUN:
        return f"unknown comment {block.comment!r}; allowed: not run: {', '.join(NOT_RUN)}"
    if NOT_RUN[said] and not where:
        return f"{said}: the comment must name the file that runs it, as in `not run: {said}; .ci/run`"
    if where and not (ROOT / where).is_file():
        return f"there is no file {where}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_block_is_run_or_says_why_not(page: Path) -> None:
    assert [f"{block}: {found}" for block in blocks(page) if (found := fault(block))] == []


@pytest.mark.parametrize(
    ("language", "comment", "said"),
    [
        ("shell", None, "unknown language"),
        ("bash", "not run: no time", "unknown comment"),
        ("bash", "needs ImageNet", "unknown comment"),
        ("bash", "not run: minutes of work", "must name the file"),
        ("bash", "not run: minutes of work; tests/test_nothing.py", "there is no file"),
    ],
)
def test_a_wrong_mark_is_found(language: str, comment: str | None, said: str) -> None:
    assert said in (fault(Block(PAGES[0], 1, language, "", comment)) or "")


def run(written: list[Block], ask: Ask) -> None:
    """Run blocks in order, in the current folder; AssertionError for what does not do what it says.

    Files are written, commands and programs run, and a block of `text` must be what the commands before it print.
    """
    code = "".join(substituted(block.text) for block in written if block.language not in OUTPUT)
    for name, prepare in PREPARED.items():
        if re.search(rf"(?<![\w/]){re.escape(name)}(?!\w)", code):
            prepare()
    namespace: dict[str, Any] = {}
    said: str | None = None
    for block in written:
        if block.language in COMMANDS:
            said = ""
            for program, *arguments in words_of(substituted(block.text)):
                assert program == "attention-bench", f"{block}: only commands of attention-bench are run"
                line = shlex.join(with_key(each) for each in arguments)
                answer = ask(line)
                assert answer.status == 0, f"{block}: {line}\n{answer.err}"
                assert "attention-bench: " not in answer.err, f"{block}: {line}: a warning"
                said += answer.out
        elif block.language == "python":
            if file := file_in(block):
                Path(file).write_text(block.text)
                assert re.search(rf"^attention-bench .*\b{file}", code, re.MULTILINE), f"{block}: no command uses it"
            else:
                exec(compile(block.text, str(block), "exec"), namespace)
        elif block.language == "toml":
            check_toml(block)
        elif block.language == "text":
            assert said is not None, f"{block}: no command is before it"
            assert block.text in said, f"{block}: this is not what the commands before it print"
    if Path("runs").exists():
        assert [record.error for record in command_line.records() if record.status != "done"] == []


def check_toml(block: Block) -> None:
    """A clusters.toml whose tables are clusters, or what a package announces in its pyproject.toml."""
    tables = tomllib.loads(block.text)
    if "project" in tables:
        assert list(tables["project"]["entry-points"]) == [_registry.GROUP], f"{block}: unknown group"
        return
    Path("clusters.toml").write_text(block.text)
    for name in tables:
        load(name)
    Path("clusters.toml").unlink()


def runnable(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.comment is None]


@pytest.mark.usefixtures("users_files", "users_attentions")
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.language not in OUTPUT for block in runnable(page))], ids=name_of
)
def test_the_blocks_of_a_page_run(page: Path, ask: Ask) -> None:
    run(runnable(page), ask)
    if page.stem == "own_attention":  # costs of three attentions in two backbones, and two trainings
        assert len(command_line.records()) == 3 * 2 + 2


FAILS = """
from attentions import Attention, Macs, register

@register("fails")
class Fails(Attention):
    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        return v.mean(dim=1, keepdim=True).expand_as(q)

    def macs(self):
        return Macs(attention=1000000)
"""


@pytest.mark.usefixtures("users_files", "users_attentions")
@pytest.mark.parametrize(
    "written",
    [
        [("bash", "attention-bench list hay\n")],
        [("bash", "ls\n")],
        [("bash", "attention-bench run --import fails.py --backbone deit_micro --attention fails --task costs\n")],
        [("bash", "attention-bench list tasks\n"), ("text", "hay\n")],
        [("text", "hay\n")],
        [("python", "# unused.py\n")],
        [("python", "assert 1 == 2\n")],
        [("toml", '[project.entry-points."hay"]\n')],
    ],
)
def test_a_page_that_is_not_true_is_found(written: list[tuple[str, str]], ask: Ask) -> None:
    Path("fails.py").write_text(FAILS)
    with pytest.raises(AssertionError):
        run([Block(PAGES[0], number, *block, None) for number, block in enumerate(written)], ask)


@pytest.fixture
def parse(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Read a command line without carrying it out."""

    def instead(function: Callable[..., int]) -> Callable[..., int]:
        return functools.wraps(function)(lambda *_, **__: 0)

    monkeypatch.setattr(main, "COMMANDS", {name: instead(function) for name, function in main.COMMANDS.items()})
    return ask


def is_known(words: list[str], parse: Ask) -> bool:
    """Whether a command that is not run exists, with its options: a command of ours, a goal of make, a module."""
    match words:
        case ["attention-bench", *rest]:
            return parse(shlex.join(rest)).status == 0
        case ["torchrun", *rest]:
            return parse(shlex.join(rest[rest.index("harness") + 1 :])).status == 0
        case ["make", goal]:
            return re.search(rf"^{goal}:", (ROOT / "Makefile").read_text(), re.MULTILINE) is not None
        case ["python" | "python3", "-m", module, *_]:
            return importlib.util.find_spec(module) is not None
        case ["sudo", "apt-get", "install", *_]:
            return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_that_are_not_run_exist(page: Path, parse: Ask) -> None:
    lines = [
        (block, words)
        for block in blocks(page)
        if block.comment is not None and block.language in COMMANDS
        for words in words_of(block.text)
    ]
    assert [f"{block}: {shlex.join(words)}" for block, words in lines if not is_known(words, parse)] == []
    for block in blocks(page):
        if block.comment is not None and block.language == "python":
            imports: list[ast.stmt] = [
                node for node in ast.parse(block.text).body if isinstance(node, ast.Import | ast.ImportFrom)
            ]
            exec(compile(ast.Module(imports, []), str(block), "exec"), {})


def test_a_command_that_does_not_exist_is_found(parse: Ask) -> None:
    for line in ("attention-bench run --brake", "attention-bench fly", "make hay", "python -m harness.hay", "ls"):
        assert not is_known(shlex.split(line), parse), line


def test_the_example_is_short() -> None:
    lines = file_named("cosine.py").splitlines()
    assert 20 <= sum(bool(line.strip()) for line in lines) <= 40


# Links, paths and names


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if target.startswith(("https://", "http://")):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert broken == []


def test_every_page_of_docs_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [name_of(page) for page in PAGES if page.parent.name == "docs" and name_of(page) not in readme] == []


FOLDERS = ("attentions", "backbones", "docs", "harness", "results", "slurm", "tests")


def files() -> dict[str, Path]:
    """The files of the project, by their paths; no caches."""
    found = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))
    return {name_of(path): path for path in found if "__pycache__" not in path.parts}


def lost(text: str) -> list[str]:
    """What a text says of files, folders, tests and Python names that are not there.

    A path may leave out folders at its start (`slurm/test_queue.py` for `tests/slurm/test_queue.py`), a test of a file
    is written `file.py::name`.
    """
    known, missing = files(), []
    for path, test in re.findall(r"(?<![\w/<>*-])((?:[\w-]+/)*[\w-]+\.(?:py|sh))(?:::(\w+))?", text.replace("../", "")):
        if "/" not in path and not path.startswith("test_"):
            continue
        found = [known[each] for each in known if f"/{each}".endswith(f"/{path}")]
        if not any(not test or f"def {test}(" in each.read_text() for each in found):
            missing.append(f"{path}::{test}" if test else path)
    for name in re.findall(r"`((?:attentions|backbones|harness|results|slurm)\.[\w.]*\w)`", text):
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            missing.append(name)
    roots = "|".join(FOLDERS)
    for path in re.findall(rf"`((?:{roots})/[\w./-]*)`", text):
        if not (ROOT / path).exists() and not path.endswith((".py", ".sh")):
            missing.append(path)
    return missing


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_and_tests_that_a_page_mentions_are_there(page: Path) -> None:
    assert lost(page.read_text()) == []


def test_what_is_lost_is_found() -> None:
    here = "tests/test_pages.py::test_what_is_lost_is_found, `tests/golden/`, `results/published/recipes.csv`, demo.sh"
    assert lost(f"{here} `attentions.load` `harness.measures.speed`") == []
    gone = "harness/cells.py test_pages.py::test_nothing test_nothing.py `tests/silver/` `results/published/none.csv`"
    assert len(lost(f"{gone} `attentions.hay` `harness.hay`")) == 7


CONTRIBUTING = ROOT / "CONTRIBUTING.md"


def test_the_tree_is_the_folders() -> None:
    tree = next(block.text for block in blocks(CONTRIBUTING) if block.text.startswith("attentions/"))
    below, written = "", set()
    for line in tree.splitlines():
        if found := re.match(r"(  )?(\w+)/ ", line):
            below = below if found[1] else found[2]
            written.add(f"{below}/{found[2]}" if found[1] else found[2])
    packages = {name_of(path.parent) for name, path in files().items() if path.name == "__init__.py"}
    assert {each for each in written if each != "docs"} == {
        each for each in packages if each.partition("/")[0] != "tests" and each.count("/") < 2
    } | {"tests"}


def test_the_nouns_are_where_they_are_said_to_be() -> None:
    rows = re.findall(r"^\| (`[A-Z][^|]*) \| `([\w/.]+)` \|", prose(CONTRIBUTING), re.MULTILINE)
    assert len(rows) > 20
    wrong = []
    for names, where in rows:
        path = ROOT / where
        text = "".join(each.read_text() for each in (path.rglob("*.py") if path.is_dir() else [path]))
        wrong += [name for name in re.findall(r"`(\w+)`", names) if f"\nclass {name}" not in text]
    assert wrong == []


def test_the_readme_fits_two_screens() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 110
    assert [line for line in lines if len(line) > 120] == []
