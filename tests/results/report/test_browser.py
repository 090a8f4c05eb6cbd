"""The page in a browser: what a reader does with it, by pointer and by keyboard."""

import csv
import io
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.results.report.conftest import Open
from tests.results.report.pages import EVIL, RUN, fashion, page_of, quickstart

RESULTS = "[data-table=results]"


def column(page: Any, name: str, table: str = "results") -> list[str]:
    """The texts of a column as they are shown."""
    script = """([table, name]) => {
        const root = document.querySelector(`[data-table=${table}]`);
        const place = [...root.querySelectorAll("thead th")].findIndex((th) => th.innerText === name);
        return [...root.querySelectorAll("tbody tr")].map((tr) => tr.cells[place]?.innerText);
    }"""
    found: list[str] = page.evaluate(script, [table, name])
    return found


def copied(page: Any, part: str) -> str:
    """What the clipboard has, once it has this part in it."""
    page.wait_for_function("(part) => document.documentElement.dataset.copied?.includes(part)", arg=part)
    text: str = page.evaluate("navigator.clipboard.readText()")
    return text


def state(page: Any) -> dict[str, list[str]]:
    return parse_qs(page.evaluate("location.hash.slice(1)"))


def header(page: Any, name: str) -> Any:
    return page.locator(f"{RESULTS} thead button[data-column='{name}']")


def drawn(page: Any, figure: str) -> None:
    page.locator(f"#tab-{figure}").click()
    page.wait_for_function("(name) => document.querySelector('#art').dataset.shown?.startsWith(name)", arg=figure)


def test_headers_sort(open_page: Open) -> None:
    page = open_page()
    before = column(page, "top1")
    header(page, "top1").click()
    numbers = [float(text.split()[0]) for text in column(page, "top1") if text != "–"]
    assert numbers == sorted(numbers, reverse=True), "the better end is on top"
    assert column(page, "top1")[-1] == "–", "gaps are last"
    th = page.locator(f"{RESULTS} thead th[aria-sort]")
    assert th.get_attribute("aria-sort") == "descending"
    assert th.inner_text() == "top1"
    header(page, "top1").click()
    numbers = [float(text.split()[0]) for text in column(page, "top1") if text != "–"]
    assert numbers == sorted(numbers)
    assert column(page, "top1")[-1] == "–"
    header(page, "top1").click()
    assert column(page, "top1") == before
    header(page, "backbone").click()
    assert column(page, "backbone") == sorted(column(page, "backbone"))


def test_search_and_filters_leave_rows_out(open_page: Open) -> None:
    page = open_page()
    every = len(column(page, "top1"))
    page.locator(f"{RESULTS} input[type=search]").fill("cswin LINEAR")
    assert set(column(page, "attention")) == {"linear"}
    assert set(column(page, "backbone")) == {"cswin_micro"}
    assert page.locator(f"{RESULTS} output").inner_text() == f"1 of {every} rows"
    page.locator(f"{RESULTS} input[type=search]").fill("nothing like it")
    assert "No row fits" in page.locator(f"{RESULTS} tbody").inner_text()
    page.locator(f"{RESULTS} input[type=search]").fill("")
    page.locator(f"{RESULTS} .filters summary").click()
    page.locator(f"{RESULTS} .filters input[value='cswin_micro']").check()
    assert set(column(page, "backbone")) == {"cswin_micro"}
    page.locator(f"{RESULTS} .filters input[value='pvt_v2_micro']").check()
    assert set(column(page, "backbone")) == {"cswin_micro", "pvt_v2_micro"}
    page.keyboard.press("Escape")
    assert page.locator(f"{RESULTS} .filters").get_attribute("open") is None


def test_columns_are_hidden_and_shown(open_page: Open) -> None:
    page = open_page()
    assert header(page, "gmacs").count() == 1
    assert header(page, "top5").count() == 0
    page.locator(f"{RESULTS} .columns summary").click()
    page.locator(f"{RESULTS} .columns input[data-column=gmacs]").uncheck()
    page.locator(f"{RESULTS} .columns input[data-column=top5]").check()
    assert header(page, "gmacs").count() == 0
    assert header(page, "top5").count() == 1
    assert state(page) == {"results.hide": ["gmacs"], "results.show": ["top5"]}


def test_a_number_opens_what_it_rests_on(open_page: Open) -> None:
    page = open_page()
    page.locator(f"{RESULTS} input[type=search]").fill("pvt_v2_micro focused fashion")
    page.locator(f"{RESULTS} tbody button[data-opens=top1]").first.click()
    dialog = page.locator("dialog[open]")
    text = dialog.inner_text()
    for said in ("top1: pvt_v2_micro, focused", "Record of train", "commit", "To repeat it", "Certificate", "Recipe"):
        assert said in text
    page.keyboard.press("Escape")
    assert dialog.count() == 0
    assert page.evaluate("document.activeElement.dataset.opens") == "top1", "the focus is where it was"


def test_provenance_has_command_curve_resumes_and_certificate(open_page: Open) -> None:
    page = open_page()
    script = f"""() => {{
        const data = JSON.parse(document.getElementById("data").textContent);
        return data.tables.results.rows.findIndex((row) => data.records[row.train]?.key === "{RUN}");
    }}"""
    row = page.evaluate(script)
    page.locator(f"{RESULTS} tbody tr[data-row='{row}'] button[data-opens=top1]").click()
    dialog = page.locator("dialog[open]")
    text = dialog.inner_text()
    assert f"attention-bench again {EVIL}".split("\u2028")[0] in text
    assert "git checkout 7240aea" in text
    assert "Interrupted and resumed once: after 1.50 epochs." in text
    assert dialog.locator("svg.curve").count() == 2
    assert "from 75 to 85 in 3 epochs" in dialog.locator("svg.curve").first.get_attribute("aria-label")
    dialog.locator("summary", has_text="Recipe").click()
    assert dialog.locator("dt", has_text="weight_decay").is_visible()
    dialog.locator(".command button").click()
    assert copied(page, "git").startswith("git checkout 7240aea")
    dialog.locator(".close").click()
    assert page.locator("dialog[open]").count() == 0


def test_a_disturbed_number_and_a_failure_say_why(open_page: Open) -> None:
    page = open_page()
    page.locator(f"{RESULTS} tbody button", has_text="(disturbed)").first.click()
    assert "a neighbour </script>" in page.locator("dialog[open]").inner_text()
    page.keyboard.press("Escape")
    reasons = page.locator("[data-table=lacking] tbody")
    assert "not measured yet" in reasons.inner_text()
    reasons.locator("button", has_text="RuntimeError").click()
    assert f"Traceback\nRuntimeError: {EVIL}" == page.locator("dialog[open] pre.error").text_content()


def test_a_paired_difference_opens_its_trainings(open_page: Open) -> None:
    page = open_page()
    page.locator("[data-table=pairs] tbody button", has_text="+0.6").first.click()
    text = page.locator("dialog[open]").inner_text()
    assert re.search(r"It rests on \d+ records", text)
    assert "seed 4" in text


def test_published_numbers_are_beside_ours(open_page: Open) -> None:
    page = open_page()
    assert column(page, "params_m, theirs", "published")[0] == "5.7"
    assert column(page, "params_m, ours", "published")[0] == "5.72"
    assert "printed lower than elsewhere" in column(page, "reason", "published")[0]
    page.locator("[data-table=published] tbody button").first.click()
    assert "Record of costs" in page.locator("dialog[open]").inner_text()


def test_csv_is_what_is_shown_at_full_precision(open_page: Open) -> None:
    page = open_page()
    page.locator(f"{RESULTS} input[type=search]").fill("cswin")
    header(page, "top1").click()
    page.locator(f"{RESULTS} [data-copy=csv]").click()
    text = copied(page, "cswin")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [float(row["top1"]) for row in rows] == pytest.approx([76.9, 76.45, 74.05, 71.8])
    assert rows[0]["attention"].startswith("focused(focusing_factor=3, ")
    assert float(rows[0]["gmacs"]) == pytest.approx(0.00896, abs=1e-5)
    assert len(rows[0]["gmacs"]) > 6


def test_latex_is_what_is_shown(open_page: Open) -> None:
    page = open_page()
    page.locator(f"{RESULTS} input[type=search]").fill("cswin")
    page.locator(f"{RESULTS} [data-copy=latex]").click()
    text = copied(page, "toprule")
    assert text.count("\\\\\n") == 5
    assert "\\textbf{76.90 $\\pm$ 0.94}" in text
    assert "cswin\\_micro & focused(kernel\\_size=5)" in text
    assert text.index("\\toprule") < text.index("\\midrule") < text.index("\\bottomrule")
    page.locator(f"{RESULTS} input[type=search]").fill("img")
    page.locator(f"{RESULTS} [data-copy=latex]").click()
    text = copied(page, "/script")
    assert "$<$/script$>$" in text
    assert "\\&amp;" in text


def test_texts_to_paste(open_page: Open) -> None:
    page = open_page()
    page.locator("[data-copy-of=bibtex]").click()
    assert copied(page, "@misc").startswith("@misc{katharopoulos2020linear,")
    page.locator("[data-copy-of=methods-text]").click()
    assert copied(page, "FLOPs").startswith("Multiply-adds")


def test_axes_are_chosen(open_page: Open) -> None:
    page = open_page()
    drawn(page, "accuracy")
    art = page.locator("#art")
    assert "multiply-adds per image (GMACs)" in art.inner_text()
    page.get_by_label("against").select_option("latency of a batch (ms, median)")
    page.wait_for_function("document.querySelector('#art').dataset.shown.includes('latency')")
    assert "latency of a batch (ms, median)" in art.inner_text()
    explored(page)
    page.get_by_label("Across").select_option("latency_ms_p50")
    page.get_by_label("Up").select_option("images_per_s")
    page.wait_for_function("document.querySelector('#art').dataset.shown === 'latency_ms_p50 images_per_s'")
    assert state(page)["x"] == ["latency_ms_p50"]
    assert state(page)["accuracy.axis"] == ["latency of a batch (ms, median)"]


def explored(page: Any) -> None:
    page.locator("#tab-explore").click()
    page.wait_for_function("document.querySelector('#art').dataset.shown === 'gmacs top1'")


def test_axes_begin_with_two_numbers_that_a_row_has(open_page: Open, tmp_path: Path) -> None:
    """Trainings of one backbone, beside costs of another: no row has both an accuracy and multiply-adds."""
    counted = [each for each in quickstart() if each.cell["task"]["name"] == "costs" and each.metrics]
    path = tmp_path / "a.html"
    path.write_text(page_of([*fashion(tmp_path / "fashion"), counted[0]]), encoding="utf-8")
    page = open_page(path)
    page.locator("#tab-explore").click()
    page.wait_for_function("document.querySelector('#art').dataset.shown === 'train_loss top1'")
    assert page.locator("#art svg.marks path[aria-roledescription=point]").count() == 20
    assert "top1 (%)" in page.locator("#art").inner_text()


def test_figures_show_what_the_table_shows(open_page: Open) -> None:
    page = open_page()
    explored(page)
    points = page.locator("#art svg.marks path[aria-roledescription=point]")
    assert points.count() == 28, "rows with both numbers"
    page.locator(f"{RESULTS} input[type=search]").fill("cswin")
    page.wait_for_function("document.querySelectorAll('#art svg.marks path[aria-roledescription=point]').length === 4")
    assert "pvt_v2_micro" not in page.locator("#art").inner_text()


def test_zoom_and_hover(open_page: Open) -> None:
    page = open_page()
    explored(page)
    ticks = page.locator("#art svg.marks").text_content()
    page.get_by_role("button", name="Zoom in").click()
    page.wait_for_function("(ticks) => document.querySelector('#art svg.marks').textContent !== ticks", arg=ticks)
    page.get_by_role("button", name="Reset zoom").click()
    page.wait_for_function("(ticks) => document.querySelector('#art svg.marks').textContent === ticks", arg=ticks)
    page.locator("#art svg.marks path[aria-roledescription=point]").first.hover()
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert "cswin_micro" in page.locator("#vg-tooltip-element").inner_text()


def test_texts_under_the_pointer_are_no_markup(open_page: Open) -> None:
    page = open_page(hash="#figure=explore&x=latency_ms_p50&y=images_per_s&results.q=img")
    page.locator("#art").scroll_into_view_if_needed()
    page.locator("#art svg.marks path[aria-roledescription=point]").hover()
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert "<script>window.evil = 1" in page.locator("#vg-tooltip-element").inner_text()
    assert page.locator("#vg-tooltip-element img").count() == 0


def test_a_drawn_figure_is_enlarged(open_page: Open) -> None:
    page = open_page()
    drawn(page, "accuracy")
    before = page.locator("#art svg.marks").bounding_box()
    page.get_by_role("button", name="Enlarge").click()
    assert page.locator("#art svg.marks").bounding_box()["height"] > before["height"]
    page.keyboard.press("Escape")
    assert page.locator("#art svg.marks").bounding_box() == before
    assert page.evaluate("document.activeElement.textContent") == "Enlarge"


def test_an_attention_is_selected_everywhere(open_page: Open) -> None:
    page = open_page()
    drawn(page, "accuracy")
    page.locator(".chips button", has_text="linear").click()
    for table in ("results", "pairs"):
        rows = page.locator(f"[data-table={table}] tbody tr.selected")
        assert rows.count() > 0
        assert all("linear" in text for text in rows.all_inner_texts())
    assert page.locator("#art .dim").count() > 0
    faded = set(page.locator("#art text.dim").all_text_contents())
    assert "softmax" in faded
    assert "linear" not in faded
    drawn(page, "forest")
    assert "linear" not in page.locator("#art text.dim").all_text_contents()
    assert page.locator("#art .dim").count() > 0
    page.get_by_label("Only selected").check()
    assert set(column(page, "attention")) == {"linear"}
    page.get_by_role("button", name="Clear selection").click()
    assert page.locator("tr.selected").count() == 0
    assert page.locator("#art .dim").count() == 0
    page.locator(f"{RESULTS} tbody .name", has_text="softmax").first.click()
    assert page.locator(".chips button[aria-pressed=true]").all_inner_texts() == ["softmax"]


def test_a_point_selects_its_attention(open_page: Open) -> None:
    page = open_page()
    explored(page)
    page.locator("#art svg.marks path[aria-roledescription=point]").first.click()
    page.wait_for_selector(".chips button[aria-pressed=true]")
    assert page.locator(".chips button[aria-pressed=true]").count() == 1


def test_the_address_brings_all_of_it_back(open_page: Open) -> None:
    page = open_page()
    page.locator("#tab-explore").click()
    page.get_by_label("Across").select_option("latency_ms_p50")
    header(page, "top1").click()
    page.locator(f"{RESULTS} input[type=search]").fill("micro")
    page.locator(f"{RESULTS} .filters summary").click()
    page.locator(f"{RESULTS} .filters input[value='cswin_micro']").check()
    page.locator(f"{RESULTS} .columns summary").click()
    page.locator(f"{RESULTS} .columns input[data-column=gmacs]").uncheck()
    page.keyboard.press("Escape")
    page.locator(".chips button", has_text="softmax").click()
    page.locator("#theme").click()
    page.locator("#theme").click()
    shown = (column(page, "top1"), column(page, "attention"))
    again = open_page(hash=page.evaluate("location.hash"))
    assert (column(again, "top1"), column(again, "attention")) == shown
    assert again.locator(f"{RESULTS} th[aria-sort=descending]").inner_text() == "top1"
    assert header(again, "gmacs").count() == 0
    assert again.locator(f"{RESULTS} input[type=search]").input_value() == "micro"
    assert again.locator("tr.selected").count() > 0
    assert again.locator("html").get_attribute("data-theme") == "dark"
    assert again.get_by_label("Across").input_value() == "latency_ms_p50"
    assert again.evaluate("location.hash") == page.evaluate("location.hash")


MEANINGLESS = ["#hay", "#results.sort=hay:asc&x=hay&att=hay", "#results.f=[&theme=hay&figure=hay", "#%"]


@pytest.mark.parametrize("hash", MEANINGLESS)
def test_an_address_that_means_nothing_is_harmless(open_page: Open, hash: str) -> None:
    page = open_page(hash=hash)
    assert len(column(page, "top1")) > 20


def test_without_a_pointer(open_page: Open) -> None:
    page = open_page()
    focused = "document.activeElement"
    page.keyboard.press("Tab")
    assert page.evaluate(f"{focused}.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate(f"{focused}.id") == "results"
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate(f"{focused}.textContent") == "Columns"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    assert page.evaluate(f"{focused}.textContent") == "Columns"
    for _ in range(3 + page.locator(f"{RESULTS} thead button").count()):
        page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate(f"{focused}.closest('tbody') !== null"), "one stop in all cells"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    assert page.evaluate(f"{focused}.closest('tr').rowIndex") == 2
    while not page.evaluate(f"{focused}.dataset.opens"):
        page.keyboard.press("ArrowLeft")
    name = page.evaluate(f"{focused}.dataset.opens")
    page.keyboard.press("Enter")
    dialog = page.locator("dialog[open]")
    assert dialog.count() == 1
    for _ in range(30):
        page.keyboard.press("Tab")
        assert page.evaluate(f"{focused} === document.body || {focused}.closest('dialog') !== null"), "it stays inside"
    page.keyboard.press("Escape")
    assert page.evaluate(f"{focused}.dataset.opens") == name
    page.keyboard.press("Tab")
    assert not page.evaluate(f"{focused}.closest('tbody') !== null")


def luminance(page: Any, selector: str) -> float:
    colour = page.evaluate("(s) => getComputedStyle(document.querySelector(s)).backgroundColor", selector)
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3


def test_dark_and_light(open_page: Open) -> None:
    assert luminance(open_page(color_scheme="light"), "body") > 200
    page = open_page(color_scheme="dark")
    assert luminance(page, "body") < 40
    page.locator("#theme").click()
    assert page.locator("#theme").inner_text() == "Theme: light"
    assert luminance(page, "body") > 200


def test_print(open_page: Open) -> None:
    page = open_page(color_scheme="dark", viewport={"width": 700, "height": 500})
    drawn(page, "accuracy")
    page.emulate_media(media="print")
    assert not page.locator(".tools").first.is_visible()
    assert not page.locator("nav").is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflow") == "visible"
    assert luminance(page, "tbody td") > 250
    assert page.pdf().startswith(b"%PDF")


def test_who_prints_without_scrolling_gets_the_figure_too(open_page: Open) -> None:
    page = open_page(viewport={"width": 700, "height": 300})
    page.wait_for_function("document.querySelector('#art svg.marks') !== null")
    assert page.evaluate("scrollY") == 0


def test_a_command_is_broken_before_an_option_not_within_its_dashes(open_page: Open) -> None:
    page = open_page(viewport={"width": 390, "height": 800})
    page.locator(f"{RESULTS} tbody button[data-opens=top1]").first.click()
    options = page.locator("dialog[open] .command .whole")
    assert options.all_inner_texts() == ["--seed", "--out"]
    for option in options.all():
        assert option.evaluate("(span) => span.getClientRects().length") == 1


def test_a_narrow_screen_is_not_wider_than_it_is(open_page: Open) -> None:
    page = open_page(viewport={"width": 390, "height": 800})
    drawn(page, "accuracy")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_nothing_moves_for_those_who_ask_for_it(open_page: Open) -> None:
    page = open_page(reduced_motion="reduce")
    page.locator(f"{RESULTS} tbody button[data-opens]").first.click()
    assert page.evaluate("document.getAnimations().length") == 0
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
