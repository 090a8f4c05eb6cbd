"""LaTeX compiled as an author does it."""

import shutil
import subprocess
from pathlib import Path

import pytest

needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")


def compiled(folder: Path, tables: list[str], packages: str = "") -> str:
    """Compile tables, each on a page of its own, to `folder`/paper.pdf; return what pdflatex said."""
    for number, text in enumerate(tables):
        (folder / f"table{number}.tex").write_text(text)
    inputs = "".join(rf"\input{{table{number}}}\clearpage" for number in range(len(tables)))
    (folder / "paper.tex").write_text(
        rf"\documentclass[twocolumn]{{article}}{packages}\usepackage{{booktabs,siunitx,graphicx}}"
        rf"\begin{{document}}{inputs}\end{{document}}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    assert ran.returncode == 0, ran.stdout[-2000:]
    return ran.stdout
