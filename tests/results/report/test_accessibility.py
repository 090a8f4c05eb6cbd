"""The page by the rules of axe-core: no serious fault, in the light and in the dark, with everything open."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from tests.results.report.conftest import Open
from tests.results.report.test_browser import RESULTS, drawn, explored


@pytest.fixture(scope="session")
def axe() -> str:
    """The program of axe-core, which a package for tests holds."""
    found = importlib.util.find_spec("axe_playwright_python")
    path = Path(found.origin).parent / "axe.min.js" if found and found.origin else None
    if path is None or not path.is_file():
        give_up = pytest.fail if os.environ.get("NEEDS_CHROMIUM") == "1" else pytest.skip
        give_up("axe-core is not installed; pip install axe-playwright-python")
    assert path is not None
    return path.read_text(encoding="utf-8")


def faults(page: Any, axe: str) -> list[str]:
    """Each serious or critical fault, with the first element that has it."""
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    serious = [each for each in found["violations"] if each["impact"] in ("serious", "critical")]
    return [f"{each['id']}: {each['help']}: {each['nodes'][0]['html'][:200]}" for each in serious]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault(open_page: Open, axe: str, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    drawn(page, "accuracy")
    page.wait_for_selector("[data-further].photo input[type=range]")
    page.locator(".chips button").first.click()
    assert faults(page, axe) == []
    explored(page)
    page.locator(f"{RESULTS} .filters summary").click()
    assert faults(page, axe) == []
    page.keyboard.press("Escape")
    page.locator(f"{RESULTS} .columns summary").click()
    assert faults(page, axe) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_in_provenance(open_page: Open, axe: str, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    page.locator(f"{RESULTS} tbody button[data-opens=top1]").first.click()
    for summary in page.locator("dialog summary").all():
        summary.click()
    assert faults(page, axe) == []


def test_no_serious_fault_on_a_narrow_screen(open_page: Open, axe: str) -> None:
    page = open_page(viewport={"width": 390, "height": 800})
    drawn(page, "accuracy")
    assert faults(page, axe) == []


def test_a_fault_would_be_found(open_page: Open, axe: str) -> None:
    page = open_page()
    page.evaluate("document.querySelector('#theme').replaceChildren()")
    assert any(fault.startswith("button-name") for fault in faults(page, axe))
