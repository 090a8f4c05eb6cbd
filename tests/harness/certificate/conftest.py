from pathlib import Path

import pytest

from harness.runtimes import exports


@pytest.fixture(scope="session")
def folder_of_exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(autouse=True)
def cache(folder_of_exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of exports that is not the user's; the law `openvino` reads what the law `onnx` has made."""
    monkeypatch.setattr(exports, "cache_folder", lambda: folder_of_exports)
