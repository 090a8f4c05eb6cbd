"""A headless Chromium, in which a page is opened from its file: whatever else it asks for is refused and counted."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.results.report.pages import full_page

Open = Callable[..., Any]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser; without one the tests that need it are skipped, and fail where NEEDS_CHROMIUM is 1."""
    give_up = pytest.fail if os.environ.get("NEEDS_CHROMIUM") == "1" else pytest.skip
    path = shutil.which("chromium")
    if path is None:
        give_up("chromium is not installed; on Debian: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        # As root, Chromium has no sandbox of its own.
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def full_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything that a page can have."""
    folder = tmp_path_factory.mktemp("report")
    path = folder / "report.html"
    path.write_text(full_page(folder / "fashion"), encoding="utf-8")
    return path


@pytest.fixture
def open_page(chromium: Any, full_file: Path) -> Iterator[Open]:
    """Open the full page, or another file, as a reader with these preferences; in the end nothing has gone wrong."""
    faults: list[str] = []
    contexts = []

    def open_(path: Path | None = None, hash: str = "", **preferences: Any) -> Any:
        own = (path or full_file).as_uri()
        wanted = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"} | preferences
        context = chromium.new_context(**wanted)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        contexts.append(context)
        context.set_default_timeout(120_000)  # milliseconds; other tests may have the cores

        def answer(route: Any) -> None:
            if route.request.url.partition("#")[0] == own:
                route.continue_()
            else:
                faults.append(f"asked for {route.request.url}")
                route.abort()

        context.route("**/*", answer)
        page = context.new_page()
        page.on("console", lambda message: faults.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"raised {error}"))
        page.goto(own + hash)
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_
    evil = [page.evaluate("window.evil") for context in contexts for page in context.pages]
    for context in contexts:
        context.close()
    assert faults == []
    assert not any(evil), "markup of a record ran"
