"""Every known export reads; everything else is one clear message."""

import gzip
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from halfstep import errors
from halfstep.market.bars import Bars
from halfstep.market.check import check_bars
from halfstep.market.read import default_bars, read_bars
from halfstep.market.synthetic import random_bars
from halfstep.market.write import write_bars

HEADER = "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>"
ROWS = [
    "2022.01.03\t00:00:00\t1.13693\t1.13742\t1.13645\t1.13726\t571\t0\t17",
    "2022.01.03\t01:00:00\t1.13725\t1.13778\t1.13687\t1.13728\t1345\t0\t7",
    "2022.01.03\t02:00:00\t1.13728\t1.13759\t1.13608\t1.13622\t1054\t0\t0",
]


def export(tmp_path: Path, *rows: str, header: str = HEADER, name: str = "EURUSD_H1.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(("\r\n".join([header, *rows]) + "\r\n").encode())
    return path


def test_a_metatrader_export_reads(tmp_path: Path) -> None:
    bars = read_bars(export(tmp_path, *ROWS))
    assert len(bars) == 3
    assert datetime.fromtimestamp(int(bars.time[0]), UTC) == datetime(
        2022, 1, 2, 22, tzinfo=UTC
    )  # UTC+2 in winter
    assert (bars.open[0], bars.high[0], bars.low[0], bars.close[0]) == (1.13693, 1.13742, 1.13645, 1.13726)
    assert (bars.volume[1], list(bars.spread), bars.side) == (1345, [17, 7, 0], "bid")
    assert bars.zone.is_assumed
    assert "server-eu" in bars.report.notes[1]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", ["\t", ";", ","])
def test_encoding_line_ends_and_separator_change_nothing(
    tmp_path: Path, encoding: str, ends: str, separator: str
) -> None:
    expected = read_bars(export(tmp_path, *ROWS))
    path = tmp_path / "EURUSD_H1_other.csv"
    path.write_bytes(ends.join([HEADER, *ROWS]).replace("\t", separator).encode(encoding))
    assert read_bars(path).hash == expected.hash


def test_gz_and_parquet_hold_the_same_bars(tmp_path: Path) -> None:
    path = export(tmp_path, *ROWS)
    packed = tmp_path / "EURUSD_H1.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    bars = read_bars(path)
    assert read_bars(packed).hash == bars.hash
    write_bars(bars, tmp_path / "bars.parquet")
    again = read_bars(tmp_path / "bars.parquet")
    assert again.hash == bars.hash
    assert (again.report, again.zone, again.volume_kind) == (bars.report, bars.zone, bars.volume_kind)


def test_the_default_bars() -> None:
    bars = default_bars()
    assert (len(bars), bars.side, bars.volume_kind, bars.zone.name) == (6225, "ask", "quote", "UTC")
    assert bars.source.sha256.startswith("28398b7e")
    first, last = (datetime.fromtimestamp(int(bars.time[k]), UTC) for k in (0, -1))
    assert (first.isoformat(), last.isoformat()) == ("2017-01-01T22:00:00+00:00", "2017-12-29T21:00:00+00:00")


SAMPLES = {
    "mt5_export_bars_H1.csv": ("2022-01-02T22:00", 11),
    "mt5_export_bars_D1_no_time.csv": ("2019-01-01T22:00", 11),
    "mt5_export_resaved_by_excel_cp874.csv": ("2019-12-29T22:00", 11),
    "mt5_renamed_columns.csv": ("2022-10-09T21:00", 11),
    "mt5_python_api.csv": ("2024-05-15T07:00", 11),
    "dukascopy_website.csv": ("2020-07-01T00:00", 11),
    "dukascopy_python.csv": ("2023-01-01T22:00", 11),
    "tradingview_iso.csv": ("2017-12-29T21:00", 11),
    "tradingview_unix.csv": ("2017-07-03T00:00", 11),
    "yfinance_flat_local_offset.csv": ("2023-09-03T23:00", 11),
    "mt4_history_center_no_header.csv": ("2014-09-04T13:00", 12),
    "ejtrader_style_no_header.csv": ("2024-04-30T09:00", 12),
    "histdata_ascii_m1.csv": ("2017-01-02T07:00", 12),
    "yfinance_multiindex.csv": ("2025-01-01T05:00", 9),
}


@pytest.mark.pitfall("D8")
@pytest.mark.pitfall("D10")
@pytest.mark.parametrize(("name", "expected"), SAMPLES.items())
def test_every_format_sample_reads(
    name: str, expected: tuple[str, int], shared_data: Callable[[str], Path]
) -> None:
    bars = read_bars(shared_data(f"formats/{name}"), symbol="EURUSD")
    first = datetime.fromtimestamp(int(bars.time[0]), UTC)
    assert (first.strftime("%Y-%m-%dT%H:%M"), len(bars)) == expected


def test_a_bid_ask_table_is_read_by_name(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("formats/fxcm_bid_ask.csv")
    with pytest.raises(errors.PriceError) as caught:
        read_bars(path, symbol="EURUSD")
    assert caught.value.row == 4
    bars = read_bars(path, symbol="EURUSD", repair=("widen",))
    assert (bars.open[0], bars.high[0], bars.low[0], bars.close[0]) == (1.14646, 1.14718, 1.14601, 1.14684)
    assert bars.report.repairs == ("widen: 1 row (line 4)",)


@pytest.mark.parametrize(
    "name", ["mql5_signal_mt4_history.csv", "mql5_signal_mt5_positions.csv", "mt4_statement_ru_excel.csv"]
)
def test_a_trade_history_is_refused(name: str, shared_data: Callable[[str], Path]) -> None:
    with pytest.raises(errors.FormatError, match="a trade history"):
        read_bars(shared_data(f"formats/{name}"), symbol="EURUSD")


@pytest.mark.pitfall("D4")
def test_reference_calendar(shared_data: Callable[[str], Path]) -> None:
    bars = read_bars(shared_data("EURUSD_H1_mt5_2022-01_2024-01.csv.gz"))
    assert len(bars) == 12_963
    assert len(bars.between("2023-01-01", "2024-01-01")) == 6_207
    assert len(bars.between("2024-01-01", "2024-02-01")) == 528
    assert int((np.diff(bars.server_time) == 3600).sum()) == 12_853
    days = {
        day: len(bars.between(day, after))
        for day, after in [("2022-12-26", "2022-12-27"), ("2023-12-25", "2023-12-26")]
    }
    assert days == {"2022-12-26": 15, "2023-12-25": 2}


CELL, TIME, PRICE = errors.CellError, errors.TimeError, errors.PriceError
BAD = {
    "sorted wrongly": ([ROWS[1], ROWS[0], ROWS[2]], TIME, 3, "is earlier than the bar before it"),
    "a time twice": ([ROWS[0], ROWS[0], ROWS[1]], TIME, 3, "repeats the bar before it"),
    "a word for a price": ([ROWS[0], ROWS[1].replace("1.13778", "abc")], CELL, 3, "'abc' is not a number"),
    "an empty price": ([ROWS[0], ROWS[1].replace("1.13778", "")], CELL, 3, "'' is not a number"),
    "a cut line": ([ROWS[0], ROWS[1], ROWS[2][:30]], CELL, 4, "cells, but the table has 9 columns"),
    "an impossible day": ([ROWS[0], ROWS[1].replace("2022.01.03", "2022.02.30")], TIME, 3, "is no time"),
    "a price of zero": ([ROWS[0], ROWS[1].replace("1.13687", "0.00000")], PRICE, 3, "is no price"),
    "high below low": ([ROWS[0], ROWS[1].replace("1.13778", "1.13600")], PRICE, 3, "high 1.136 is below"),
    "MetaTrader's empty value": (
        [ROWS[0], ROWS[1].replace("1.13778", "1.7976931348623157e308")],
        PRICE,
        3,
        "is no price",
    ),
    "prices that are nan": ([ROWS[0], ROWS[1].replace("1.13778", "nan")], PRICE, 3, "nan is no price"),
    "a close outside": (
        [ROWS[0], ROWS[1].replace("1.13728", "1.13700").replace("1.13687", "1.13710")],
        PRICE,
        3,
        "low 1.1371 is above close 1.137",
    ),
    "half a point of spread": ([ROWS[0], ROWS[1][:-1] + "7.5"], errors.QuantityError, 3, "7.5 is no spread"),
    "a negative spread": ([ROWS[0], ROWS[1][:-1] + "-3"], errors.QuantityError, 3, "-3.0 is no spread"),
    "full-width digits": ([ROWS[0], ROWS[1].replace("1.13778", "１.13778")], CELL, 3, "is not a number"),
    "a year outside": ([ROWS[0], ROWS[1].replace("2022", "2122", 1)], TIME, 3, "is no time"),
    "an empty time": (["1970.01.01\t00:00:00" + ROWS[0][19:], *ROWS[1:]], TIME, 2, "is no time"),
    "a negative volume": (
        [ROWS[0], ROWS[1].replace("1345", "-1345")],
        errors.QuantityError,
        3,
        "is no volume",
    ),
}


@pytest.mark.pitfall("D6")
@pytest.mark.pitfall("R6")
@pytest.mark.pitfall("D20")
@pytest.mark.parametrize(("rows", "kind", "line", "words"), BAD.values(), ids=BAD)
def test_bad_files_are_named(
    tmp_path: Path, rows: list[str], kind: type[errors.DataError], line: int, words: str
) -> None:
    path = export(tmp_path, *rows)
    with pytest.raises(kind, match=words) as caught:
        read_bars(path, timeframe="H1")
    assert (caught.value.file, caught.value.row) == (path, line)
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}:{line}: ")


def test_files_that_are_no_bars_are_named(tmp_path: Path) -> None:
    for content, words in [
        (b"", "the file is empty"),
        (HEADER.encode(), "a header and no bars"),
        (b"<!DOCTYPE html><html></html>", "an HTML page"),
        (b"PK\x03\x04zip", "a .zip archive"),
        (b"\x1f\x8b\x08\x00cut", "a damaged or cut .gz file"),
        (b"PAR1 cut", "a damaged Parquet file"),
        (b"\x00\x01\x02\x00\x00" * 50, "binary data|no tab"),
    ]:
        path = tmp_path / "EURUSD_H1.csv"
        path.write_bytes(content)
        with pytest.raises(errors.FormatError, match=words):
            read_bars(path)
    with pytest.raises(errors.MissingInputError, match="no file at"):
        read_bars(tmp_path / "absent.csv")


def test_repairs_are_made_on_request_and_counted(tmp_path: Path) -> None:
    path = export(tmp_path, ROWS[1], ROWS[0], ROWS[0], ROWS[2].replace("1.13759", "1.13700"))
    bars = read_bars(path, repair=("sort", "dedupe", "widen"))
    assert len(bars) == 3
    assert bars.report.repairs[1:] == ("dedupe: 1 row (line 4)", "widen: 1 row (line 5)")
    assert bars.high[2] == 1.13728


@pytest.mark.pitfall("D9")
def test_columns_are_read_by_name(tmp_path: Path) -> None:
    order = [0, 1, 5, 3, 4, 2, 6, 8, 7]
    shuffled = ["\t".join(line.split("\t")[k] for k in order) for line in [HEADER, *ROWS]]
    path = export(tmp_path, *shuffled[1:], header=shuffled[0], name="EURUSD_H1_shuffled.csv")
    assert read_bars(path).hash == read_bars(export(tmp_path, *ROWS)).hash


def test_times_without_a_zone_are_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "EURUSD.csv"
    path.write_text(
        "time,open,high,low,close\n" + "".join(f"2023-01-02 0{k}:00,1.1,1.2,1.0,1.1\n" for k in range(3))
    )
    with pytest.raises(errors.TimeError, match="the times state no zone"):
        read_bars(path)
    assert read_bars(path, zone="UTC").time[0] == 1672617600


@pytest.mark.pitfall("D3")
@pytest.mark.parametrize(
    ("zone", "local", "utc"),
    [
        ("server-eu", "2023-03-14T12:00", "2023-03-14T10:00"),
        ("server-us", "2023-03-14T12:00", "2023-03-14T09:00"),
        ("server-eu", "2023-10-31T12:00", "2023-10-31T10:00"),
        ("server-us", "2023-10-31T12:00", "2023-10-31T09:00"),
        ("server-eu", "2023-07-10T12:00", "2023-07-10T09:00"),
        ("server-us", "2023-07-10T12:00", "2023-07-10T09:00"),
    ],
)
def test_server_zones(tmp_path: Path, zone: str, local: str, utc: str) -> None:
    day, clock = local.replace("-", ".").split("T")
    rows = [
        f"{day}\t{clock}:00\t1.1\t1.2\t1.0\t1.1\t5\t0\t1",
        f"{day}\t13:00:00\t1.1\t1.2\t1.0\t1.1\t5\t0\t1",
    ]
    bars = read_bars(export(tmp_path, *rows), zone=zone)
    assert datetime.fromtimestamp(int(bars.time[0]), UTC).strftime("%Y-%m-%dT%H:%M") == utc


def test_two_exports_that_differ_in_the_last_bar_agree_without_it(tmp_path: Path) -> None:
    whole = read_bars(export(tmp_path, *ROWS), repair=("drop-last",))
    cut = read_bars(export(tmp_path, *ROWS[:2], ROWS[2].replace("1054", "3")), repair=("drop-last",))
    assert whole.hash == cut.hash
    assert whole.report.repairs == ("drop-last: 1 row (line 4)",)


def test_the_hash_covers_every_column_and_the_identity() -> None:
    bars = random_bars(50, seed=1)
    hashes = {bars.hash, replace(bars, symbol="GBPUSD").hash, replace(bars, side="ask").hash}
    for name in ("volume", "spread"):
        column = getattr(bars, name).copy()
        column[7] += 1
        hashes.add(replace(bars, **{name: column}).hash)
    assert len(hashes) == 5


def test_every_second_hour_missing_is_irregular(tmp_path: Path) -> None:
    rows = [ROWS[0].replace("00:00:00", f"{hour:02d}:00:00") for hour in range(0, 20, 2)]
    path = export(tmp_path, *rows)
    with pytest.raises(
        errors.TimeError, match="name says H1, but the usual step between bars is 7200 s"
    ) as caught:
        read_bars(path)
    assert caught.value.row == 3
    with pytest.raises(
        errors.TimeError, match="irregular times: the most frequent step between bars is 7200 s"
    ):
        read_bars(path.rename(tmp_path / "EURUSD.csv"))
    scattered = [ROWS[0].replace("00:00:00", f"{hour:02d}:00:00") for hour in (0, 1, 3, 6, 10, 15, 16, 20)]
    with pytest.raises(errors.TimeError, match=r"most frequent step between bars is 3600 s \(29%"):
        read_bars(export(tmp_path, *scattered, name="EURUSD.csv"))


def test_a_given_timeframe_is_not_longer_than_the_steps(tmp_path: Path) -> None:
    path = export(tmp_path, *ROWS, name="EURUSD.csv")
    with pytest.raises(errors.TimeError, match="3600 s, shorter than the given timeframe H4"):
        read_bars(path, timeframe="H4")
    assert read_bars(path, timeframe="M30").timeframe.name == "M30"  # sparse bars are allowed


def test_hours_without_a_time_column_are_refused(tmp_path: Path) -> None:
    header, cut = HEADER.replace("\t<TIME>", ""), [row.replace("\t0", "\tX", 1) for row in ROWS]
    days = [f"2022.01.0{k}\t" + row.split("\t", 2)[2] for k, row in zip((3, 4, 5), cut, strict=True)]
    assert read_bars(export(tmp_path, *days, header=header, name="EURUSD.csv")).timeframe.name == "D1"
    with pytest.raises(errors.ColumnError, match="no column says the time of the day, which H1 bars need"):
        read_bars(export(tmp_path, *days, header=header, name="EURUSD.csv"), timeframe="H1")


@pytest.mark.pitfall("D16")
def test_points_become_prices(tmp_path: Path) -> None:
    prices = "130583.99999999999\t130600\t130500\t130583.99999999999"
    rows = [f"2022.01.03\t0{hour}:00:00\t{prices}\t571\t0\t17" for hour in range(2)]
    path = export(tmp_path, *rows)
    with pytest.raises(errors.PriceError, match=r'look like whole points.*price_unit="points"'):
        read_bars(path)
    bars = read_bars(path, price_unit="points")
    assert (bars.open[0], bars.high[0], bars.low[0]) == (1.30584, 1.306, 1.305)
    assert bars.points("open")[0] == 130584
    with pytest.raises(errors.ConfigError, match="Prices in points need digits="):
        read_bars(path.rename(tmp_path / "unknown_H1.csv"), price_unit="points")


@pytest.mark.pitfall("D15")
def test_close_stamps_are_shifted_to_the_open(tmp_path: Path) -> None:
    late = [row.replace(f"0{k}:00:00", f"0{k + 1}:00:00") for k, row in enumerate(ROWS)]
    opens, closes = read_bars(export(tmp_path, *ROWS)), read_bars(export(tmp_path, *late), stamp="close")
    assert closes.hash == opens.hash
    assert "shifted to the open, H1 earlier" in " ".join(closes.report.notes)
    months = [f"2022.0{k}.01\t00:00:00" + ROWS[0][19:] for k in (3, 4, 5, 6)]
    bars = read_bars(export(tmp_path, *months, name="EURUSD_MN1.csv"), stamp="close")
    assert [np.datetime64(int(t), "s").astype("datetime64[D]").astype(str) for t in bars.server_time] == [
        "2022-02-01", "2022-03-01", "2022-04-01", "2022-05-01",
    ]  # fmt: skip


def test_a_file_from_new_to_old_is_turned_round(tmp_path: Path) -> None:
    bars = read_bars(export(tmp_path, *ROWS[::-1]))
    assert bars.hash == read_bars(export(tmp_path, *ROWS)).hash
    assert "turned round" in " ".join(bars.report.notes)
    with pytest.raises(errors.CellError) as caught:  # lines are still those of the file
        read_bars(export(tmp_path, ROWS[2], ROWS[1].replace("1.13778", "x"), ROWS[0]))
    assert caught.value.row == 3


@pytest.mark.pitfall("D13")
def test_flat_weekend_bars_are_dropped(tmp_path: Path) -> None:
    zone = "server-eu"
    saturday = np.datetime64("2022-01-08T00:00")
    flat = [
        f"{str(saturday + np.timedelta64(k, 'h'))[:10].replace('-', '.')}\t{str(saturday + np.timedelta64(k, 'h'))[11:]}:00"
        "\t1.1\t1.1\t1.1\t1.1\t0\t0\t0"
        for k in range(48)
    ]
    friday = [f"2022.01.07\t{hour}:00:00\t1.1\t1.2\t1.0\t1.1\t9\t0\t1" for hour in (20, 21, 22, 23)]
    quiet = "2022.01.10\t00:00:00\t1.1\t1.1\t1.1\t1.1\t0\t0\t1"  # an hour of the week that stays
    bars = read_bars(export(tmp_path, *friday, *flat, quiet), zone=zone)
    assert len(bars) == 5
    assert "48 flat bars of volume 0 outside the sessions were dropped" in bars.report.notes
    kept = read_bars(export(tmp_path, *friday, *flat, quiet, name="BTCUSD_H1.csv"), zone=zone)
    assert len(kept) == 53  # always open


@pytest.mark.pitfall("D5")
def test_ends_are_checked(tmp_path: Path) -> None:
    bars = random_bars(200, seed=5)
    path = tmp_path / "EURUSD_H1.mt5.csv"
    write_bars(bars, path)
    lines = path.read_text().splitlines(keepends=True)
    day = "2021.12.31\t00:00:00\t1.10000\t1.19000\t1.01000\t1.10000\t99999\t0\t3\r\n"
    path.write_text("".join([lines[0], day, *lines[1:]]), newline="")
    found = check_bars(path)
    head = next(finding for finding in found.findings if finding.code == "first_days")
    assert head.rows == (2,)
    assert read_bars(path, repair=("drop-days",)).hash == read_bars_again(tmp_path, lines).hash
    assert read_bars(path, repair=("drop-days",)).report.repairs == ("drop-days: 1 row (line 2)",)
    unfinished = [*lines[:-1], lines[-1].replace(lines[-1].split("\t")[6], "1")]
    cut = [read_bars_again(tmp_path, some, repair=("drop-last",)) for some in (lines, unfinished)]
    assert cut[0].hash == cut[1].hash
    path.write_text("".join(unfinished), newline="")
    tail = next(finding for finding in check_bars(path).findings if finding.code == "last_open")
    assert tail.rows == (201,)


def read_bars_again(tmp_path: Path, lines: list[str], **options: object) -> Bars:
    path = tmp_path / "EURUSD_H1_again.csv"
    path.write_text("".join(lines), newline="")
    return read_bars(path, **options)  # type: ignore[arg-type]


def test_repairs_snap_and_drop_bad_are_counted(tmp_path: Path) -> None:
    rows = [ROWS[0].replace("1.13693", "1.136931"), ROWS[1].replace("1.13778", "x"), ROWS[2], "cut\tline"]
    path = export(tmp_path, *rows)
    with pytest.raises(errors.CellError):
        read_bars(path, repair=("snap",))
    bars = read_bars(path, repair=("drop-bad", "snap"))
    assert bars.report.repairs == ("drop-bad: 2 rows (line 3)", "snap: 1 row (line 2)")
    assert (bars.open[0], bars.off_grid) == (1.13693, 0)
    with pytest.raises(errors.ConfigError, match="repair: 'mend', must be one of drop-bad"):
        read_bars(path, repair=("mend",))
    with pytest.raises(errors.FormatError, match="no row of this file is a usable bar"):
        read_bars(export(tmp_path, "x" + ROWS[0]), repair=("drop-bad",))


def test_different_values_at_one_time_stay_an_error(tmp_path: Path) -> None:
    path = export(tmp_path, ROWS[0], ROWS[0].replace("571", "572"), ROWS[1])
    with pytest.raises(errors.TimeError, match=r"repeats the bar before it.* in line 2") as caught:
        read_bars(path, repair=("sort", "dedupe"))
    assert caught.value.row == 3


def test_of_two_equal_names_the_first_that_reads_counts(tmp_path: Path) -> None:
    header = HEADER.replace("<TIME>", "<TIME>\t<CLOSE>")
    rows = [row.replace(":00:00", ":00:00\tMonday") for row in ROWS]
    assert (
        read_bars(export(tmp_path, *rows, header=header, name="EURUSD_H1_twice.csv")).hash
        == read_bars(export(tmp_path, *ROWS)).hash
    )
    rows = [row.replace(":00:00", ":00:00\t1.5") for row in ROWS]
    with pytest.raises(errors.ColumnError, match="mean the same and differ"):
        read_bars(export(tmp_path, *rows, header=header))


def test_missing_columns_show_the_header(tmp_path: Path) -> None:
    with pytest.raises(
        errors.ColumnError, match=r"no column 'high' in the header \['<DATE>'.*Looked for"
    ) as caught:
        read_bars(export(tmp_path, *ROWS, header=HEADER.replace("<HIGH>", "<PEAK>")))
    assert caught.value.row == 1
    with pytest.raises(errors.ColumnError, match="no column of times"):
        read_bars(export(tmp_path, *ROWS, header=HEADER.replace("<DATE>", "A").replace("<TIME>", "B")))
    path = tmp_path / "EURUSD_H1_headerless.csv"
    path.write_text("1.1,1.2,1.0,1.1,5\n" * 3)
    with pytest.raises(errors.ColumnError, match=r"5 columns and no header.*Known without a header"):
        read_bars(path)


def test_no_volume_and_no_spread(tmp_path: Path) -> None:
    path = tmp_path / "EURUSD_H1.csv"
    path.write_text(
        "time,open,high,low,close\n2022-01-03 00:00Z,1.1,1.2,1.0,1.1\n2022-01-03 01:00Z,1.1,1.2,1.0,1.1\n"
    )
    bars = read_bars(path)
    assert (bars.volume_kind, list(bars.volume), list(bars.spread)) == ("none", [0, 0], [-1, -1])
    path.write_text('"Date","Price","Open","High","Low","Vol.","Change %"\n"13/01/2022","1.1","1.1","1.2","1.0","","0.1%"\n'
                    '"14/01/2022","1.15","1.1","1.2","1.0","","0.2%"\n')  # fmt: skip
    bars = read_bars(path.rename(tmp_path / "EURUSD daily.csv"), zone="UTC")
    assert (bars.timeframe.name, bars.volume_kind, list(bars.close)) == ("D1", "none", [1.1, 1.15])


def test_volume_kinds(tmp_path: Path) -> None:
    rows = [row.replace("\t0\t", "\t77\t") for row in ROWS]
    path = export(tmp_path, *rows)
    assert (read_bars(path).volume[0], read_bars(path).volume_kind) == (571, "tick")
    real = read_bars(path, volume_kind="real")
    assert (real.volume[0], real.volume_kind) == (77, "real")
    assert read_bars(path, volume_kind="none").volume.sum() == 0
    with pytest.raises(errors.ColumnError, match="no column of real volume"):
        read_bars(
            export(
                tmp_path,
                *rows,
                header=HEADER.replace("<TICKVOL>", "<VOL>").replace("<VOL>\t<SPREAD>", "<X>\t<SPREAD>"),
            ),
            volume_kind="real",
        )


def test_bids_and_asks_become_one_side_and_a_spread(tmp_path: Path) -> None:
    path = tmp_path / "EURUSD_H1.csv"
    head = "date,bidopen,bidclose,bidhigh,bidlow,askopen,askclose,askhigh,asklow,tickqty\n"
    path.write_text(
        head
        + "".join(
            f"2017-07-16 {hour}:00:00,1.1,1.12,1.13,1.09,1.10012,1.1202,1.1301,1.0901,9\n"
            for hour in (19, 20)
        )
    )
    bid, ask = read_bars(path), read_bars(path, fxcm_side="ask")
    assert (bid.side, bid.open[0], bid.spread[0]) == ("bid", 1.1, 12)
    assert (ask.side, ask.open[0], ask.spread[0]) == ("ask", 1.10012, 12)
    path.write_text(path.read_text().replace("1.10012", "1.09990"))
    with pytest.raises(errors.QuantityError, match=r"-11.0 is no spread") as caught:
        read_bars(path)
    assert (caught.value.row, caught.value.column) == (2, "askopen")


def test_the_name_says_the_side(tmp_path: Path) -> None:
    text = "time,open,high,low,close,volume\n2022-01-03 00:00Z,1.1,1.2,1.0,1.1,2\n2022-01-03 01:00Z,1.1,1.2,1.0,1.1,3\n"
    sides = {}
    for name in ("EURUSD_H1_ASK.csv", "EURUSD_H1_BID.csv", "BASKET_EURUSD_H1.csv", "EURUSD_ask-bid.csv"):
        (tmp_path / name).write_text(text)
        sides[name] = read_bars(tmp_path / name).side
    assert list(sides.values()) == ["ask", "bid", "bid", "bid"]
    assert read_bars(export(tmp_path, *ROWS, name="EURUSD_H1_ASK.csv")).side == "bid"  # MetaTrader's are bids


def test_symbols_and_digits_of_unknown_files(tmp_path: Path) -> None:
    bars = read_bars(export(tmp_path, *ROWS, name="bars.csv"))
    assert (bars.symbol, bars.digits) == ("UNKNOWN", 5)
    assert "neither the file nor its name says the symbol" in " ".join(bars.report.notes)
    assert read_bars(export(tmp_path, *ROWS, name="GER40_H1_2022.csv")).symbol == "GER40"
    assert read_bars(export(tmp_path, *ROWS, name="my eurjpy H1.csv")).symbol == "EURJPY"
    assert read_bars(export(tmp_path, *ROWS, name="EURUSD and GBPUSD.csv")).symbol == "UNKNOWN"
    assert read_bars(export(tmp_path, *ROWS), symbol="EURUSDm").symbol == "EURUSDm"


def test_ranges_lie_inside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "EURUSD_H1.parquet"
    write_bars(random_bars(600, seed=2), path)  # 2022-01-03 to 2022-02-04
    bars = read_bars(path, start="2022-01-10", stop="2022-01-15")
    assert len(bars) == 120
    assert len(read_bars(path, start="2022-01-01", stop="2022-02-05")) == 600  # the weekends around it
    for start, stop in (("2021-12-01", None), (None, "2022-03-01"), ("2022-01-16", "2022-01-16")):
        with pytest.raises(errors.CoverageError, match="The bars cover 2022-01-03 00:00 to 2022-02-04 23:00"):
            read_bars(path, start=start, stop=stop)


def test_wrong_options_are_named(tmp_path: Path) -> None:
    path = export(tmp_path, *ROWS)
    for options, words in [
        ({"side": "mid"}, "side: 'mid'"), ({"digits": 9}, "digits: 9"), ({"stamp": "late"}, "stamp: 'late'"),
        ({"repair": "sort"}, r"must be a tuple such as \('sort',\)"), ({"zone": "Mars"}, "zone: 'Mars'"),
        ({"timeframe": "H2"}, "timeframe: 'H2'"), ({"format": "mt9"}, "format: 'mt9'"), ({"start": "soon"}, "date: 'soon'"),
    ]:  # fmt: skip
        with pytest.raises(errors.ConfigError, match=words):
            read_bars(path, **options)  # type: ignore[arg-type]


def test_import_of_the_market_is_light() -> None:
    code = "import sys, halfstep.market as m; [getattr(m, name) for name in m.__all__]; print([n for n in ('torch', 'pandas', 'matplotlib', 'gymnasium') if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
