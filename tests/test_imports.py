"""Imports point one way: attentions <- backbones <- harness -> slurm, results; and each folder imports only its own."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"attentions", "backbones", "harness", "results", "slurm"}
ALLOWED = {
    "attentions": set(),
    "backbones": {"attentions"},
    "harness": {"attentions", "backbones", "results", "slurm"},
    "results": set(),
    "slurm": set(),
}
FORBIDDEN = {"results": {"torch", "timm", "fvcore"}, "slurm": {"torch", "timm", "pandas"}, "attentions": {"timm"}}


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("package", sorted(OURS))
def test_imports_point_one_way(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        names = imported(path)
        assert names & OURS <= ALLOWED[package] | {package}, path
        assert not names & FORBIDDEN.get(package, set()), path


LIGHT = ["results", "slurm", "harness.cli.main", "harness.status.watch", "harness.status.logs"]


@pytest.mark.parametrize("package", LIGHT)
def test_light_packages_do_not_load_torch(package):
    code = f"import sys, {package}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    "package", ["harness.cli.catalogue", "harness.jobs.launch", "harness.jobs.work", "harness.cli.selection"]
)
def test_what_builds_no_model_does_not_load_timm(package):
    """It takes as long as all the rest, torch included: every command and every job would wait for it."""
    code = f"import sys, {package}; sys.exit('timm' in sys.modules or 'torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
