"""Written bars read back equal, and a file appears whole or not at all."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from strategies import valid_bars

from halfstep import errors
from halfstep.market.bars import COLUMNS, Bars
from halfstep.market.calendar import ServerZone
from halfstep.market.read import read_bars
from halfstep.market.synthetic import random_bars
from halfstep.market.timeframes import Timeframe
from halfstep.market.write import write_bars


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("written")


@given(valid_bars())
def test_parquet_reads_back_bit_equal_with_every_attribute(folder: Path, bars: Bars) -> None:
    path = folder / "bars.parquet"
    write_bars(bars, path)
    again = read_bars(path)
    assert again.hash == bars.hash
    assert (again.zone, again.volume_kind, again.report, again.source.format) == (
        bars.zone, bars.volume_kind, bars.report, bars.source.format,
    )  # fmt: skip


@given(valid_bars())
def test_csv_reads_back_equal(folder: Path, bars: Bars) -> None:
    path = folder / "bars.csv"
    write_bars(bars, path)
    again = read_bars(
        path,
        symbol=bars.symbol,
        timeframe=bars.timeframe,
        zone=bars.zone.name,
        side=bars.side,
        digits=bars.digits,
    )
    assert again.hash == bars.hash


@given(valid_bars())
def test_metatraders_layout_reads_back_equal(folder: Path, bars: Bars) -> None:
    path = folder / "bars.mt5.csv"
    write_bars(bars, path)
    assert path.read_bytes().startswith(
        b"<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\r\n"
    )
    again = read_bars(
        path,
        symbol=bars.symbol,
        timeframe=bars.timeframe,
        zone=bars.zone.name,
        side=bars.side,
        digits=bars.digits,
    )
    assert again.hash == bars.hash


@pytest.mark.pitfall("R7")
@pytest.mark.parametrize("name", ["bars.parquet", "bars.csv"])
def test_time_survives_storage(tmp_path: Path, name: str) -> None:
    # a minute of 2024 that starts a second late, then 1,000 minutes; in float32 they would be 469 different times
    minutes = 1_704_067_261 + 60 * np.arange(1000)
    bars = replace(random_bars(1000, seed=15), time=minutes, timeframe=Timeframe.M1, zone=ServerZone("UTC"))
    write_bars(bars, tmp_path / name)
    again = read_bars(tmp_path / name, symbol="EURUSD", timeframe=Timeframe.M1, zone="UTC")
    assert again.time.dtype == np.int64
    assert again.time[0] == 1_704_067_261
    np.testing.assert_array_equal(again.time, minutes)
    assert len(np.unique(minutes.astype(np.float32))) < 500


@settings(max_examples=10)
@given(valid_bars(least=2))
def test_prices_off_the_grid_survive(folder: Path, bars: Bars) -> None:
    scale = 1 + 2**-40
    odd = replace(bars, **{name: getattr(bars, name) * scale for name in ("open", "high", "low", "close")})
    for name in ("odd.csv", "odd.mt5.csv"):
        write_bars(odd, folder / name)
        again = read_bars(
            folder / name,
            symbol="TEST",
            timeframe=odd.timeframe,
            zone=odd.zone.name,
            side=odd.side,
            digits=odd.digits,
        )
        assert again.hash == odd.hash


def test_days_have_no_clock_in_metatraders_layout(tmp_path: Path) -> None:
    days = replace(
        random_bars(3, seed=1),
        timeframe=Timeframe.D1,
        time=ServerZone("server-eu").to_utc(86_400 * (19_000 + np.arange(3))),
    )
    write_bars(days, tmp_path / "EURUSD_D1.mt5.csv")
    assert (tmp_path / "EURUSD_D1.mt5.csv").read_text().startswith("<DATE>\t<OPEN>")
    assert read_bars(tmp_path / "EURUSD_D1.mt5.csv").hash == days.hash


def test_an_hour_shown_twice_is_not_written_in_server_time(tmp_path: Path) -> None:
    second = random_bars(2, seed=1)
    second = replace(
        second, time=np.array([1_698_541_200, 1_698_544_800])
    )  # only the second 03:00 of 2023-10-29
    with pytest.raises(errors.TimeError, match="shows this hour twice"):
        write_bars(second, tmp_path / "EURUSD_H1.mt5.csv")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "EURUSD_H1.parquet"
    bars = random_bars(20, seed=1)
    write_bars(bars, path)

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", fail)
    with pytest.raises(OSError, match="disk full"):
        write_bars(random_bars(30, seed=2), path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert read_bars(path).hash == bars.hash


def foreign(path: Path, bars: Bars, **columns: pl.Series) -> Path:
    frame = pl.DataFrame({name: getattr(bars, name) for name in COLUMNS}).with_columns(**columns)
    frame.write_parquet(path)
    return path


def test_other_peoples_parquet(tmp_path: Path) -> None:
    bars = replace(random_bars(40, seed=3), zone=ServerZone("UTC"))
    path = tmp_path / "EURUSD_H1.parquet"
    assert read_bars(foreign(path, bars)).hash == bars.hash  # int64 seconds
    stamps = pl.from_epoch(pl.Series(bars.time), "s")
    assert read_bars(foreign(path, bars, time=stamps.dt.replace_time_zone("UTC"))).hash == bars.hash
    assert read_bars(foreign(path, bars, time=stamps), zone="UTC").hash == bars.hash
    assert read_bars(foreign(path, bars, time=pl.Series(bars.time * 1000))).hash == bars.hash
    with pytest.raises(errors.TimeError, match="the times state no zone"):
        read_bars(foreign(path, bars, time=stamps))
    eu = read_bars(
        foreign(path, bars, time=pl.from_epoch(pl.Series(random_bars(40, seed=3).server_time), "s")),
        zone="server-eu",
    )
    assert (eu.time == bars.time).all()


def test_faults_of_parquet_name_the_row(tmp_path: Path) -> None:
    bars = random_bars(40, seed=3)
    path = tmp_path / "EURUSD_H1.parquet"
    holes = pl.Series([None if k == 6 else value for k, value in enumerate(bars.close.tolist())])
    with pytest.raises(errors.CellError, match="an empty cell") as caught:
        read_bars(foreign(path, bars, close=holes))
    assert (caught.value.row, caught.value.column) == (7, "close")
    assert len(read_bars(path, repair=("drop-bad",), timeframe="H1")) == 39
    with pytest.raises(errors.PriceError) as caught:
        read_bars(foreign(path, bars, low=pl.Series(np.where(np.arange(40) == 11, np.inf, bars.low))))
    assert (caught.value.row, caught.value.column) == (12, "low")
    for columns, words in [
        ({"close": pl.Series(["a"] * 40)}, "holds String, not numbers"),
        ({"time": pl.Series([1.5] * 40)}, "not times"),
    ]:
        with pytest.raises(errors.ColumnError, match=words):
            read_bars(foreign(path, bars, **columns))
    pl.DataFrame({"a": [1], "b": [2]}).write_parquet(path)
    with pytest.raises(errors.ColumnError, match="no column 'time' among"):
        read_bars(path)


def test_damaged_parquet_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "EURUSD_H1.parquet"
    write_bars(random_bars(300, seed=1), path)
    data = path.read_bytes()
    random = np.random.default_rng(3)
    outcomes = {"bars": 0}
    messages = []
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(3):
            damaged[int(random.integers(4, len(data)))] ^= 1 << int(random.integers(0, 8))
        path.write_bytes(
            bytes(damaged[: len(damaged) if random.random() < 0.7 else int(random.integers(4, len(data)))])
        )
        try:
            read_bars(path)
            outcomes["bars"] += 1
        except errors.DataError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert not [message for message in messages if "\n" in message]
