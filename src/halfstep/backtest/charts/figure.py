"""From a matplotlib drawing to one SVG element that lives inside a page.

Colours are CSS variables of the page, so that a chart follows light, dark and print. Text stays text in the fonts of
the reader's system. Ids carry the chart's key, no date and no random salt goes in: equal data give equal bytes.

Size: 480 units wide with letters of 17, because a phone shows 480 units on about 330 pixels. On wider screens the page
makes the letters smaller, never larger, so that nothing laid out here can collide.
"""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Int64, Num
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from halfstep.backtest.figures import SPACE, number, text_of

WIDTH = 480  # units of the SVG
POINTS = 2000  # of a curve
MARKS = 1000  # of a scatter plot
TABLE_ROWS = 32  # of a curve's data table; whole curves are in the Parquet tables

# Stand-ins that become CSS variables. The page gives them shades of Okabe and Ito's colours, which the colour-blind
# tell apart, dark enough on white and light enough on black for a contrast of 4.5 to 1.
BLUE, ORANGE, GREEN, PINK = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
INK, FAINT, PAPER = "#010203", "#010204", "#fdfefd"
SERIES = (BLUE, ORANGE, GREEN, PINK)
HATCHES = ("", "//", "\\\\", "xx")
DASHES = ("-", "--", "-.", ":")
VARIABLES = {
    BLUE: "var(--blue)", ORANGE: "var(--orange)", GREEN: "var(--green)", PINK: "var(--pink)",
    INK: "currentColor", FAINT: "var(--faint)", PAPER: "var(--paper)",
}  # fmt: skip

_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "halfstep", "font.family": "sans-serif", "font.size": 17,
    "axes.labelsize": 16, "xtick.labelsize": 16, "ytick.labelsize": 16, "legend.fontsize": 15,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": FAINT, "axes.labelcolor": INK,
    "axes.grid": True, "grid.color": FAINT, "grid.alpha": 0.3, "axes.axisbelow": True,
    "xtick.color": FAINT, "ytick.color": FAINT, "xtick.labelcolor": INK, "ytick.labelcolor": INK, "text.color": INK,
    "axes.facecolor": "none", "figure.facecolor": "none", "savefig.facecolor": "none",
    "legend.frameon": False, "legend.handlelength": 1.6, "hatch.linewidth": 1.4, "lines.linewidth": 2.0,
    "axes.unicode_minus": True, "date.converter": "concise", "axes.formatter.useoffset": False,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class DataTable:
    """The numbers of a chart, as text: headings and rows."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """One chart.

    Attributes:
        key: its name, the prefix of its ids.
        title: what it shows.
        message: a sentence with the numbers that matter.
        svg: the element, or nothing where there is nothing to draw.
        table: its data.
        is_wide: whether the page gives it a whole row.
    """

    key: str
    title: str
    message: str
    svg: str
    table: DataTable
    is_wide: bool = False


def draw(
    key: str,
    title: str,
    message: str,
    plot: Callable[[Figure], None],
    *,
    table: DataTable,
    height: int = 300,
    is_wide: bool = False,
) -> Chart:
    """Return the chart that ``plot`` draws on an empty figure of 480 by ``height`` units."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        plot(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = _inline(key, title, message, buffer.getvalue())
    return Chart(key=key, title=title, message=message, svg=svg, table=table, is_wide=is_wide)


def nothing(key: str, title: str, reason: str) -> Chart:
    """Return a chart without a picture; ``reason`` says why."""
    return Chart(key=key, title=title, message=reason, svg="", table=DataTable(heads=(), rows=()))


def one_axes(figure: Figure, xlabel: str, ylabel: str) -> Axes:
    """Return the only axes of a figure, labelled."""
    axes: Axes = figure.subplots()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    return axes


def thin(values: Num[np.ndarray, " point"], *, points: int = POINTS) -> Int64[np.ndarray, " kept"]:
    """Return the places of at most ``points`` values that draw the same curve.

    The curve is cut into columns; of each the least and the greatest value stay, and both ends of the curve. No spike
    is lost: the greatest and the least value of the whole are among those kept.
    """
    count = len(values)
    if count <= points:
        return np.arange(count)
    columns = (points - 2) // 2
    width = -(-count // columns)
    padded = np.pad(values, (0, columns * width - count), mode="edge").reshape(columns, width)
    starts = np.arange(columns) * width
    kept = np.concatenate([starts + padded.argmin(axis=1), starts + padded.argmax(axis=1), [0, count - 1]])
    return np.unique(np.minimum(kept, count - 1))


def sample(count: int, *, rows: int = TABLE_ROWS) -> Int64[np.ndarray, " kept"]:
    """Return at most ``rows`` evenly spaced places out of ``count``, both ends among them."""
    return np.unique(np.linspace(0, max(0, count - 1), min(count, rows)).round().astype(np.int64))


def table_note(points: int, source: str) -> str:
    """Say that a data table shows a part of a curve's points, and where the whole is."""
    return f"{TABLE_ROWS} of {count(points)} points; all are in {source}." if points > TABLE_ROWS else ""


def dates(seconds: Num[np.ndarray, " point"]) -> np.ndarray:
    """Return server seconds as times that matplotlib puts on an axis."""
    return np.asarray(seconds, dtype=np.int64).astype("datetime64[s]")


def date_axis(axes: Axes) -> None:
    """Give an axis of times a handful of short labels."""
    locator = AutoDateLocator(minticks=3, maxticks=6)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def thousands(axis: Any, digits: int = 0) -> None:
    """Write the numbers of an axis with spaces between thousands."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value, digits)))


def count(value: int | np.integer) -> str:
    """Return a whole number with no-break spaces between thousands."""
    return text_of(int(value), "count")


def signed(value: float, digits: int) -> str:
    """Return a number with its sign, and 0 without one."""
    text = number(value, digits)
    return text if text.startswith("-") or not text.strip("0.") else f"+{text}"


def day(seconds: int | np.integer) -> str:
    """Return ``18 Dec 2023`` of server seconds."""
    stamp = np.datetime64(int(seconds), "s").item()
    return f"{stamp.day}{SPACE}{stamp:%b}{SPACE}{stamp.year}"


def listed(parts: Sequence[str]) -> str:
    """Return ``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


_TAG = re.compile(r"<[^>]+>")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{2,}")
_FONT = re.compile(r"font: (?:\d+ )?([\d.]+)px [^;\"]*")
_FAMILY = re.compile(r";? ?font-family: [^;\"]*")


def _inline(key: str, title: str, message: str, document: str) -> str:
    """Make matplotlib's document an element of a page: named, coloured by variables, with ids of its own."""
    svg = document[document.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\n?", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{key}-", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    svg = _FAMILY.sub("", _FONT.sub(r"font-size: \1px", svg))
    svg = _TAG.sub(lambda tag: _LONG_NUMBER.sub(_short, tag[0]), svg)
    svg = re.sub(r"\n\s*", "\n", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box, "matplotlib writes a viewBox"
    names = (
        f'<title id="{key}-title">{escape(title)}</title><desc id="{key}-message">{escape(message)}</desc>'
    )
    head = f'<svg role="img" aria-labelledby="{key}-title {key}-message" {box[0]}>{names}'
    return re.sub(r"<svg[^>]*>", lambda _: head, svg, count=1)


def _short(match: re.Match[str]) -> str:
    text = f"{float(match[0]):.1f}".removesuffix(".0")
    return "0" if text == "-0" else text
