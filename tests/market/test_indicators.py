"""Indicators against MetaTrader's formulas, TA-Lib where it agrees, and numbers worked out by hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfstep.market import indicators
from halfstep.market.bars import Bars
from halfstep.market.indicators import BLOCK
from halfstep.market.read import read_bars
from halfstep.market.synthetic import random_bars

talib = pytest.importorskip("talib", reason="the oracle TA-Lib is not installed (extra `oracles`)")

CLOSE = np.array(
    [100, 102, 101, 103, 104, 103, 105, 107, 106, 108, 107, 109, 110, 108, 111, 112, 110, 113, 112, 114.0]
)


@pytest.fixture(scope="module", params=["made up", "real"])
def bars(request: pytest.FixtureRequest, shared_data: Callable[[str], Path]) -> Bars:
    if request.param == "made up":
        return random_bars(3000, seed=5)
    return read_bars(shared_data("EURUSD_H1_mt5_2022-01_2024-01.csv.gz"))


def test_indicators_of_twenty_closes() -> None:
    high, low = CLOSE + 1, CLOSE - 1
    np.testing.assert_allclose(indicators.rsi(CLOSE)[14:17], [73.913043, 75.079872, 68.482403], atol=5e-7)
    np.testing.assert_allclose(
        indicators.atr(high, low, CLOSE)[14:17], [2.642857, 2.571429, 2.642857], atol=5e-7
    )
    np.testing.assert_allclose(
        indicators.cci(high, low, CLOSE)[13:16], [70.270270, 129.629630, 134.895833], atol=5e-7
    )
    main, signal = indicators.macd(CLOSE)
    np.testing.assert_allclose(main[[1, 2, 19]], [0.15954416, 0.20295290, 3.05025675], atol=5e-9)
    np.testing.assert_allclose(signal[[8, 19]], [0.63111847, 2.56765430], atol=5e-9)
    assert np.isnan(indicators.rsi(CLOSE)[:14]).all()
    assert np.isnan(signal[:8]).all()


@pytest.mark.pitfall("T29")
def test_indicators_by_hand() -> None:
    low = np.array([10, 11, 11, 13, 12, 14, 12.0])
    high, close = np.array([12, 13, 14, 15, 16, 15, 14.0]), low + 1
    # true ranges from the second bar on: 2, 3, 3, 4, 2, 3
    ours = indicators.atr(high, low, close, 3)
    np.testing.assert_allclose(ours[3:], [8 / 3, 10 / 3, 3.0, 3.0])
    assert abs(ours[4] - 3.1111) > 0.1  # Wilder's smoothing
    assert indicators.cci(high, low, close, 3)[-1] == pytest.approx(-87.5)
    np.testing.assert_allclose(
        indicators.rsi(np.array([10, 11, 10.5, 11.5, 12, 11]), 3)[3:], [80, 84.6154, 50], atol=5e-5
    )
    ramp = indicators.macd(np.arange(5.0), fast=1, slow=1, signal=3)
    assert np.all(ramp[0] == 0)
    assert (
        indicators._compiled["sma"](np.arange(5.0), 3, 0)[-1] == 3.0
    )  # an exponential mean would give 3.0625


def test_talib_agrees_where_it_computes_the_same(bars: Bars) -> None:
    high, low, close = bars.high, bars.low, bars.close
    np.testing.assert_allclose(indicators.rsi(close), talib.RSI(close), atol=1e-12)
    np.testing.assert_allclose(indicators.cci(high, low, close), talib.CCI(high, low, close), atol=1e-9)
    np.testing.assert_allclose(indicators.macd(close)[0][500:], talib.MACD(close)[0][500:], atol=1e-12)
    ours = indicators.atr(high, low, close)
    np.testing.assert_allclose(ours[14:], talib.SMA(talib.TRANGE(high, low, close), 14)[14:], atol=1e-14)
    wilder = talib.ATR(high, low, close)
    assert np.nanmedian(np.abs(ours[100:] / wilder[100:] - 1)) > 0.02
    main, signal = indicators.macd(close)
    np.testing.assert_allclose(signal[8:], talib.SMA(main, 9)[8:], atol=1e-15)


def test_the_reference_bar_of_january(shared_data: Callable[[str], Path]) -> None:
    bars = read_bars(shared_data("EURUSD_H1_mt5_2022-01_2024-01.csv.gz"))
    at = bars.index_at("2024-01-15") + 9
    main, signal = indicators.macd(bars.close)
    assert indicators.rsi(bars.close)[at] == pytest.approx(45.730490, abs=5e-7)
    assert indicators.cci(bars.high, bars.low, bars.close)[at] == pytest.approx(12.232953, abs=5e-7)
    assert indicators.atr(bars.high, bars.low, bars.close)[at] == pytest.approx(0.00080357142857, abs=5e-15)
    assert (main[at], signal[at]) == pytest.approx((-0.000102908801, -0.000260686610), abs=5e-13)


def test_compiled_and_plain_forms_agree_to_the_bit() -> None:
    bars = random_bars(300, seed=3)
    for name, arguments in {
        "rsi": (bars.close, 14),
        "cci": (bars.high, bars.low, bars.close, 14),
        "true_range": (bars.high, bars.low, bars.close),
        "macd_main": (bars.close, 12, 26),
        "sma": (bars.close, 9, 1),
        "median_before": (bars.volume, 120, 50),
    }.items():
        np.testing.assert_array_equal(
            indicators.plain[name](*arguments), indicators._compiled[name](*arguments)
        )


@pytest.mark.parametrize("n", [1, 13, 14, 15, BLOCK + 13, BLOCK + 14, 2 * BLOCK + 15])
def test_means_over_blocks_equal_those_bar_by_bar(n: int) -> None:
    bars = random_bars(n, seed=4)
    main, signal = indicators.macd(bars.close)
    ranges = np.maximum(bars.high[1:], bars.close[:-1]) - np.minimum(bars.low[1:], bars.close[:-1])
    for ours, values, period, first in (
        (signal, main, 9, 8), (indicators.atr(bars.high, bars.low, bars.close), np.append(np.nan, ranges), 14, 14),
    ):  # fmt: skip
        assert len(ours) == n
        assert np.isnan(ours[:first]).all()
        expected = [sum(values[i - period + 1 : i + 1].tolist()) / period for i in range(first, n)]
        np.testing.assert_allclose(ours[first:], expected, rtol=0, atol=1e-16)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.integers(1, 8))
def test_the_running_median_equals_the_naive_one(values: list[int], period: int) -> None:
    series = np.array(values, float)
    ours = indicators.median_before(series, period)
    for i in range(len(series)):
        if i < period:
            assert np.isnan(ours[i])
        else:
            assert ours[i] == np.median(series[i - period : i])


@given(st.lists(st.floats(0.9, 1.3), min_size=20, max_size=80))
def test_bounds_and_mirror(closes: list[float]) -> None:
    close = np.array(closes)
    ours = indicators.rsi(close)[14:]
    assert ((ours >= 0) & (ours <= 100)).all()
    moved = np.abs(np.diff(close)).sum() > 1e-6
    if moved:
        np.testing.assert_allclose(ours, 100 - indicators.rsi(2.2 - close)[14:], atol=1e-4)
    assert (np.abs(indicators.cci(close, close, close)[13:]) <= 14 / 0.03 + 1e-6).all()
    assert (indicators.atr(close, close, close)[14:] >= 0).all()
