"""The pages of the project: README, CONTRIBUTING, docs/ and the READMEs of results/, and the blocks of code in them."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "results").rglob("*.md")),
]

_FENCE = re.compile(r"^```(\w*)$")
_COMMENT = re.compile(r"^<!-- (.*) -->$")


class Block(NamedTuple):
    """A fenced block: `line` is that of its fence, `comment` the HTML comment on the line above it."""

    page: Path
    line: int
    language: str
    text: str
    comment: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page in order. Raises AssertionError for a fence that is indented or not closed."""
    found, lines = [], page.read_text().splitlines()
    start: int | None = None
    for number, line in enumerate(lines):
        if "```" not in line:
            continue
        fence = _FENCE.match(line)
        assert fence is not None, f"{page}:{number + 1}: a fence is at the start of a line, with a language or nothing"
        if start is None:
            start = number
            continue
        comment = _COMMENT.match(lines[start - 1])
        text = "".join(f"{each}\n" for each in lines[start + 1 : number])
        found.append(Block(page, start + 1, lines[start].removeprefix("```"), text, comment and comment[1]))
        start = None
    assert start is None, f"{page}: the last fence is not closed"
    return found


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def file_named(name: str) -> str:
    """The block of a page whose first line is the comment `# name`: a file that a reader is to write."""
    (text,) = (each.text for page in PAGES for each in blocks(page) if each.text.startswith(f"# {name}\n"))
    return text
