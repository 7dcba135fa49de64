"""The same figures for machines: ``metrics.json``, and every table as Parquet, the short ones as CSV too.

    metrics.json            everything the page says but the charts' curves; schema halfstep.report/1
    tables/metrics          every row of the page: key, label, value, text, unit, note
    tables/<key>.parquet    every table whole
    tables/<key>.csv        the tables that the page shows

Values are full float64; rounding is in ``text`` alone. What is not defined is null in JSON and Parquet and empty in
CSV. A report read back from these files gives the page byte for byte: the words and the short tables come from
``metrics.json``, the long tables and curves from their Parquet files.
"""

import json
from pathlib import Path
from typing import Any

import polars as pl

from halfstep import files
from halfstep.backtest.content import TABLES, Report
from halfstep.backtest.figures import Table, table
from halfstep.errors import MissingInputError

SHOWN = 50  # rows at either end of a list that the page shows
METRICS = "metrics.json"


def shown_rows(table: Table) -> list[int]:
    """Return which rows of a table the page shows: all, or the first and last 50 of a list."""
    count = table.frame.height
    if table.kind.form != "list" or count <= 2 * SHOWN:
        return list(range(count))
    return [*range(SHOWN), *range(count - SHOWN, count)]


def as_json(report: Report) -> dict[str, Any]:
    """Return every figure of the page.

    The cell ``<table>.<n>.<column>`` of the page is ``tables[<table>][<n>][<column>]``; a row ``<key>`` is the record
    with that ``key`` in its group.
    """
    tables = {
        each.kind.key: each.frame[shown_rows(each)].to_dicts()
        for each in report.tables
        if each.kind.form in ("page", "list")
    }
    whole = [each.kind.key for each in report.tables if each.kind.form != "page"]
    return report.as_dict() | {"tables": tables, "files": whole}


def write_twins(report: Report, folder: Path) -> None:
    """Write ``metrics.json`` and ``tables/`` atomically, file by file."""
    for each in report.tables:
        write_parquet(each.frame, folder / "tables" / f"{each.kind.key}.parquet")
    write_derived(report, folder)


def write_derived(report: Report, folder: Path) -> None:
    """Write what `read_report` does not need: the CSV files, the table of rows, and short tables as Parquet."""
    rows = pl.DataFrame(
        [(row.key, row.label, row.value, row.text, row.unit, row.note) for row in report.rows()],
        schema={"key": pl.String, "label": pl.String, "value": pl.Float64, "text": pl.String, "unit": pl.String, "note": pl.String},
        orient="row",
    )  # fmt: skip
    write_parquet(rows, folder / "tables" / "metrics.parquet")
    write_csv(rows, folder / "tables" / "metrics.csv")
    for each in report.tables:
        if each.kind.form == "page":
            write_parquet(each.frame, folder / "tables" / f"{each.kind.key}.parquet")
        if each.kind.form in ("page", "list"):
            write_csv(each.frame, folder / "tables" / f"{each.kind.key}.csv")
    files.write_json(folder / METRICS, as_json(report))


def read_report(folder: Path) -> Report:
    """Return the report whose twins stand in a folder.

    Raises:
        MissingInputError: ``metrics.json`` or the Parquet file of a long table is not there.
        ValueError: another schema or other columns.
    """
    path = folder / METRICS
    if not path.is_file():
        raise MissingInputError(f"{path}: not there. Make a report with: halfstep run --out {folder.parent}")
    words = json.loads(path.read_text(encoding="utf-8"))
    frames: dict[str, pl.DataFrame] = {}
    for kind in TABLES:
        if kind.form == "page" and kind.key in words["tables"]:
            frames[kind.key] = table(kind, words["tables"][kind.key]).frame
        elif (
            kind.key in words["files"]
        ):  # a table that the run made and somebody lost is no chart less, but an error
            frames[kind.key] = _read_parquet(folder / "tables" / f"{kind.key}.parquet")
    return Report.of(words, frames)


def write_parquet(frame: pl.DataFrame, path: Path) -> None:
    """Write a frame as Parquet, atomically."""
    with files.replacing(path) as temporary:
        frame.write_parquet(temporary)


def write_csv(frame: pl.DataFrame, path: Path) -> None:
    """Write a frame as CSV, atomically."""
    with files.replacing(path) as temporary:
        frame.write_csv(temporary)


def _read_parquet(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise MissingInputError(
            f"{path}: not there, and only the run can make it again: halfstep run --resume {files.as_words(path.parents[2])}"
        )
    return pl.read_parquet(path)
