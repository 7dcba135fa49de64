"""``halfstep report``: the page of a finished run again from its files, or several runs side by side; no trading."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from halfstep import files
from halfstep.backtest.content import Report
from halfstep.backtest.html import differing_settings, page_of_runs, write_page
from halfstep.backtest.twins import METRICS, as_json, read_report, write_derived, write_twins
from halfstep.errors import MissingInputError, OutputExistsError

PAGE = "report.html"
FOLDER = "report"  # of a run's folder
COMPARISON_SCHEMA = "halfstep.comparison/1"
ON_SCREEN = ("net_profit", "profit_factor", "equity_dd_maximal", "sharpe_ratio", "total_trades")
"""Rows of the tester that the terminal shows below the summary."""


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
    print_report(report, screen)
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


def print_report(report: Report, screen: Console) -> None:
    """Show a report's summary, its warnings and its verdict."""
    table = _plain_table(f"{report.title} · {report.representative}", "", report.currency)
    for row in (*report.summary, *(row for row in report.tester if row.key in ON_SCREEN)):
        table.add_row(row.label, _spaced(row.text))
    screen.print(table)
    baselines = report.table("baselines")
    if baselines is not None:
        names = [column.name for column in baselines.kind.columns]
        shown = [names.index(name) for name in ("name", "net", "drawdown", "trades", "note")]
        lines = _plain_table(
            baselines.kind.caption, *(baselines.kind.columns[k].label for k in shown), left=(0, 4)
        )
        for texts in baselines.texts():
            lines.add_row(*(_spaced(texts[k]) for k in shown))
        screen.print(lines)
    for _, remark in report.remarks:
        screen.print(Text(remark), soft_wrap=True)
    for banner in report.banners:
        screen.print(Text(f"! {banner.text}", style="yellow"), soft_wrap=True)
    screen.print(Text(report.verdict, style="bold"), soft_wrap=True)


def _print_side_by_side(reports: Sequence[tuple[str, Report]], screen: Console) -> None:
    table = _plain_table("Runs side by side", "", *(name for name, _ in reports))
    first = reports[0][1]
    for row in (*first.summary, *(row for row in first.tester if row.key in ON_SCREEN)):
        texts = ({each.key: each.text for each in report.rows()} for _, report in reports)
        table.add_row(row.label, *(_spaced(text.get(row.key, "--")) for text in texts))
    screen.print(table)
    for name, report in reports:
        screen.print(Text(f"{name}: {report.verdict}"), soft_wrap=True)
    different = differing_settings(reports)
    if different:
        screen.print(
            Text(f"! Not the same in all runs: {', '.join(different)}.", style="yellow"), soft_wrap=True
        )


def _plain_table(title: str, *heads: str, left: Sequence[int] = (0,)) -> Table:
    table = Table(title=title, title_justify="left")
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place in left else "right")
    return table


def _spaced(text: str) -> Text:
    return Text(text.replace("\u00a0", " "))


def _folder_of(run: Path) -> Path:
    """Return the folder of a run's report; the report's own folder is taken, too."""
    if not run.is_dir():
        raise MissingInputError(f"{run}: no such folder. Make a run with: halfstep run --out {run}")
    return run if (run / METRICS).is_file() and (run / "tables").is_dir() else run / FOLDER


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
