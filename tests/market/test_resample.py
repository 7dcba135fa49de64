"""Coarser bars: by hand, against the broker's own, against polars, and in two hops."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import valid_bars

from halfstep.errors import ConfigError, CoverageError
from halfstep.market.bars import COLUMNS, Bars
from halfstep.market.calendar import ServerZone
from halfstep.market.read import read_bars
from halfstep.market.resample import resample
from halfstep.market.synthetic import random_bars
from halfstep.market.timeframes import Timeframe


def test_four_quarters_by_hand() -> None:
    quarters = Bars(
        time=np.array([0, 900, 2700, 3600]) + 1_672_617_600,
        open=np.array([1.1, 1.2, 1.3, 1.4]), high=np.array([1.15, 1.5, 1.3, 1.45]), low=np.array([1.05, 1.2, 1.0, 1.35]),
        close=np.array([1.12, 1.3, 1.1, 1.4]), volume=np.array([1.0, 2, 4, 8]), spread=np.array([7, -1, 3, -1]),
        symbol="X", timeframe=Timeframe.M15, digits=5,
    )  # fmt: skip
    hours = resample(quarters, "H1", keep_partial=True)
    assert [list(getattr(hours, name)) for name in COLUMNS] == [
        [1_672_617_600, 1_672_621_200], [1.1, 1.4], [1.5, 1.45], [1.0, 1.35], [1.1, 1.4], [7, 8], [3, -1],
    ]  # fmt: skip
    assert len(resample(quarters, "H1")) == 1  # the second hour is not filled to its end
    with pytest.raises(CoverageError, match="do not fill a single H1 bar"):
        resample(quarters.slice(0, 2), "H1")


@pytest.mark.pitfall("D14")
def test_m15_adds_up_to_h1(shared_data: Callable[[str], Path]) -> None:
    quarters = read_bars(shared_data("EURUSD_M15_mt5_2022-01_2024-01.csv.gz"))
    hours = read_bars(shared_data("EURUSD_H1_mt5_2022-01_2024-01.csv.gz"))
    ours = resample(quarters, "H1")
    assert [int((getattr(ours, name) == getattr(hours, name)).sum()) for name in COLUMNS] == [12_963] * 7
    at = ours.index_at("2023-06-01") + 10
    assert [float(getattr(ours, name)[at]) for name in COLUMNS[1:]] == [
        1.06842,
        1.06867,
        1.06619,
        1.06701,
        4443,
        0,
    ]


@given(valid_bars(frames=(Timeframe.M1, Timeframe.M15)), st.sampled_from(["H4", "D1", "W1", "MN1"]))
def test_two_hops_equal_one(bars: Bars, to: str) -> None:
    direct = resample(bars, to, keep_partial=True)
    through = resample(resample(bars, "H1", keep_partial=True), to, keep_partial=True)
    assert direct.hash == through.hash
    assert direct.volume.sum() == bars.volume.sum()
    assert (direct.high.max(), direct.low.min()) == (bars.high.max(), bars.low.min())


@given(valid_bars(least=2, frames=(Timeframe.M15, Timeframe.H1)), st.sampled_from(["H4", "D1"]))
def test_polars_groups_the_same(bars: Bars, to: str) -> None:
    frame = pl.DataFrame({name: getattr(bars, name) for name in COLUMNS[1:]} | {"server": bars.server_time})
    grouped = (
        frame.with_columns(pl.from_epoch("server", "s").dt.truncate({"H4": "4h", "D1": "1d"}[to]))
        .group_by("server", maintain_order=True)
        .agg(
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            pl.col("volume").sum(),
        )
    )
    ours = resample(bars, to, keep_partial=True)
    np.testing.assert_array_equal(ours.server_time, grouped["server"].dt.epoch("s"))
    for name in ("open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(getattr(ours, name), grouped[name])


def test_days_and_weeks_stand_on_the_servers_clock() -> None:
    bars = random_bars(1200, seed=1, start="2022-03-07")  # over both changes of the clock in March
    days = resample(bars, "D1")
    assert (days.server_time % 86_400 == 0).all()
    assert len(days) == 50
    weeks = resample(bars, "W1", keep_partial=True)
    assert set((weeks.server_time // 86_400 + 4) % 7) == {0}  # Sunday
    months = resample(bars, "MN1", keep_partial=True)
    assert [str(np.datetime64(int(t), "s"))[:10] for t in months.server_time] == [
        "2022-03-01",
        "2022-04-01",
        "2022-05-01",
    ]


def test_the_repeated_hour_of_autumn_stays_two_hours() -> None:
    bars = replace(random_bars(40, seed=1), zone=ServerZone("America/New_York"))
    quarters = replace(bars, timeframe=Timeframe.M30, time=1_667_107_800 + 1800 * np.arange(40) + 6 * 86_400)
    hours = resample(quarters, "H1", keep_partial=True)
    assert (np.diff(hours.time) == 3600).all()


@pytest.mark.parametrize(("fine", "to"), [("H1", "H1"), ("H4", "H1"), ("W1", "MN1"), ("D1", "M15")])
def test_only_coarser_whole_multiples(fine: str, to: str) -> None:
    bars = replace(random_bars(5, seed=1), timeframe=Timeframe.parse(fine))
    with pytest.raises(ConfigError, match="must be a coarser whole multiple"):
        resample(bars, to)
