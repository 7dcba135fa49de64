"""Every known export reads; everything else is one clear message."""

import gzip
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halfstep import errors
from halfstep.market.bars import Bars
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
    assert bars.report.repairs == ("widen: 1 rows",)


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
    "an impossible day": ([ROWS[0], ROWS[1].replace("2022.01.03", "2022.02.30")], CELL, 3, "is no time"),
    "a price of zero": ([ROWS[0], ROWS[1].replace("1.13687", "0.00000")], PRICE, 3, "is no price"),
    "high below low": ([ROWS[0], ROWS[1].replace("1.13778", "1.13600")], PRICE, 3, "contradict"),
    "MetaTrader's empty value": (
        [ROWS[0], ROWS[1].replace("1.13778", "1.7976931348623157e308")],
        PRICE,
        3,
        "is no price",
    ),
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
    assert bars.report.repairs[1:] == ("dedupe: 1 rows", "widen: 1 rows")
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
    assert whole.report.repairs == ("drop-last: 1 row",)


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """Flip, insert, delete, duplicate, cut: one to five times."""
    changed = bytearray(data)
    for _ in range(random.integers(1, 6)):
        at = int(random.integers(0, max(1, len(changed))))
        match int(random.integers(0, 6)):
            case 0 if changed:
                changed[at % len(changed)] = int(random.integers(0, 256))
            case 1:
                changed[at:at] = bytes(
                    random.choice(np.frombuffer(b"0123456789.,;\t\n-eE<>\"'/: ", np.uint8), 3)
                )
            case 2:
                del changed[at : at + int(random.integers(1, 20))]
            case 3:
                changed[at:at] = changed[at : at + int(random.integers(1, 120))]
            case 4:
                del changed[at:]
            case _:
                changed = bytearray(bytes(changed).replace(b"\t", b";" if at % 2 else b","))
    return bytes(changed)


def test_mutated_files_give_bars_or_a_clear_error(tmp_path: Path) -> None:
    random = np.random.default_rng(20240131)
    original = export(tmp_path, *ROWS).read_bytes()
    path = tmp_path / "EURUSD_H1_mutated.csv"
    outcomes = {"bars": 0, "error": 0}
    messages = []
    for _ in range(800):
        path.write_bytes(mutate(original, random))
        try:
            bars = read_bars(path)
            assert isinstance(bars, Bars)
            outcomes["bars"] += 1
        except errors.HalfstepError as error:
            messages.append(str(error))
            outcomes["error"] += 1
    assert not [message for message in messages if "\n" in message]
    assert min(outcomes.values()) > 50  # the mutations reach both sides


@settings(max_examples=15)
@given(st.integers(1, 400), st.integers(0, 10))
def test_written_bars_read_back_bit_equal(
    tmp_path_factory: pytest.TempPathFactory, n: int, seed: int
) -> None:
    bars = random_bars(n, seed=seed)
    path = tmp_path_factory.mktemp("bars") / "EURUSD.parquet"
    write_bars(bars, path)
    assert read_bars(path).hash == bars.hash


def test_the_hash_covers_every_column_and_the_identity() -> None:
    bars = random_bars(50, seed=1)
    hashes = {bars.hash, replace(bars, symbol="GBPUSD").hash, replace(bars, side="ask").hash}
    for name in ("volume", "spread"):
        column = getattr(bars, name).copy()
        column[7] += 1
        hashes.add(replace(bars, **{name: column}).hash)
    assert len(hashes) == 5
