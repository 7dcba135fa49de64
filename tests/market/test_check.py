"""The data report: goldens of real files, and one made-up file for each finding."""

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from halfstep.errors import ConfigError, FormatError
from halfstep.market.bars import Bars
from halfstep.market.calendar import ServerZone, iso
from halfstep.market.check import DataReport, Finding, check_bars
from halfstep.market.ends import first_days
from halfstep.market.grid import cut_percent, session_grid
from halfstep.market.raw import ReadOptions
from halfstep.market.read import default_bars, read_bars
from halfstep.market.resample import resample
from halfstep.market.synthetic import random_bars
from halfstep.market.timeframes import Timeframe
from halfstep.market.write import write_bars

BARS = random_bars(2400, seed=6)  # 100 days from 2022-01-03


def finding(report: DataReport, code: str) -> Finding:
    return next(one for one in report.findings if one.code == code)


def codes(report: DataReport, level: str) -> set[str]:
    return {one.code for one in report.findings if one.level == level}


def changed(bars: Bars, rows: object, **values: float) -> Bars:
    columns = {}
    for name, value in values.items():
        columns[name] = getattr(bars, name).copy()
        columns[name][rows] = value
    return replace(bars, **columns)


def without(bars: Bars, *rows: int) -> Bars:
    keep = np.setdiff1d(np.arange(len(bars)), rows)
    return replace(
        bars,
        **{
            name: getattr(bars, name)[keep]
            for name in ("time", "open", "high", "low", "close", "volume", "spread")
        },
    )


@pytest.mark.pitfall("D2")
def test_the_reference_file(shared_data: Callable[[str], Path]) -> None:
    report = check_bars(shared_data("EURUSD_H1_mt5_2022-01_2024-01.csv.gz"))
    assert report.grid is not None
    assert (report.rows, report.grid.slots, report.grid.missing, report.quality) == (
        12_963,
        13_032,
        69,
        99.47,
    )
    gaps = {iso(gap.start)[:10]: (gap.bars, gap.is_holiday) for gap in report.grid.gaps}
    assert gaps == {
        "2022-12-26": (9, False), "2023-01-02": (7, False), "2023-12-25": (22, True), "2024-01-01": (24, True),
        **dict.fromkeys(("2022-03-13", "2022-03-20", "2022-10-30", "2023-03-12", "2023-03-19", "2023-07-14", "2023-10-29"), (1, False)),
    }  # fmt: skip
    assert "82.6 %" in finding(report, "zero_spread").text
    assert "the floor of 10 points" in finding(report, "zero_spread").text
    assert finding(report, "outlier").count == 4
    zone = finding(report, "zone")
    assert (zone.level, zone.text) == (
        "info",
        "Weeks that end Friday 17:00 New York: server-eu 107 of 108, server-us 101 of 108, est 0 of 108, "
        "UTC 0 of 108. Assumed: server-eu.",
    )
    level = finding(report, "volume_level")
    assert (level.count, "2024-01 (3.38 times)" in level.text) == (1, True)
    assert codes(report, "warning") == {"zero_spread", "outlier", "volume_level"}
    assert codes(report, "error") == set()
    assert len(report.grid.spans) == 199
    assert (report.exit_status(), report.exit_status(strict=True)) == (0, 1)


@pytest.mark.parametrize(
    ("name", "bars", "slots", "quality"),
    [
        ("GBPUSD_H1_mt5_2022-01_2024-01.csv.gz", 12_964, 13_032, 99.47),
        ("EURUSD_H1_dukascopy_utc_2023-01_2024-01.csv.gz", 6_755, 6_794, 99.42),
    ],
)
def test_other_real_files(
    shared_data: Callable[[str], Path], name: str, bars: int, slots: int, quality: float
) -> None:
    report = check_bars(shared_data(name))
    assert report.grid is not None
    assert (report.rows, report.grid.slots, report.quality) == (bars, slots, quality)
    assert finding(report, "zone").level == "info"


def test_the_default_bars() -> None:
    report = check_bars(default_bars())
    assert report.grid is not None
    assert (report.rows, report.grid.slots, report.quality) == (6_225, 6_240, 99.75)


@pytest.mark.pitfall("D5")
def test_both_ends_of_real_exports(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    hours = read_bars(shared_data("EURUSD_H1_mt5_2022-01_2024-01.csv.gz"))
    quarters = read_bars(shared_data("EURUSD_M15_mt5_2022-01_2024-01.csv.gz"))
    whole = hours.between("2022-03-10", "2022-07-01")
    whole = whole.slice(0, len(whole) - 8)  # the last bar opens 15:00
    days = resample(hours.between("2022-03-07", "2022-03-10"), Timeframe.D1)  # 116,644 to 166,436 ticks each
    assert days.volume.tolist() == [166_436, 158_841, 116_644]
    path = tmp_path / "EURUSD_H1.mt5.csv"
    write_bars(replace(days, timeframe=Timeframe.H1).concat(whole), path)
    assert finding(check_bars(path), "first_days").rows == (2, 3, 4)
    repaired = read_bars(path, repair=("drop-days",))
    assert (repaired.hash, repaired.report.repairs) == (whole.hash, ("drop-days: 3 rows (lines 2, 3, 4)",))

    last = int(
        quarters.server_time.searchsorted(whole.server_time[-1])
    )  # an export at 15:15: a fifth of that hour's ticks
    quarter = replace(quarters.slice(last, last + 1), timeframe=Timeframe.H1)
    write_bars(whole.slice(0, len(whole) - 1).concat(quarter), path)
    assert finding(check_bars(path), "last_open").rows == (len(whole) + 1,)
    cut = read_bars(path, repair=("drop-last",))
    write_bars(whole, path)
    assert "last_open" not in {one.code for one in check_bars(path).findings}
    assert read_bars(path, repair=("drop-last",)).hash == cut.hash


@pytest.mark.pitfall("D13")
@pytest.mark.parametrize("friday", ["2023-01-20", "2023-06-16"])  # weeks end 22:00 and 21:00 UTC
def test_flat_weekends_of_a_real_export(
    shared_data: Callable[[str], Path], tmp_path: Path, friday: str
) -> None:
    real = shared_data("EURUSD_H1_dukascopy_utc_2023-01_2024-01.csv.gz")
    header, *rows = gzip.decompress(real.read_bytes()).decode().splitlines(keepends=True)
    at = max(k for k, row in enumerate(rows) if row.startswith(friday)) + 1
    first, close = np.datetime64(rows[at - 1][:19]), rows[at - 1].split(",")[4]
    stamps = [str(first + np.timedelta64(k, "h")).replace("T", " ") for k in range(1, 49)]
    flat = [f"{stamp}+00:00,{close},{close},{close},{close},0.0\n" for stamp in stamps]
    assert rows[at].startswith(
        str(first + np.timedelta64(49, "h")).replace("T", " ")
    )  # the market's next hour
    path = tmp_path / "EURUSD_H1.csv"
    path.write_text("".join([header, *rows[:at], *flat, *rows[at:]]))
    bars = read_bars(path)
    assert bars.hash == read_bars(real).hash
    assert "48 flat bars of volume 0 outside the sessions were dropped" in bars.report.notes
    report = check_bars(path)
    assert "48 flat bars of volume 0 outside the sessions were dropped" in report.notes
    assert report.quality == 99.42


def test_whole_weeks_are_clean() -> None:
    bars = BARS.slice(0, 1080)  # nine weeks, before the changes of the clock
    report = check_bars(replace(bars, spread=np.maximum(bars.spread, 1)))
    assert report.quality == 100.0
    assert codes(report, "error") | codes(report, "warning") == set()


def test_missing_bars_and_a_holiday() -> None:
    bars = BARS.slice(0, 480)  # four whole weeks before the changes of the clock
    assert check_bars(bars).quality == 100.0
    report = check_bars(without(bars, 100, 101, 102, *range(240, 264)))
    assert report.grid is not None
    assert [(gap.bars, gap.is_holiday) for gap in report.grid.gaps] == [(3, False), (24, True)]
    assert report.quality == cut_percent(480 - 27, 480) == 94.37
    assert finding(report, "gap").level == "info"
    assert sum(span == 100.0 for span in report.grid.spans) == 199 - 13


def test_wrong_bars_lower_the_quality() -> None:
    bars = BARS.slice(0, 480)
    flat = float(bars.close[50])
    bars = changed(bars, 50, open=flat, high=flat, low=flat, close=flat, volume=0)
    bars = changed(bars, 60, volume=1)
    report = check_bars(bars)
    assert report.grid is not None
    assert (report.grid.wrong, report.quality) == (2, 99.58)
    assert check_bars(replace(bars, volume=np.zeros(480), volume_kind="none")).quality == 100.0


@pytest.mark.parametrize("frame", ["M30", "H1", "H4", "D1", "W1", "MN1"])
def test_every_timeframe_has_its_grid(frame: str) -> None:
    base = random_bars(5000, seed=2)
    bars = (
        base
        if frame == "H1"
        else resample(base, frame, keep_partial=True)
        if frame != "M30"
        else replace(base, timeframe=Timeframe.M30, time=base.time[0] + 1800 * np.arange(5000))
    )
    sessions = "always" if frame == "M30" else "fx"
    grid = session_grid(bars, np.zeros(len(bars), bool), sessions)
    assert 0 <= grid.missing <= 40
    assert (
        len(bars) - 2 <= grid.slots - grid.missing <= len(bars)
    )  # two bars lie outside, between the clock changes


def test_sessions_without_a_weekend_miss_more() -> None:
    assert check_bars(replace(BARS, symbol="BTCUSD", digits=5)).quality < 75  # type: ignore[operator]


def test_bars_outside_the_sessions_are_named() -> None:
    saturday = replace(BARS.slice(0, 1), time=BARS.time[119:120] + 20 * 3600)
    report = check_bars(BARS.slice(0, 120).concat(saturday).concat(BARS.slice(120, 600)))
    outside = finding(report, "outside")
    assert (outside.level, outside.rows) == ("warning", (121,))
    assert "2022-01-08 19:00 (bar 121)" in outside.text


@pytest.mark.pitfall("D6")
def test_every_fault_of_a_file_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "EURUSD_H1.mt5.csv"
    write_bars(BARS.slice(0, 400), path)
    lines = path.read_text().splitlines()
    cells = [line.split("\t") for line in lines]
    cells[10][4] = "abc"
    cells[20][3] = "0.50000"  # a high below the others
    cells[21][3] = "0.50000"
    cells[30][2] = "0.00000"
    cells[40][6] = "-5"
    cells[50], cells[51] = cells[51], cells[50]
    cells[60] = cells[59]
    cells[70] = cells[70][:5]
    cells[80][0] = "2022.02.31"
    path.write_text("\n".join("\t".join(row) for row in cells))
    report = check_bars(path)
    errors = {one.code + str(one.rows): one for one in report.findings if one.level == "error"}
    assert set(errors) == {
        "cell(11,)", "ohlc(21, 22)", "price(31,)", "cell(41,)", "order(52,)", "duplicate(61,)", "cell(71,)", "time(81,)",
    }  # fmt: skip
    assert "column '<LOW>': 'abc' is not a number (line 11)" in errors["cell(11,)"].text
    assert report.exit_status() == 1
    assert report.rows == 400
    assert report.grid is not None  # what is usable is judged as well


@pytest.mark.pitfall("D6")
def test_odd_files_are_warned_of() -> None:
    walk = check_bars(BARS, price_range=(1.0448, 1.1276))
    assert finding(walk, "range").count == int(((BARS.low < 1.0448) | (BARS.high > 1.1276)).sum()) > 0
    with pytest.raises(ConfigError, match="must be two rising prices"):
        check_bars(BARS, price_range=(2.0, 1.0))
    spread = check_bars(replace(BARS, spread=np.where(np.arange(2400) % 10 == 0, 0, 7)))
    assert "10.0 % of the spreads are 0" in finding(spread, "zero_spread").text
    none = check_bars(replace(BARS, spread=np.full(2400, -1)))
    assert "states no spread" in finding(none, "zero_spread").text
    few = check_bars(replace(BARS, spread=np.where(np.arange(2400) % 25 == 0, 0, 7)))
    assert "zero_spread" not in codes(few, "warning")
    half = changed(BARS, 100, close=float(BARS.low[100]) + 0.000003)
    assert finding(check_bars(half), "off_grid").count == 1
    assert finding(check_bars(changed(BARS, [3, 4], volume=0)), "zero_volume").count == 2


def test_outliers_and_spikes_are_named() -> None:
    moved = {
        name: getattr(BARS, name) * np.where(np.arange(2400) >= 1000, 1.05, 1.0)
        for name in ("open", "high", "low", "close")
    }
    report = check_bars(replace(BARS, **moved))
    assert finding(report, "outlier").rows == (1001,)
    early = {
        name: getattr(BARS, name) * np.where(np.arange(2400) >= 30, 1.05, 1.0)
        for name in ("open", "high", "low", "close")
    }
    assert "outlier" not in codes(
        check_bars(replace(BARS, **early)), "warning"
    )  # too early to know what is usual
    report = check_bars(changed(BARS, 700, high=float(BARS.high[700]) + 0.05))
    assert finding(report, "spike").rows == (701,)
    still = replace(
        BARS,
        open=np.full(2400, 1.1),
        high=np.full(2400, 1.1),
        low=np.full(2400, 1.1),
        close=np.full(2400, 1.1),
    )
    assert codes(check_bars(still), "warning") & {"outlier", "spike"} == set()


def test_a_jump_of_the_volume_names_its_month() -> None:
    bars = random_bars(24 * 200, seed=3)
    month = (bars.server_time // 86_400).astype("datetime64[D]").astype("datetime64[M]").astype(str)
    report = check_bars(replace(bars, volume=np.where(month == "2022-08", 3 * bars.volume, bars.volume)))
    assert "2022-08 (3.0" in finding(report, "volume_level").text
    assert "volume_level" not in codes(check_bars(bars), "warning")


@pytest.mark.pitfall("D3")
def test_the_wrong_zone_is_noticed(tmp_path: Path) -> None:
    year = random_bars(24 * 250, seed=3)
    path = tmp_path / "EURUSD_H1.mt5.csv"
    write_bars(replace(year, zone=ServerZone("UTC")), path)  # UTC times in MetaTrader's layout
    report = check_bars(path)
    zone = finding(report, "zone")
    assert zone.level == "warning"
    assert "but UTC fits best (--zone UTC)" in zone.text
    assert finding(check_bars(path, options=ReadOptions(zone="UTC")), "zone").level == "info"


def test_a_file_without_a_timeframe_is_still_reported(tmp_path: Path) -> None:
    path = tmp_path / "EURUSD.csv"
    rows = "".join(f"2022-01-03 {h:02d}:00Z,1.1,1.2,1.0,1.1\n" for h in (0, 2, 4, 6))
    path.write_text("time,open,high,low,close\n" + rows)
    report = check_bars(path)
    assert (codes(report, "error"), report.grid, report.quality, report.timeframe) == (
        {"timeframe"},
        None,
        None,
        None,
    )
    path.write_text("time,open,high,low,close\n2022-01-03 00:00Z,1.1,1.2,1.0,x\n")
    report = check_bars(path)
    assert (codes(report, "error"), report.rows, report.first) == ({"cell"}, 1, "--")
    path.write_bytes(b"<html>")
    with pytest.raises(FormatError):
        check_bars(path)


def test_two_bars_a_century_apart_need_no_memory() -> None:
    bars = replace(
        BARS.slice(0, 3), timeframe=Timeframe.M5, symbol="X", time=np.array([86_400, 86_700, 3_000_000_000])
    )
    grid = session_grid(bars, np.zeros(3, bool), "always")
    assert (grid.slots, grid.missing) == (9_999_713, 9_999_710)
    assert len(grid.gaps) == 1


def test_percentages_are_cut_not_rounded() -> None:
    assert cut_percent(99_999, 100_000) == 99.99
    assert cut_percent(0, 0) == 0.0


def test_a_quiet_day_at_the_head_is_found() -> None:
    """Three times an hour's range and 24 times its volume: a day; three times both: a busy hour."""
    bars = random_bars(200, seed=5)
    reach, volume = float(np.median((bars.high - bars.low)[10:])), float(np.median(bars.volume[10:]))
    high, ticks = bars.high.copy(), bars.volume.copy()
    high[:2] = bars.low[:2] + 3 * reach
    ticks[:2] = 24 * volume, 3 * volume
    assert first_days(high, bars.low, ticks).tolist() == [0]
    assert first_days(high, bars.low, np.zeros(len(bars))).tolist() == []
    high[1] = bars.low[1] + 7 * reach
    assert first_days(high, bars.low, np.zeros(len(bars))).tolist() == [1]


def test_rows_of_a_table_are_rows(tmp_path: Path) -> None:
    bars = random_bars(50, seed=5)
    path = tmp_path / "EURUSD_H1.parquet"
    pl.DataFrame(
        {name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume")}
        | {"time": np.concatenate([bars.time[:20], bars.time[19:-1]])}
    ).write_parquet(path)
    assert "(row 21)" in finding(check_bars(path), "duplicate").text
