"""The page in a real browser: Chromium without a window, at phone and desktop width, light and dark, and on paper.

Needs a Chromium or Chrome on the path (Debian and Ubuntu: apt-get install chromium) and the extra ``browser``.
"""

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="the extra 'browser' is not installed")
pypdf = pytest.importorskip("pypdf", reason="the extra 'browser' is not installed")
axe_playwright_python = pytest.importorskip(
    "axe_playwright_python", reason="the extra 'browser' is not installed"
)

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PHONE, DESKTOP = (360, 740), (1280, 900)
VIEWS = [(size, scheme) for size in (PHONE, DESKTOP) for scheme in ("light", "dark")]
PAPER = 703  # CSS pixels between the margins of an A4 sheet: 186 mm


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium or Chrome on the path")
    flags = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # root has no sandbox
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=found, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(html: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html)
    return path.as_uri()


@pytest.fixture
def view(browser: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Open the page in the size and colours of ``request.param``."""
    (width, height), scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    tab = context.new_page()
    tab.complaints, tab.requests = [], []
    tab.on("console", lambda message: tab.complaints.append(message.text))
    tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
    tab.on("request", lambda asked: tab.requests.append(asked.url))
    tab.goto(address)
    yield tab
    context.close()


every_view = pytest.mark.parametrize("view", VIEWS, indirect=True, ids=[f"{s[0]}-{c}" for s, c in VIEWS])
phone = pytest.mark.parametrize("view", [(PHONE, "light")], indirect=True, ids=["360"])
paper = pytest.mark.parametrize("view", [((PAPER, 1000), "dark")], indirect=True, ids=["paper"])


@every_view
def test_nothing_is_complained_about_and_nothing_asked_for(view: Any, address: str) -> None:
    assert view.complaints == []
    assert view.requests == [address]


@every_view
def test_the_page_is_never_wider_than_the_window(view: Any) -> None:
    width = view.viewport_size["width"]
    assert view.evaluate("document.documentElement.scrollWidth") == width
    beyond = view.evaluate(
        """width => [...document.querySelectorAll("body *")]
            .filter(e => !e.closest(".box") && !e.closest("svg") && !e.matches(".skip"))
            .filter(e => e.getBoundingClientRect().right > width + 1).map(e => e.outerHTML.slice(0, 80))""",
        width,
    )
    assert beyond == []


@phone
def test_letters_are_large_enough_on_a_phone(view: Any) -> None:
    small = view.evaluate(
        """() => [...document.querySelectorAll("body *")]
            .filter(e => !e.closest("svg") && [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()))
            .filter(e => parseFloat(getComputedStyle(e).fontSize) < 16).map(e => e.outerHTML.slice(0, 80))"""
    )
    assert small == []
    letters = view.evaluate(
        """() => Math.min(...[...document.querySelectorAll("svg text")].map(
            t => parseFloat(getComputedStyle(t).fontSize) * t.ownerSVGElement.getBoundingClientRect().width / 480))"""
    )
    assert (
        letters > 9.3
    )  # of charts, in pixels of the screen; their numbers stand in the caption and the table


@every_view
def test_charts_do_not_collide_with_themselves(view: Any) -> None:
    outside = view.evaluate(
        """() => [...document.querySelectorAll("figure svg")].flatMap(svg => {
            const box = svg.getBoundingClientRect();
            return [...svg.querySelectorAll("text")].map(t => [t, t.getBoundingClientRect()])
                .filter(([t, r]) => r.left < box.left - 2 || r.right > box.right + 2 || r.top < box.top - 2 || r.bottom > box.bottom + 2)
                .map(([t]) => svg.closest("figure").id + ": " + t.textContent)})"""
    )
    assert outside == []
    overlapping = view.evaluate(
        """() => [...document.querySelectorAll("figure svg")].flatMap(svg => {
            const texts = [...svg.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
            const cut = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
                && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4;
            return texts.flatMap(([name, r], i) => texts.slice(i + 1).filter(([_, q]) => cut(r, q))
                .map(([other]) => svg.closest("figure").id + ": " + name + " | " + other))})"""
    )
    assert overlapping == []


@pytest.mark.parametrize("view", [VIEWS[0], VIEWS[3]], indirect=True, ids=["360-light", "1280-dark"])
def test_axe_finds_nothing(view: Any) -> None:
    script = Path(axe_playwright_python.__file__).with_name("axe.min.js")
    view.evaluate(script.read_text())
    view.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    found = view.evaluate("axe.run({resultTypes: ['violations']})")
    assert [(rule["id"], rule["nodes"][0]["html"]) for rule in found["violations"]] == []
    names = {rule["id"] for rule in found["passes"]}
    assert {
        "color-contrast",
        "landmark-one-main",
        "page-has-heading-one",
        "th-has-data-cells",
        "svg-img-alt",
    } <= names


@every_view
def test_colours_follow_the_reader(view: Any) -> None:
    dark = view.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    ground = view.evaluate("getComputedStyle(document.body).backgroundColor")
    axis = view.evaluate("getComputedStyle(document.querySelector('#chart-equity svg text')).fill")
    assert (sum(channels(ground)) < 150) == dark
    assert (sum(channels(axis)) > 600) == dark


def channels(colour: str) -> list[int]:
    return [int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]


@paper
def test_paper_is_white_and_nothing_is_cut_at_the_side(view: Any) -> None:
    view.emulate_media(media="print")
    assert view.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert view.evaluate("document.documentElement.scrollWidth") <= PAPER
    cut = view.evaluate(
        """() => [...document.querySelectorAll(".box")].filter(b => b.scrollWidth > b.clientWidth + 1)
            .map(b => b.innerText.slice(0, 60) + " " + b.scrollWidth)"""
    )
    assert cut == []


@paper
def test_a_printed_report_has_every_row_whole(view: Any) -> None:
    data = view.pdf(prefer_css_page_size=True)
    sheets = pypdf.PdfReader(io.BytesIO(data)).pages
    assert all(float(sheet.mediabox.width) == pytest.approx(595, abs=1) for sheet in sheets)
    texts = ["".join(normalize("NFKC", sheet.extract_text()).split()) for sheet in sheets]
    rows = view.evaluate(
        """() => [...document.querySelectorAll("section tr")].filter(r => !r.closest("thead"))
            .map(r => [...r.cells].map(c => c.textContent.replace(/\\s+/g, "")))"""
    )
    assert len(rows) > 300
    torn = [cells for cells in rows if not any(all(cell in text for cell in cells) for text in texts)]
    assert torn == []
    assert "research:rounds2,passes64;" in "".join(texts), "details are closed on paper"
    assert len(sheets) <= 40
