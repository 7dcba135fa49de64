"""Page, JSON, CSV and Parquet hold the same figures, and a report read back is the report that was written."""

import json
from pathlib import Path

import polars as pl
import pytest

from halfstep.backtest.content import ROW_GROUPS, Report
from halfstep.backtest.figures import text_of
from halfstep.backtest.html import page
from halfstep.backtest.twins import as_json, read_report, write_derived, write_twins
from halfstep.errors import MissingInputError

from .made_up import made_up_report
from .test_html import Reader


@pytest.fixture(scope="module")
def folder(report: Report, html: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "report"
    write_twins(report, path)
    (path / "report.html").write_text(html)
    return path


def test_page_json_and_parquet_agree(report: Report, folder: Path) -> None:
    words = json.loads((folder / "metrics.json").read_text())
    assert words["schema"] == "halfstep.report/1"
    records = {record["key"]: record for group in ROW_GROUPS for record in words[group]}
    rows = {
        record["key"]: record for record in pl.read_parquet(folder / "tables" / "metrics.parquet").to_dicts()
    }
    units = {table.kind.key: {c.name: c.unit for c in table.kind.columns} for table in report.tables}
    compared = 0
    for key, text in Reader((folder / "report.html").read_text()).texts.items():
        if key in records:
            assert records[key]["text"] == text == rows[key]["text"]
            assert records[key]["value"] == rows[key]["value"]
        else:
            name, number, column = key.split(".")
            value = words["tables"][name][int(number)][column]
            assert text_of(value, units[name][column]) == text
            frame = pl.read_parquet(folder / "tables" / f"{name}.parquet")
            shown = (
                int(number) if frame.height <= 100 or int(number) < 50 else frame.height - 100 + int(number)
            )
            assert frame[column][shown] == value
        compared += 1
    assert compared > 1500


def test_csv_holds_full_values(report: Report, folder: Path) -> None:
    for table in report.tables:
        path = folder / "tables" / f"{table.kind.key}.csv"
        assert path.exists() == (table.kind.form in ("page", "list"))
        if path.exists():
            assert pl.read_csv(path, schema=table.frame.schema).equals(table.frame)


def test_what_is_not_defined_is_null_everywhere(folder: Path) -> None:
    text = (folder / "metrics.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    words = json.loads(text)
    [sharpe] = [row for row in words["tester"] if row["key"] == "sharpe_ratio"]
    assert (sharpe["value"], sharpe["text"], sharpe["note"]) == (None, "--", "fewer than 2 values")
    line = (folder / "tables" / "metrics.csv").read_text().splitlines()
    assert "sharpe_ratio,Sharpe ratio,,--,ratio,fewer than 2 values" in line


def test_a_report_read_back_is_the_same_page(report: Report, folder: Path) -> None:
    again = read_report(folder)
    assert page(again) == (folder / "report.html").read_text()
    assert as_json(again) == as_json(report)
    for before, after in zip(report.tables, again.tables, strict=True):
        assert before.kind is after.kind
        assert before.frame.equals(after.frame), before.kind.key
        assert before.frame.schema == after.frame.schema


def test_derived_files_come_back_byte_for_byte(tmp_path: Path) -> None:
    report = made_up_report(positions=120)
    write_twins(report, tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "tables").iterdir()}
    kept = {f"{table.kind.key}.parquet" for table in report.tables if table.kind.form != "page"}
    for path in (tmp_path / "tables").iterdir():
        if path.name not in kept:
            path.unlink()
    write_derived(read_report(tmp_path), tmp_path)
    assert {path.name: path.read_bytes() for path in (tmp_path / "tables").iterdir()} == before


def test_a_lost_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"metrics\.json: not there"):
        read_report(tmp_path / "report")
    write_twins(made_up_report(positions=3), tmp_path / "report")
    (tmp_path / "report" / "tables" / "equity.parquet").unlink()
    with pytest.raises(
        MissingInputError, match=r"equity\.parquet: not there, and only the run can make it again"
    ):
        read_report(tmp_path / "report")
