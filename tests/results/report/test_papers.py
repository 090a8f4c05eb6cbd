"""Papers as the modules of attentions name them, and BibTeX that says no more than that."""

import sys

import pytest

import attentions
from results.report import Paper, bibtex, paper_of


@pytest.mark.parametrize(
    ("text", "paper"),
    [
        (
            "Agent attention: through a few\nagents. Han et al., ECCV 2024, arXiv 2312.08874.\n\nMore.",
            Paper("a", "Agent attention", "Han", "2312.08874", "", "ECCV", "2024"),
        ),
        ("Linformer: mixtures. Wang et al., arXiv 2006.04768.", Paper("a", "Linformer", "Wang", "2006.04768")),
        (
            "Softmax. Vaswani et al., Attention Is All You Need, arXiv 1706.03762.",
            Paper("a", "Softmax", "Vaswani", "1706.03762", "Attention Is All You Need"),
        ),
        (
            "Hydra: heads. Bolya et al., ECCV 2022 workshops, arXiv 2209.07484.",
            Paper("a", "Hydra", "Bolya", "2209.07484", "", "ECCV workshops", "2022"),
        ),
        ("An attention of my own.", None),
        ("An ablation that table 4 of FLatten (arXiv 2308.00442) does not have.", None),
        ("Mine.\n\nUnlike Han et al., arXiv 2312.08874, it is quick.", None),
        ("", None),
    ],
)
def test_papers_are_read_from_modules(text: str, paper: Paper | None) -> None:
    assert paper_of("a", text) == paper


def test_all_attentions_of_the_project_but_the_ablation_have_one() -> None:
    found = {name: paper_of(name, sys.modules[attentions.lookup(name).__module__].__doc__ or "") for name in OURS}
    assert [name for name, paper in found.items() if paper is None] == ["dwc"]
    keys = [paper.key for paper in found.values() if paper]
    assert len(set(keys)) == len(keys)


OURS = [name for name in attentions.names() if attentions.lookup(name).__module__.startswith("attentions.")]


def test_an_entry_says_what_is_known() -> None:
    assert bibtex(Paper("a", "Agent & co", "Han", "2312.08874", "", "ECCV", "2024")) == (
        "@misc{han2023a,\n"
        "  author = {Han and others},\n"
        "  year = {2024},\n"
        "  note = {Agent \\& co; ECCV 2024},\n"
        "  eprint = {2312.08874},\n"
        "  archiveprefix = {arXiv},\n"
        "  url = {https://arxiv.org/abs/2312.08874},\n"
        "}"
    )
    assert "title = {{Attention}}" in bibtex(Paper("a", "A", "Han", "2312.08874", "Attention"))
