"""``halfstep report``: the page of a finished run again from its files, or several runs side by side; no trading."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from halfstep import files
from halfstep.backtest.content import BASELINES, OPTIMIZERS, Report
from halfstep.backtest.figures import SPACE, UNDEFINED
from halfstep.backtest.figures import Table as ReportTable
from halfstep.backtest.html import differing_settings, page_of_runs, write_page
from halfstep.backtest.twins import METRICS, as_json, read_report, write_derived, write_twins
from halfstep.errors import MissingInputError, OutputExistsError

PAGE = "report.html"
FOLDER = "report"  # of a run's folder
COMPARISON_SCHEMA = "halfstep.comparison/1"
SHOWN = {
    OPTIMIZERS: ("optimizer", "loss", "state_bytes", "bytes_per_parameter", "step_ms", "net"),
    BASELINES: ("name", "net", "drawdown", "trades", "note"),
}
"""Columns of tables that the screen shows."""


@dataclass(frozen=True, slots=True)
class Built:
    """What was written: the page, and the figures for machines."""

    page: Path
    metrics: dict[str, Any]


def write_report(report: Report, run: Path) -> Path:
    """Write the page of a run and all its twins below its folder; returns the page's path."""
    folder = run / FOLDER
    write_twins(report, folder)
    write_page(report, folder / PAGE)
    return folder / PAGE


def rebuild(run: Path, screen: Console) -> Built:
    """Write a run's page and its derived tables again, byte for byte, from what it recorded."""
    folder = _folder_of(run)
    report = _read(folder)
    write_derived(report, folder)
    write_page(report, folder / PAGE)
    screen.print(*summary_tables(report), sep="\n", soft_wrap=True)
    return Built(folder / PAGE, as_json(report))


def side_by_side(runs: Sequence[Path], out: Path | None, screen: Console) -> Built:
    """Write one page that compares the reports of several runs."""
    names = _short_names(runs)
    reports = [(name, _read(_folder_of(run))) for name, run in zip(names, runs, strict=True)]
    folder = out or Path("runs") / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-report"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputExistsError(f"{folder} is not an empty folder. Choose another one with --out.")
    metrics = {
        "schema": COMPARISON_SCHEMA,
        "runs": [
            {"name": name, "folder": str(run), "title": report.title, "verdict": report.verdict, "rows": {row.key: row.value for row in report.rows()}}
            for (name, report), run in zip(reports, runs, strict=True)
        ],
        "different_settings": list(differing_settings(reports)),
    }  # fmt: skip
    files.write_json(folder / METRICS, metrics)
    files.write_text(folder / PAGE, page_of_runs(reports))
    _print_side_by_side(reports, screen)
    return Built(folder / PAGE, metrics)


def summary_tables(report: Report) -> tuple[RenderableType, ...]:
    """Return the optimizers and the baselines as tables, the verdicts on optimizers, the summary, warnings, the verdict."""
    summary = _table(f"{report.title} · {report.representative}", ("figure", "value"))
    for row in report.summary:
        summary.add_row(row.label, _words(row.text))
    tables = [_shown(found, names) for kind, names in SHOWN.items() if (found := report.table(kind.key))]
    sentences = [text for key, text in report.remarks if key == OPTIMIZERS.key]
    lines = (*sentences, *(banner.text for banner in report.banners), report.verdict)
    return (*tables, summary, *map(_words, lines))


def page_of(run: Path) -> Path:
    """Return where the page of a run is."""
    return run / FOLDER / PAGE


def _print_side_by_side(reports: Sequence[tuple[str, Report]], screen: Console) -> None:
    first = reports[0][1]
    table = _table(
        "Runs side by side", ("", *(name for name, _ in reports)), numbers=range(1, len(reports) + 1)
    )
    for row in (*first.summary, *first.tester):
        texts = ({each.key: each.text for each in report.rows()} for _, report in reports)
        table.add_row(row.label, *(_words(text.get(row.key, UNDEFINED)) for text in texts))
    screen.print(table)
    for name, report in reports:
        screen.print(_words(f"{name}: {report.verdict}"), soft_wrap=True)
    different = differing_settings(reports)
    if different:
        screen.print(_words(f"Not the same in all runs: {', '.join(different)}."), soft_wrap=True)


def _shown(found: ReportTable, names: Sequence[str]) -> Table:
    """Return some columns of a report's table for the screen."""
    columns = found.kind.columns
    places = [place for place, column in enumerate(columns) if column.name in names]
    numbers = [k for k, place in enumerate(places) if columns[place].unit != "text"]
    table = _table(found.kind.caption, [columns[place].label for place in places], numbers=numbers)
    for line in found.texts():
        table.add_row(*(_words(line[place]) for place in places))
    return table


def _table(title: str, heads: Sequence[str], *, numbers: Sequence[int] = ()) -> Table:
    table = Table(title=title)
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place in numbers else "left")
    return table


def _words(text: str) -> Text:
    """Return text as it stands, for terminals and logs: no markup, plain spaces."""
    return Text(text.replace(SPACE, " "))


def _folder_of(run: Path) -> Path:
    """Return the folder of a run's report; the report's own folder is taken, too."""
    if not run.is_dir():
        raise MissingInputError(f"{run}: no such folder. Make a run with: halfstep run --out {run}")
    below = run / FOLDER
    is_report = not below.is_dir() and (run / METRICS).is_file() and (run / "tables").is_dir()
    return run if is_report else below


def _read(folder: Path) -> Report:
    try:
        return read_report(folder)
    except (KeyError, TypeError, json.JSONDecodeError, ValueError) as error:
        raise MissingInputError(
            f"{folder / METRICS}: not a report of this version ({error}). Make it again with: halfstep run"
        ) from None


def _short_names(runs: Sequence[Path]) -> list[str]:
    """Return the last names of the folders, or whole paths where those are not different."""
    names = [run.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run) for run in runs]
