"""The papers of attentions, as their modules name them, and BibTeX entries that say no more than is known.

What modules leave out, the title and all authors, is in `results/published/papers.csv` for those of the project.
"""

import csv
import re
from functools import cache
from typing import NamedTuple

from results.tables.reproduction import PUBLISHED

_PAPER = re.compile(
    r"(?P<author>[A-Z][\w'-]*(?: [A-Z][\w'-]*)?) et al\., (?:(?P<between>[^.]*?), )?arXiv (?P<arxiv>\d{4}\.\d{4,5})"
)
_VENUE = re.compile(r"(?P<venue>[A-Za-z][\w ]*?) (?P<year>\d{4})(?P<rest> workshops)?$")


class Paper(NamedTuple):
    """Where an attention was published; `name` is what its module calls it. Empty texts are not known.

    `author` is the family name of the first author; `authors` are all of them, as BibTeX has them.
    """

    attention: str
    name: str
    author: str
    arxiv: str
    title: str = ""
    venue: str = ""
    year: str = ""
    authors: str = ""

    @property
    def key(self) -> str:
        """The key of its BibTeX entry, as han2023focused."""
        author = re.sub(r"\W", "", self.author).lower()
        return f"{author}{self.posted}{re.sub(r'[^a-z0-9]', '', self.attention.lower())}"

    @property
    def posted(self) -> str:
        """The year in which arXiv's number was given, which the number itself says."""
        return f"20{self.arxiv[:2]}"


def paper_of(attention: str, text: str) -> Paper | None:
    """Return the paper that the docstring of an attention's module names in its first paragraph, or None.

    As in "Agent attention: softmax attention through agents. Han et al., ECCV 2024, arXiv 2312.08874."
    """
    paragraph = " ".join(text.split("\n\n")[0].split())
    found = _PAPER.search(paragraph)
    if found is None:
        return None
    name = re.split(r"[:.]", paragraph)[0].strip()
    between = found["between"] or ""
    title = between
    venue = year = ""
    if at := _VENUE.search(between):
        venue, year = f"{at['venue'].split(', ')[-1].strip()}{at['rest'] or ''}", at["year"]
        title = between[: at.start()].strip(" ,")
    paper = Paper(attention, name, found["author"], found["arxiv"], title, venue, year)
    if (known := known_papers().get(paper.arxiv)) is None:
        return paper
    own = {field: known[field] for field in ("title", "authors", "venue", "year") if known[field]}
    return paper._replace(**own)


@cache
def known_papers() -> dict[str, dict[str, str]]:
    """Return the rows of papers.csv by their arXiv number."""
    with open(PUBLISHED / "papers.csv", encoding="utf-8", newline="") as stream:
        return {row["arxiv"]: row for row in csv.DictReader(stream)}


def bibtex(paper: Paper) -> str:
    """Return the entry of a paper. Where its authors are not known, the first one and "others" stand for them."""
    whole = bool(paper.venue and paper.title)
    about = [] if paper.title else [paper.name]
    about += [] if whole or not paper.venue else [f"{paper.venue} {paper.year}"]
    fields = {
        "author": _plain(paper.authors or f"{paper.author} and others"),
        "title": f"{{{_plain(paper.title)}}}" if paper.title else "",
        "booktitle": _plain(paper.venue) if whole else "",
        "year": paper.year or paper.posted,
        "note": _plain("; ".join(about)),
        "eprint": paper.arxiv,
        "archiveprefix": "arXiv",
        "url": f"https://arxiv.org/abs/{paper.arxiv}",
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@{'inproceedings' if whole else 'misc'}{{{paper.key},", *lines, "}"])


def _plain(text: str) -> str:
    """Return a text without what BibTeX or LaTeX would read as a command."""
    return re.sub(r"([#$%&_{}])", r"\\\1", text.replace("\\", ""))
