"""The page: one HTML file that opens from a mail attachment, on a phone, on paper and in ten years.

No script and no request of any kind; charts are inline SVG. Every figure stands in an element with a ``data-key``, the
name of the same figure in `halfstep.backtest.twins`. The same report gives the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import jinja2

from halfstep import files
from halfstep.backtest.charts.all import all_charts, growth_chart
from halfstep.backtest.charts.figure import Chart
from halfstep.backtest.content import Report
from halfstep.backtest.figures import UNDEFINED, Column, Row, Table, TableKind
from halfstep.backtest.twins import SHOWN, shown_rows

LIGHT = {
    "paper": "#ffffff", "ink": "#1b2430", "soft": "#f2f4f7", "faint": "#5f6876", "line": "#d5dae1", "link": "#005a8f",
    "warn": "#fff3d1", "warn-ink": "#5c3a00", "blue": "#0072b2", "orange": "#b34a00", "green": "#00734f", "pink": "#9c4a83",
}  # fmt: skip
DARK = {
    "paper": "#12171e", "ink": "#e6e9ee", "soft": "#1c232d", "faint": "#a2abb8", "line": "#3a4553", "link": "#7cc4f0",
    "warn": "#43330a", "warn-ink": "#ffe6ab", "blue": "#56b4e9", "orange": "#f5923e", "green": "#33c495", "pink": "#e39bc4",
}  # fmt: skip
"""Colours of the page; the last four, shades of Okabe and Ito's, are the charts'."""

CHARTS = (
    ("Account", ("walk_forward", "equity", "deposit_load", "monthly", "quality")),
    ("When positions were opened and closed", ("entries_hour", "entries_weekday", "entries_month", "pl_hour", "pl_weekday", "pl_month")),
    ("Positions", ("mfe", "mae", "holding")),
    ("Decisions and costs", ("actions", "outcomes", "costs")),
    ("Chance", ("seeds", "random", "pbo")),
    ("Training", ("loss", "memory", "step_time", "forecast")),
)  # fmt: skip
LONG_TEXT = 160  # characters; longer words are folded
NOTE = 30  # characters; longer cells get a wide column

Style = Literal["n", "t", "t note", "n words"]
"""Numbers to the right, text to the left, long text in a wide column, words among numbers."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure on the page: the name it has in the twins, its text, how it stands in its column."""

    key: str
    text: str
    style: Style


@dataclass(frozen=True, slots=True)
class Grid:
    """A table as the page shows it.

    Attributes:
        key: of the table.
        caption: above it.
        heads: of the columns, and whether numbers stand below; the first belongs to the names of the rows.
        rows: the name of each row, and its cells.
        remarks: sentences under it.
    """

    key: str
    caption: str
    heads: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChartGroup:
    """Charts under one heading."""

    title: str
    charts: tuple[Chart, ...]


def write_page(report: Report, path: Path) -> None:
    """Write the page of a report atomically."""
    files.write_text(path, page(report))


def page(report: Report) -> str:
    """Return the page of a report."""
    charts = all_charts(report)
    groups = tuple(
        ChartGroup(title, tuple(charts[key] for key in keys if key in charts)) for title, keys in CHARTS
    )
    tables = {
        table.kind.key: grid(report, table) for table in report.tables if table.kind.form in ("page", "list")
    }
    return _template("report.html.jinja").render(
        report=report,
        tester=_two_columns(report.tester, "Results", "Trades", first="total_trades"),
        ours=_two_columns(report.ours, "Of the same run", "Of the same run, continued"),
        tables=tables,
        groups=[group for group in groups if group.charts],
        light=LIGHT,
        dark=DARK,
        long_text=LONG_TEXT,
    )


def page_of_runs(runs: Sequence[tuple[str, Report]]) -> str:
    """Return the page that puts several named reports side by side."""
    return _template("runs.html.jinja").render(
        runs=runs,
        different=differing_settings(runs),
        groups=[
            (title, row_grid(runs, group, title))
            for title, group in (("Summary", "summary"), ("The tester's rows", "tester"), ("Further rows", "ours"), ("How sure", "uncertainty"))
        ],
        chart=growth_chart(runs),
        light=LIGHT,
        dark=DARK,
    )  # fmt: skip


def row_grid(runs: Sequence[tuple[str, Report]], group: str, caption: str) -> Grid:
    """Return the rows of a group, one column per run; the cell of run n is ``<n>.<key>``."""
    found: dict[str, Row] = {row.key: row for _, report in runs for row in getattr(report, group)}
    texts = [{row.key: row.text for row in getattr(report, group)} for _, report in runs]
    rows = tuple(
        (
            row.label,
            tuple(Cell(f"{n}.{key}", text.get(key, UNDEFINED), "n words") for n, text in enumerate(texts)),
        )
        for key, row in found.items()
    )  # fmt: skip
    return Grid(group, caption, (("", False), *((name, True) for name, _ in runs)), rows, ())


def differing_settings(runs: Sequence[tuple[str, Report]]) -> tuple[str, ...]:
    """Return the labels of the settings that are not the same in all runs."""
    texts: dict[str, set[str]] = {}
    for _, report in runs:
        for row in report.settings:
            texts.setdefault(row.label, set()).add(row.text)
    return tuple(label for label, found in texts.items() if len(found) > 1)


def grid(report: Report, table: Table) -> Grid:
    """Return a table as the page shows it: whole, or its first and last rows; on its side where its kind says so.

    Columns called ``key`` are for machines; the first other one names the rows.
    """
    kind, texts, shown = table.kind, table.texts(), shown_rows(table)
    places = [place for place, column in enumerate(kind.columns) if column.name != "key"]
    first, others = places[0], places[1:]

    def cell(record: int, place: int) -> Cell:
        column, text = kind.columns[place], texts[shown[record]][place]
        return Cell(f"{kind.key}.{record}.{column.name}", text, _style(kind, column, text))

    names = [texts[row][first] for row in shown]
    remarks = tuple(text for key, text in report.remarks if key == kind.key)
    caption = kind.caption
    if len(shown) < len(texts):
        caption += f": the first and the last {SHOWN} of {len(texts)}"
    if kind.is_transposed:
        heads = ((kind.columns[first].label, False), *((name, True) for name in names))
        rows = tuple(
            (kind.columns[place].label, tuple(cell(record, place) for record in range(len(shown))))
            for place in others
        )
    else:
        heads = tuple((kind.columns[place].label, _is_number(kind.columns[place])) for place in places)
        rows = tuple(
            (name, tuple(cell(record, place) for place in others)) for record, name in enumerate(names)
        )
    return Grid(kind.key, caption, heads, rows, remarks)


def _style(kind: TableKind, column: Column, text: str) -> Style:
    if _is_number(column):
        return "n"
    if kind.is_transposed:
        return "n words"
    return "t note" if len(text) > NOTE else "t"


def _is_number(column: Column) -> bool:
    return column.unit not in ("text", "flag", "time")


def _two_columns(
    rows: Sequence[Row], left: str, right: str, *, first: str = ""
) -> tuple[tuple[str, tuple[Row, ...]], ...]:
    """Return rows as two tables with their captions; the right one begins with the row ``first``, or in the middle."""
    keys = [row.key for row in rows]
    middle = keys.index(first) if first in keys else -(-len(rows) // 2)
    halves = ((left, tuple(rows[:middle])), (right, tuple(rows[middle:])))
    return tuple(half for half in halves if half[1])


@cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("halfstep.backtest"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)
