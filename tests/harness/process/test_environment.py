"""Circumstances: what is found out, and that nothing missing makes it fail."""

import json
import subprocess
from pathlib import Path

import pytest
import torch

from harness.process import environment as module
from harness.process.environment import checkout, environment
from tests.on_a_gpu import DEVICES


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(root), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout with one commit."""
    root = tmp_path / "project"
    for package in module.PACKAGES:
        (root / package).mkdir(parents=True)
        (root / package / "a.py").write_text("one = 1\n")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "first")
    return root


def test_names_versions_device_and_host_as_plain_json():
    found = environment("cpu")
    assert json.loads(json.dumps(found)) == found
    assert found["torch"] == str(torch.__version__)
    assert found["threads"] == torch.get_num_threads()
    for name in (
        "python",
        "torchvision",
        "timm",
        "fvcore",
        "numpy",
        "pillow",
        "device_name",
        "host",
        "platform",
        "date",
    ):
        assert isinstance(found[name], str), name
        assert found[name], name
    assert environment("cuda").keys() == found.keys()


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_is_described(device):
    found = environment(device)
    on_a_gpu = ("driver", "cuda", "cudnn")
    assert {name for name in on_a_gpu if found[name] is not None} == (set(on_a_gpu) if device == "cuda" else set())
    assert found["device_name"]


def test_clean_checkout(project):
    assert checkout(project) == (git(project, "rev-parse", "HEAD"), False)


@pytest.mark.parametrize(
    ("file", "dirty"),
    [
        ("harness/a.py", True),
        ("attentions/new.py", True),
        ("results/tables/new.py", True),
        ("results/atlas/0123456789abcdef.json", False),
        ("notes.txt", False),
    ],
    ids=["changed", "new in a package", "new code of results", "new record", "new elsewhere"],
)
def test_dirty(project, file, dirty):
    (project / file).parent.mkdir(parents=True, exist_ok=True)
    (project / file).write_text("two = 2\n")
    assert checkout(project) == (git(project, "rev-parse", "HEAD"), dirty)


def test_git_variables_of_a_hook_do_not_mislead(project, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other"))
    assert checkout(project)[1] is False


def test_no_checkout(tmp_path):
    assert checkout(tmp_path) == (None, None)


def test_no_commit_yet(tmp_path):
    git(tmp_path, "init", "--quiet")
    assert checkout(tmp_path)[0] is None


def test_somebody_elses_repository_is_not_ours(project):
    assert checkout(project / "harness") == (None, None)


def test_does_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    here = environment("cpu")["commit"]
    monkeypatch.chdir(tmp_path)
    assert environment("cpu")["commit"] == here


def test_missing_programs_and_packages_are_none(project, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(module, "LIBRARIES", ("no-such-distribution",))
    assert checkout(project) == (None, None)
    found = environment("cuda")
    assert found["driver"] is None
    assert found["no-such-distribution"] is None


@pytest.mark.parametrize(
    ("given", "wanted"),
    [(None, ["0", "1", "2"]), ("4,6,7", ["4", "6", "7"]), ("GPU-a,GPU-b,GPU-c", ["GPU-a", "GPU-b", "GPU-c"])],
)
def test_the_gpus_of_this_machine_are_those_that_this_process_may_use(
    monkeypatch: pytest.MonkeyPatch, given: str | None, wanted: list[str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert module.gpus() == wanted


def test_a_missing_device_is_refused_in_one_line_that_says_what_is_allowed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    module.check_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError) as refusal:
        module.check_device("cuda")
    module.check_device("cpu")
    assert str(refusal.value) == "device cuda was asked for, but torch finds no CUDA device here; allowed: cpu"
