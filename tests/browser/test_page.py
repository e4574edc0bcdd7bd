"""The page of an answer in a real browser: from a file, offline, quick to open and quick to scrub."""

import json
from dataclasses import replace

import numpy as np
import pytest
from playwright.sync_api import expect

from medv_lab.views.page import unmasking_html
from tests.browser.conftest import SCREENSHOTS
from tests.views.test_page import large_trace

pytestmark = pytest.mark.browser

LENGTH = 256
MOST_BYTES, MOST_MILLISECONDS, LEAST_FRAMES = 600_000, 1000, 30
SCRUB = """async (frames) => {
  const slider = document.querySelector("#pass");
  const passes = Number(slider.max) + 1;
  const next = () => new Promise(requestAnimationFrame);
  await next();
  const start = performance.now();
  for (let frame = 0; frame < frames; frame++) {
    slider.value = (frame * 3) % passes;
    slider.dispatchEvent(new Event("input"));
    await next();
  }
  return frames / ((performance.now() - start) / 1000);
}"""
LOADED = """() => new Promise((done) => setTimeout(
  () => done(performance.getEntriesByType("navigation")[0].loadEventEnd)))"""


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    path = unmasking_html(large_trace(LENGTH)).save(tmp_path_factory.mktemp("page") / "answer.html")
    assert path.stat().st_size < MOST_BYTES
    return path.as_uri()


def test_it_opens_in_under_a_second_and_scrubs_at_thirty_frames_without_a_network(address, open_tab):
    opened, scrubbed = [], []
    for _ in range(3):  # the machine may be busy with something else; the best of three counts
        tab = open_tab(viewport={"width": 1600, "height": 1000}, offline=True)
        requests = []
        tab.page.on("request", lambda request, requests=requests: requests.append(request.url))
        tab.page.goto(address)
        opened.append(tab.page.evaluate(LOADED))
        scrubbed.append(tab.page.evaluate(SCRUB, 120))
        assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
        assert tab.errors == []
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    measured = {"milliseconds to open": opened, "frames a second": scrubbed}
    (SCREENSHOTS / "page.json").write_text(json.dumps(measured, indent=1))
    print(measured)
    assert min(opened) < MOST_MILLISECONDS
    assert max(scrubbed) >= LEAST_FRAMES


@pytest.mark.parametrize(
    ("width", "scheme"), [(400, "light"), (400, "dark"), (1600, "light"), (1600, "dark")]
)
def test_it_fits_narrow_and_wide_windows_in_both_themes(address, open_tab, width, scheme):
    tab = open_tab(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = tab.page
    page.goto(address)
    page.hover('.token[data-position="7"]')
    tab.screenshot(f"page-{width}-{scheme}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".player").get_attribute("data-theme") == scheme
    assert page.locator("#details h2").inner_text() == "Position 7, block 0"
    assert tab.errors == []


def test_it_is_worked_by_keyboard(address, open_tab):
    tab = open_tab(viewport={"width": 1000, "height": 900})
    page, trace = tab.page, large_trace(LENGTH)
    page.goto(address)
    filled = page.locator("#canvas .token:not(.masked)")
    for key, count in (("Home", 0), ("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", LENGTH)):
        page.keyboard.press(key)
        assert filled.count() == count
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert int(filled.get_attribute("data-position")) == trace.position[0]
    page.keyboard.press(" ")
    expect(filled.nth(3)).to_be_visible()
    page.keyboard.press(" ")
    page.focus('.token[tabindex="0"]')
    page.keyboard.press("End")
    assert page.locator("#details h2").inner_text().startswith(f"Position {LENGTH - 1},")
    tab.screenshot("page-keyboard")
    assert tab.errors == []


def test_markup_in_a_token_stays_text(open_tab, tmp_path):
    trace = large_trace(16)
    pieces = {token: b"<img src=x onerror=document.title='run'>" for token in trace.pieces}
    path = unmasking_html(replace(trace, pieces=pieces), np.zeros((9, 9), np.uint8)).save(tmp_path / "x.html")
    tab = open_tab()
    tab.page.goto(path.as_uri())
    assert tab.page.title() == "Unmasking"
    assert tab.page.locator("#canvas img").count() == 0
    assert "<img" in tab.page.locator('.token[data-position="0"]').inner_text()
    assert tab.errors == []


def test_given_tokens_and_drafts_are_shown_as_such(open_tab, tmp_path):
    trace = large_trace(16)
    first = int(trace.position[-1])
    given = np.full(18, trace.mask_token_id)
    given[17] = trace.token_id[0]
    drafts = {"draft_step": np.array([2]), "draft_position": np.array([first])}
    longer = replace(
        trace, gen_length=18, block_length=9, given=given, **drafts, draft_token=trace.token_id[1:2]
    )
    tab = open_tab()
    page = tab.page
    page.goto(unmasking_html(longer).save(tmp_path / "x.html").as_uri())
    page.keyboard.press("Home")
    label = trace.piece(trace.token_id[0]).strip()
    assert page.locator("#canvas .token:not(.masked)").all_inner_texts() == [label]
    token = page.locator(f'#canvas .token[data-position="{first}"]')
    shown = "node => getComputedStyle(node, '::after').content"
    for key, draft in (
        ("ArrowRight", ""),
        ("ArrowRight", ""),
        ("ArrowRight", trace.piece(trace.token_id[1])),
    ):
        page.keyboard.press(key)
        assert (token.get_attribute("data-draft") or "") == draft.strip()
    assert draft.strip() in token.evaluate(shown)
    assert draft.strip() in token.get_attribute("aria-label")
    token.hover()
    assert draft.strip() in page.locator("#details").inner_text()
    page.hover('#canvas .token[data-position="17"]')
    assert "before the first pass" in page.locator("#details").inner_text()
    tab.screenshot("page-given")
    page.uncheck("#drafts")
    assert draft.strip() not in token.evaluate(shown)
    assert page.locator("#sign-given").is_visible() and not page.locator("#sign-drafts").is_visible()
    page.goto(unmasking_html(trace).save(tmp_path / "y.html").as_uri())
    assert not page.locator("#sign-given").is_visible() and not page.locator("#with-drafts").is_visible()
    assert tab.errors == []
