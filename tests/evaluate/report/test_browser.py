"""The page in a real browser: nothing foreign runs, our script does, and without it everything can still be read."""

from __future__ import annotations

import os
import shutil

import pytest

from flipguard.evaluate.report import html, table
from flipguard.evaluate.report.text import anchor

pytestmark = pytest.mark.slow


def _chromium():
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = _chromium()
    if path is None:
        pytest.skip("needs a Chromium on the PATH, or named by CHROMIUM")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, tmp_path):
    """Opens a page from disk; gives it back with everything the console said and every address it asked for."""
    contexts = []

    def visit(text, *, width=1280, scripts=True, scheme="light", fragment=""):
        path = tmp_path / "report.html"
        path.write_text(text, encoding="utf-8")
        context = browser.new_context(
            viewport={"width": width, "height": 800}, java_script_enabled=scripts, color_scheme=scheme
        )
        contexts.append(context)
        page = context.new_page()
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.goto(path.as_uri() + fragment)
        return page, said, asked

    yield visit
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def pairs(make_scored):
    return make_scored(300)


@pytest.fixture(scope="module")
def report(pairs, make_comparison):
    return html.render(make_comparison(pairs), pairs)


def test_nothing_that_a_model_wrote_runs_or_loads(visit, hostile_example):
    page, said, asked = visit(html.render(*hostile_example))
    page.evaluate("document.querySelectorAll('details').forEach((card) => { card.open = true; })")
    page.mouse.move(300, 300)
    page.wait_for_timeout(300)
    assert page.evaluate("window.__pwned") is None
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert page.evaluate("document.scripts.length") == 1
    assert page.evaluate("getComputedStyle(document.body).display") == "block"


def test_hostile_flips_can_be_filtered_and_opened(visit, hostile_example, hostile_texts):
    page, said, _ = visit(html.render(*hostile_example))
    page.fill("#words", hostile_texts[0])
    page.wait_for_timeout(200)
    assert page.evaluate("[...document.querySelectorAll('details')].filter((card) => !card.hidden).length") >= 4
    page.locator("details:visible > summary").first.click()
    assert page.evaluate("window.__pwned") is None
    assert said == []


def test_the_filter_counts_and_hides(visit, report, pairs):
    page, said, _ = visit(report)
    worse = [pair for pair in pairs if pair.outcome == "negative_flip"]
    page.select_option("#kind", "negative_flip")
    page.wait_for_timeout(200)
    assert page.locator("details:visible").count() == len(worse)
    assert page.text_content("#found").startswith(f"{len(worse)} of")
    page.select_option("#slice", label="数学")
    page.wait_for_timeout(200)
    assert page.locator("details:visible").count() == sum("数学" in pair.categories for pair in worse)
    page.select_option("#slice", "")
    page.fill("#words", f"example {worse[0].id.removeprefix('q-')} behave")
    page.wait_for_timeout(200)
    assert page.locator("details:visible").count() >= 1
    assert said == []


def test_flips_are_filtered_by_how_far_the_score_moved(visit, report, pairs):
    page, said, _ = visit(report)
    page.select_option("#kind", "negative_flip")
    page.fill("#least", "0.3")
    page.wait_for_timeout(200)
    worse = [pair for pair in pairs if pair.outcome == "negative_flip" and float(f"{-pair.change:.4g}") >= 0.3]
    assert page.locator("details:visible").count() == len(worse) > 0
    assert said == []


def test_titles_of_tables_are_read_from_left_to_right_on_a_phone(visit, judged_pairs, make_comparison):
    page, _, _ = visit(html.render(make_comparison(judged_pairs), judged_pairs), width=390)
    sizes = page.evaluate("[...document.querySelectorAll('caption')].map((one) => one.getBoundingClientRect())")
    assert all(size["width"] > size["height"] for size in sizes if size["width"])


def test_a_link_to_a_flip_opens_it(visit, report, pairs):
    flip = next(pair for pair in pairs if pair.outcome == "negative_flip")
    name = anchor(flip.id, flip.repeat)
    page, _, _ = visit(report, fragment=f"#{name}")
    assert page.locator(f"#{name}").get_attribute("open") is not None
    assert page.locator(f"#{name} .id").text_content() == flip.id


@pytest.mark.parametrize(("broken", "told"), [(False, "copied"), (True, "selected")])
def test_an_id_is_copied_or_at_least_selected(visit, report, pairs, broken, told):
    flip = next(pair for pair in pairs if pair.outcome == "negative_flip")
    name = anchor(flip.id, flip.repeat)
    page, said, _ = visit(report, fragment=f"#{name}")
    copy = (
        "() => Promise.reject(new Error('no'))"
        if broken
        else "(text) => { window.taken = text; return Promise.resolve(); }"
    )
    page.evaluate(f"Object.defineProperty(navigator, 'clipboard', {{ value: {{ writeText: {copy} }} }})")
    page.locator(f"#{name} .tags button").click()
    page.wait_for_timeout(100)
    assert page.text_content(f"#{name} .tags button") == told
    assert page.evaluate("window.taken ?? getSelection().toString()") == flip.id
    assert said == []


def test_the_script_marks_the_same_words_as_python(visit, pairs, make_comparison):
    """The worst flips are marked when the page is made, the others when they are opened: by the same rule."""
    page, said, _ = visit(html.render(make_comparison(pairs), pairs))
    result = page.evaluate(
        """async () => {
          const card = [...document.querySelectorAll('details.negative_flip:not([data-plain])')][0];
          const boxes = [...card.querySelectorAll('.answer > .text')];
          const before = boxes.map((box) => box.innerHTML);
          boxes.forEach((box) => { box.textContent = box.textContent; });
          card.dataset.plain = '';
          card.open = true;
          await new Promise((done) => setTimeout(done, 200));
          return [before, boxes.map((box) => box.innerHTML)];
        }"""
    )
    assert result[0] == result[1]
    assert "<mark>" in result[0][0]
    assert said == []


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize("name", ["scored", "hostile", "binary", "judged", "overview"])
def test_the_page_never_scrolls_sideways(name, width, visit, request, report, make_comparison):
    if name == "scored":
        text = report
    elif name == "judged":
        judged = request.getfixturevalue("judged_pairs")
        text = html.render(make_comparison(judged), judged)
    elif name == "overview":
        rows = [("DPO + FlipGuard", request.getfixturevalue("binary_example")[0])] * 3
        text = table.index_html(rows, tests=[{"first": "DPO", "second": "PPO", "p_value": 0.01}] * 2)
    else:
        text = html.render(*request.getfixturevalue(f"{name}_example"))
    page, _, _ = visit(text, width=width)
    page.evaluate("[...document.querySelectorAll('details')].slice(0, 30).forEach((card) => { card.open = true; })")
    page.wait_for_timeout(100)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_everything_can_be_read_without_javascript(visit, report):
    page, _, _ = visit(report, scripts=False)
    assert page.locator("h1").is_visible()
    assert page.locator("#filter").is_hidden()
    first = page.locator("details").first
    assert first.is_visible()
    assert not first.locator(".answers").is_visible()
    first.locator("summary").click()
    assert first.locator(".answers").is_visible()


def test_the_keyboard_reaches_and_opens_a_flip(visit, report):
    page, _, _ = visit(report)
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.get_attribute("open") is not None


def test_dark_mode_is_dark(visit, report):
    page, _, _ = visit(report, scheme="dark")
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) < 150
