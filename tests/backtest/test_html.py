"""The page: strict form, no request, one name per figure, colours that can be read, the same bytes twice."""

import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from halfstep.backtest.content import TABLES, Report
from halfstep.backtest.html import DARK, LIGHT, page

from .made_up import made_up_report, without

VOID = {"meta", "br", "hr", "img", "input", "link"}
CONTRAST = 4.5


class Reader(HTMLParser):
    """Reads a page strictly: every element is closed in order. Keeps elements, headings, and text by data-key."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[tuple[str, dict[str, str]]] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.headings: list[str] = []
        self.texts: dict[str, str] = {}
        self.keys: Counter[str] = Counter()
        self.visible = ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"an attribute twice: {tag} {names}"
        found = {name: value or "" for name, value in attrs}
        self.elements.append((tag, found))
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(tag)
        if "data-key" in found:
            self.keys[found["data-key"]] += 1
            self.texts[found["data-key"]] = ""
        if tag not in VOID:
            self.open.append((tag, found))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"closes nothing: {tag}"
        assert self.open[-1][0] == tag, f"closes {tag} inside {self.open[-1][0]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for _, attributes in self.open:
            if "data-key" in attributes:
                self.texts[attributes["data-key"]] += data
        if not any(tag == "style" for tag, _ in self.open):
            self.visible += f"{data} "


@pytest.fixture(scope="module")
def reader(html: str) -> Reader:
    return Reader(html)


def test_the_page_is_strict(html: str, reader: Reader) -> None:
    assert html.startswith("<!doctype html>")
    assert dict(reader.elements)["html"]["lang"] == "en"
    ids = Counter(attributes["id"] for _, attributes in reader.elements if "id" in attributes)
    assert max(ids.values()) == 1, ids.most_common(3)
    for _, attributes in reader.elements:
        for name in ("aria-labelledby", "href"):
            for target in attributes.get(name, "").split():
                assert target.removeprefix("#") in ids, target


def test_nothing_is_asked_for(html: str, reader: Reader) -> None:
    tags = Counter(tag for tag, _ in reader.elements)
    assert not {"script", "link", "iframe", "img", "object", "embed", "form", "base"} & set(tags)
    assert "@import" not in html
    assert "@font-face" not in html
    for target in re.findall(r"url\(([^)]*)\)", html):
        assert target.startswith("#")
    for _, attributes in reader.elements:
        assert not any(name.startswith("on") for name in attributes)
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")


def test_headings_tables_and_pictures_are_named(reader: Reader) -> None:
    assert reader.headings.count("h1") == 1
    assert reader.headings[0] == "h1"
    levels = [int(heading[1]) for heading in reader.headings]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    order = [tag for tag, _ in reader.elements]
    assert order.count("table") == order.count("caption")
    assert all(order[i + 1] == "caption" for i, tag in enumerate(order) if tag == "table")
    assert all(
        attributes.get("scope") in ("row", "col") for tag, attributes in reader.elements if tag == "th"
    )
    assert all(
        attributes.get("role") == "img" and attributes.get("aria-labelledby")
        for tag, attributes in reader.elements
        if tag == "svg"
    )
    links = [attributes for tag, attributes in reader.elements if tag == "a"]
    assert links[0] == {"class": "skip", "href": "#summary"}


def test_the_order_of_the_page(html: str) -> None:
    order = ("settings", "summary", "tester", "uncertainty", "months", "charts", "trading", "optimizers", "assumptions", "positions", "versions")  # fmt: skip
    places = [html.index(f'<h2 id="{name}"') for name in order]
    assert places == sorted(places)
    assert html.count("<h2") == len(order)
    assert html.index('data-key="baselines.0.net"') < places[2]
    assert "not financial advice" in html[places[-1] :]


def test_every_figure_has_one_place(report: Report, reader: Reader) -> None:
    assert max(reader.keys.values()) == 1, reader.keys.most_common(3)
    for row in report.rows():
        assert reader.texts[row.key] == row.text, row.key
    for table in report.tables:
        if table.kind.form == "page":
            for number, texts in enumerate(table.texts()):
                for column, text in list(zip(table.kind.columns, texts, strict=True))[
                    1:
                ]:  # the first names the row
                    assert reader.texts[f"{table.kind.key}.{number}.{column.name}"] == text


def test_words_are_escaped(html: str) -> None:
    assert "Commission &lt; 5 USD &amp; no swap." in html


def test_long_lists_show_both_ends(html: str, reader: Reader) -> None:
    assert "Positions: the first and the last 50 of 130" in html
    assert "positions.99.net" in reader.keys
    assert "positions.100.net" not in reader.keys


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_can_be_read(palette: dict[str, str]) -> None:
    assert set(LIGHT) == set(DARK)
    for name in ("ink", "faint", "link", "blue", "orange", "green", "pink"):
        assert contrast(palette[name], palette["paper"]) >= CONTRAST, name
    for name in ("ink", "faint"):
        assert contrast(palette[name], palette["soft"]) >= CONTRAST, name
    assert contrast(palette["warn-ink"], palette["warn"]) >= CONTRAST
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2: (lighter + 0.05) / (darker + 0.05) of the relative luminances."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_page_of_a_month_is_small(html: str) -> None:
    assert len(html.encode()) < 2_000_000


@pytest.mark.parametrize(
    "report",
    [
        without(
            made_up_report(positions=0, seeds=1), "baselines", "band", "random", "pbo", "optimizers", "loss"
        ),
        made_up_report(positions=1),
        made_up_report(positions=0, bars=1),
        without(made_up_report(), *(kind.key for kind in TABLES)),
    ],
    ids=["no position, one seed, no comparison", "one position", "one bar", "no table"],
)
@pytest.mark.pitfall("T28")
def test_degenerate_results(report: Report) -> None:
    text = page(report)
    reader = Reader(text)
    assert not re.search(r"\bNone\b|(?<![-.\d])-0(\.0+)?(?![.\d])", reader.visible)
    assert not re.search(r"\b(nan|inf|infinity)\b", text, flags=re.IGNORECASE)
    positions = report.table("positions")
    shown = sum(key.startswith("positions.") and key.endswith(".net") for key in reader.keys)
    assert shown == (0 if positions is None else positions.frame.height)
    assert "first and the last" not in text


@pytest.mark.pitfall("T27")
def test_same_seed_new_process_same_bytes(html: str) -> None:
    folder = Path(__file__).parent
    program = "import sys; sys.path.insert(0, sys.argv[1]); from made_up import made_up_report; from halfstep.backtest.html import page; sys.stdout.buffer.write(page(made_up_report()).encode())"
    for seed in ("0", "1"):
        found = subprocess.run(
            [sys.executable, "-c", program, str(folder)],
            capture_output=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path), "PATH": ""},
        ).stdout
        assert found == html.encode()
