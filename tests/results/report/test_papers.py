"""Papers as the modules of attentions name them, and BibTeX that says no more than that."""

import re
import sys

import pytest

import attentions
from results.report import Paper, bibtex, paper_of
from results.report.papers import known_papers


@pytest.mark.parametrize(
    ("text", "paper"),
    [
        (
            "Agent attention: through a few\nagents. Han et al., ECCV 2024, arXiv 9912.08874.\n\nMore.",
            Paper("a", "Agent attention", "Han", "9912.08874", "", "ECCV", "2024"),
        ),
        ("Linformer: mixtures. Wang et al., arXiv 9906.04768.", Paper("a", "Linformer", "Wang", "9906.04768")),
        (
            "Softmax. Vaswani et al., Attention Is All You Need, arXiv 9906.03762.",
            Paper("a", "Softmax", "Vaswani", "9906.03762", "Attention Is All You Need"),
        ),
        (
            "Hydra: heads. Bolya et al., ECCV 2022 workshops, arXiv 9909.07484.",
            Paper("a", "Hydra", "Bolya", "9909.07484", "", "ECCV workshops", "2022"),
        ),
        ("An attention of my own.", None),
        ("An ablation that table 4 of FLatten (arXiv 2308.00442) does not have.", None),
        ("Mine.\n\nUnlike Han et al., arXiv 2312.08874, it is quick.", None),
        ("", None),
    ],
)
def test_papers_are_read_from_modules(text: str, paper: Paper | None) -> None:
    assert paper_of("a", text) == paper


OURS = [name for name in attentions.names() if attentions.lookup(name).__module__.startswith("attentions.")]


def test_all_attentions_of_the_project_but_the_ablation_have_one() -> None:
    found = {name: paper_of(name, sys.modules[attentions.lookup(name).__module__].__doc__ or "") for name in OURS}
    assert [name for name, paper in found.items() if paper is None] == ["dwc"]
    papers = [paper for paper in found.values() if paper]
    assert len({paper.key for paper in papers}) == len(papers)
    assert {paper.arxiv for paper in papers} == set(known_papers()), "each has a row, and each row is of one"
    for paper in papers:
        assert paper.title
        assert paper.authors.startswith(f"{paper.author}, "), "the module names the same first author"
        assert re.fullmatch(r"[^,]+, [^,]+( and [^,]+, [^,]+)*", paper.authors)


def test_venues_of_modules_are_those_of_the_table() -> None:
    for name in OURS:
        text = sys.modules[attentions.lookup(name).__module__].__doc__ or ""
        paper = paper_of(name, text)
        if paper and (said := re.search(r"et al\., (\w+ \d{4})( workshops)?, arXiv", " ".join(text.split()))):
            assert f"{paper.venue} {paper.year}".replace(" Workshops", "") == said[1], name


def test_an_entry_says_what_is_known() -> None:
    assert bibtex(Paper("a", "Agent & co", "Han", "9912.08874")) == (
        "@misc{han2099a,\n"
        "  author = {Han and others},\n"
        "  year = {2099},\n"
        "  note = {Agent \\& co},\n"
        "  eprint = {9912.08874},\n"
        "  archiveprefix = {arXiv},\n"
        "  url = {https://arxiv.org/abs/9912.08874},\n"
        "}"
    )
    assert bibtex(Paper("a", "A", "Han", "9912.08874", "On A", "ECCV", "2101", "Han, Ho and Wu, Xi")) == (
        "@inproceedings{han2099a,\n"
        "  author = {Han, Ho and Wu, Xi},\n"
        "  title = {{On A}},\n"
        "  booktitle = {ECCV},\n"
        "  year = {2101},\n"
        "  eprint = {9912.08874},\n"
        "  archiveprefix = {arXiv},\n"
        "  url = {https://arxiv.org/abs/9912.08874},\n"
        "}"
    )
