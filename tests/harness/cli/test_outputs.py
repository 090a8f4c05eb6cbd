"""Files of table, compare, figure and report: all or none, and none in the place of what was measured."""

import json
import shutil
from pathlib import Path

import pytest

import results
from tests.harness.command_line import Ask, refused
from tests.results.figures.common import FASHION, QUICKSTART

KEY = "42ead137b9000bb7"
"""A training among those of Fashion-MNIST."""

FORMS = {"table": ".csv", "compare": ".csv", "figure forest": ".svg", "report": ".html"}
"""The commands, and the ending of a file of each."""


@pytest.fixture
def seeds(ask: Ask) -> None:
    shutil.copytree(FASHION, "seeds")


@pytest.mark.usefixtures("seeds")
@pytest.mark.parametrize("command", FORMS)
def test_missing_folders_are_made(ask: Ask, command: str) -> None:
    file = Path(f"new/folders/a{FORMS[command]}")
    assert ask(f"{command} seeds -o {file}").status == 0
    assert file.is_file()


@pytest.mark.usefixtures("seeds")
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("table seeds -o seeds/{key}.json", "it is a record"),
        ("table seeds -o copy.json", "it is a record"),
        ("table seeds --format csv -o seeds/{key}/correct.npy", "it is there already, and what is in seeds is only"),
        ("table seeds -o seeds/all.json", "any .json file in seeds is read as a record"),
        ("table seeds -o a.csv --csv ./a.csv", "cannot write a.csv and a.csv: they are one file"),
        ("table seeds -o a.tex --csv folder", "cannot write folder: it is a folder"),
        ("table seeds --csv ''", "cannot write .: it is a folder"),
        ("table seeds --csv file.html/table.csv", "cannot write file.html/table.csv: file.html is a file"),
        ("compare seeds -o seeds/notes.md", "it is there already"),
        ("figure forest seeds -o seeds/{key}.json", "it is a record"),
        ("figure forest seeds -o copy.json", "it is a record"),
        ("figure forest seeds -o seeds/notes.svg", "cannot write seeds/notes.csv: it is there already"),
        ("figure forest seeds -o folder.svg", "cannot write folder.csv: it is a folder"),
        ("figure forest seeds -o file.html/a.svg", "cannot write file.html/a.svg: file.html is a file"),
        ("report seeds -o seeds/notes.html", "cannot write seeds/notes.html: it is there already"),
        ("report seeds -o link/notes.html", "cannot write link/notes.html: it is there already"),
        ("report seeds -o file.html/a.html", "cannot write file.html/a.html: file.html is a file"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is(ask: Ask, line: str, said: str) -> None:
    for folder in ("folder", "folder.csv"):
        Path(folder).mkdir()
    for name in ("notes.csv", "notes.html", "notes.md"):
        Path("seeds", name).write_text("")
    Path("link").symlink_to("seeds")
    Path("file.html").write_text("")
    shutil.copy(f"seeds/{KEY}.json", "copy.json")
    # A record is one by its content, under the name that it says.
    Path("copy.json").write_text(Path("copy.json").read_text().replace(KEY, "copy"))
    assert said in refused(ask, line.format(key=KEY))


NAME = "mine\x1b[2J\r[bold]"
"""A name that clears the screen."""


@pytest.mark.usefixtures("seeds")
@pytest.mark.parametrize(
    "line",
    ["table seeds", "compare seeds", "compare seeds --baseline hay", "figure accuracy q -o a.svg", "table seeds other"],
)
def test_no_text_of_a_record_steers_the_terminal(ask: Ask, line: str) -> None:
    shutil.copytree(QUICKSTART, "q")
    for path in (*Path("seeds").glob("*.json"), *Path("q").glob("*.json")):
        record = json.loads(path.read_text())
        record["cell"]["backbone"]["name"] = NAME
        path.write_text(json.dumps(record))
        if path.stem == KEY:
            Path("other").mkdir()
            Path("other", path.name).write_text(json.dumps(record | {"metrics": {"top1": 1.0}}))
    next(Path("q").glob("*.json")).write_text(json.dumps(record | {"key": NAME}))
    answer = ask(line)
    assert "\x1b" not in answer.out + answer.err
    assert "\r" not in answer.out + answer.err
    if "hay" not in line:
        assert "mine\\x1b[2J [bold]" in answer.out + answer.err


def test_of_two_files_both_are_written_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (
        tmp_path / "one",
        tmp_path / ("t" * 250),
    )  # with the ending of a temporary file, longer than a name can be
    one.write_text("kept")
    with pytest.raises(ValueError, match=r"^cannot write .*tt: File name too long$"):
        results.write_files({one: b"new", two: b"new"})
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert one.read_text() == "kept"
