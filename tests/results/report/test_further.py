"""Further figures on the page: headed, described, with sliders for pointer and keyboard, photographs as they are."""

from typing import Any

from tests.results.report.conftest import Open
from tests.results.report.pages import EVIL

ART = "[data-further='0']"


def further(page: Any) -> Any:
    page.locator("nav a", has_text="Maps").click()
    page.wait_for_selector(f"{ART} svg.marks")
    return page.locator(f"section:has(> {ART})")


def queried(page: Any) -> str:
    """Where the marked query is."""
    found: str = page.locator(f"{ART} svg.marks path[stroke='#d81b60']").first.get_attribute("d")
    return found


def test_it_is_headed_and_described(open_page: Open) -> None:
    page = open_page()
    section = further(page)
    assert section.locator("h2").text_content() == f"Maps {EVIL}"
    assert section.locator("p").text_content() == f"Marked: the query. A note. {EVIL}"
    assert "A note." not in section.locator("svg.marks text").all_text_contents()
    assert page.evaluate("document.activeElement.id") == "further-1"


def test_a_slider_moves_by_keyboard_and_by_pointer(open_page: Open) -> None:
    page = open_page()
    further(page)
    slider = page.get_by_role("slider", name="query")
    places = [queried(page)]
    slider.focus()
    for key in ("ArrowRight", "End"):
        page.keyboard.press(key)
        page.wait_for_function(
            f"(d) => document.querySelector(\"{ART} path[stroke='#d81b60']\").getAttribute('d') !== d", arg=places[-1]
        )
        places.append(queried(page))
    assert slider.input_value() == "3"
    box = slider.bounding_box()
    page.mouse.click(box["x"] + 4, box["y"] + box["height"] / 2)
    page.wait_for_function(
        f"(d) => document.querySelector(\"{ART} path[stroke='#d81b60']\").getAttribute('d') !== d", arg=places[-1]
    )
    assert slider.input_value() == "0"
    assert queried(page) == places[0]
    assert len(set(places)) == 3


def test_a_photograph_is_not_turned_over_in_the_dark(open_page: Open) -> None:
    page = open_page(color_scheme="dark")
    further(page)
    page.wait_for_selector(f"{ART}.photo")
    assert page.evaluate(f'getComputedStyle(document.querySelector("{ART} svg.marks")).filter') == "none"
    assert page.evaluate("getComputedStyle(document.querySelector('.glyph')).filter") != "none"


def test_a_narrow_screen_is_not_wider_than_it_is(open_page: Open) -> None:
    page = open_page(viewport={"width": 390, "height": 800})
    further(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(f'document.querySelector("{ART}").scrollWidth') <= 390
