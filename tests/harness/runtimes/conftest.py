from pathlib import Path

import pytest

from harness.runtimes import exports


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of exports."""
    monkeypatch.setattr(exports, "cache_folder", lambda: tmp_path / "exports")
    return tmp_path / "exports"
