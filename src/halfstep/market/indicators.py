"""RSI, CCI, ATR and MACD exactly as MetaTrader 5 computes them.

Other libraries differ: their ATR follows Wilder's smoothing (up to 23 % away), their MACD signal is an
exponential mean (11 % away). Functions take float64 arrays and return arrays of the same length with NaN before
the first defined index. Each is one pass; the compiled form and the plain Python form are the same source
(`plain`), so that one tests the other.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from halfstep.market.bars import Bars

Series = npt.NDArray[np.float64]

FAST, SLOW, SIGNAL = 12, 26, 9


BLOCK = 2048  # bars that are added up together: all of them fit the fastest cache


def _rsi(close: Series, period: int) -> Series:
    n = len(close)
    out = np.empty(n)
    out[: min(period, n)] = np.nan
    if n <= period:
        return out
    gain = 0.0
    loss = 0.0
    for i in range(1, period + 1):
        change = close[i] - close[i - 1]
        gain += max(change, 0.0)
        loss += max(-change, 0.0)
    gain /= period
    loss /= period
    for i in range(period, n):
        if i > period:
            change = close[i] - close[i - 1]
            gain = (gain * (period - 1) + max(change, 0.0)) / period
            loss = (loss * (period - 1) + max(-change, 0.0)) / period
        if loss == 0.0:
            out[i] = 100.0 if gain > 0.0 else 50.0
        else:
            out[i] = 100.0 - 100.0 / (1.0 + gain / loss)
    return out


def _cci(high: Series, low: Series, close: Series, period: int) -> Series:
    n = len(close)
    out = np.full(n, np.nan)
    price = (high + low + close) / 3.0
    for i in range(period - 1, n):
        mean = 0.0
        for j in range(i - period + 1, i + 1):
            mean += price[j]
        mean /= period
        deviation = 0.0
        for j in range(i - period + 1, i + 1):
            deviation += abs(price[j] - mean)
        deviation /= period
        out[i] = (price[i] - mean) / (0.015 * deviation) if deviation > 0.0 else 0.0
    return out


def _true_range(high: Series, low: Series, close: Series) -> Series:
    n = len(close)
    out = np.empty(n)
    out[:1] = np.nan
    later, top, bottom, before = out[1:], high[1:], low[1:], close[:-1]
    for i in range(len(later)):
        later[i] = max(top[i], before[i]) - min(bottom[i], before[i])
    return out


def _macd_main(close: Series, fast: int, slow: int) -> Series:
    out = np.empty(len(close))
    fast_weight = 2.0 / (fast + 1.0)
    slow_weight = 2.0 / (slow + 1.0)
    fast_mean = slow_mean = close[0]
    for i in range(len(close)):
        fast_mean += fast_weight * (close[i] - fast_mean)
        slow_mean += slow_weight * (close[i] - slow_mean)
        out[i] = fast_mean - slow_mean
    return out


def _sma(values: Series, period: int, first: int) -> Series:
    n = len(values)
    out = np.empty(n)
    start = first + period - 1
    out[: min(start, n)] = np.nan
    for begin in range(start, n, BLOCK):  # bar by bar this adds in the same order, but cannot be vectorised
        sums = out[begin : begin + BLOCK]
        sums[:] = 0.0
        for back in range(period - 1, -1, -1):
            part = values[begin - back : begin - back + len(sums)]
            for i in range(len(sums)):
                sums[i] += part[i]
        for i in range(len(sums)):
            sums[i] /= period
    return out


@njit(cache=True)
def _find(window: Series, held: int, value: float) -> int:
    low, high = 0, held
    while low < high:
        middle = (low + high) // 2
        if window[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


def _median_before(values: Series, period: int, least: int) -> Series:
    n = len(values)
    out = np.full(n, np.nan)
    window = np.empty(period)  # the last values in rising order
    held = 0
    for i in range(n):
        if held >= least:
            half = held // 2
            out[i] = window[half] if held % 2 else 0.5 * (window[half - 1] + window[half])
        at = held
        if held == period:  # the new value takes the place of the oldest, moving what lies between
            oldest = values[i - period]
            at = _find(window, held, oldest)
            held -= 1
        while at < held and window[at + 1] < values[i]:
            window[at] = window[at + 1]
            at += 1
        while at > 0 and window[at - 1] > values[i]:
            window[at] = window[at - 1]
            at -= 1
        window[at] = values[i]
        held += 1
    return out


plain: dict[str, Callable[..., Any]] = {
    "rsi": _rsi,
    "cci": _cci,
    "true_range": _true_range,
    "macd_main": _macd_main,
    "sma": _sma,
    "median_before": _median_before,
}
"""The formulas as plain Python: the reference of the compiled forms."""

_compiled = {name: njit(cache=True)(function) for name, function in plain.items()}


def rsi(close: Series, period: int = 14) -> Series:
    """Relative strength index, 0 to 100, first index ``period``.

    With d_i = x_i - x_{i-1}: G and L start as the means of max(d, 0) and max(-d, 0) over the first ``period``
    changes, then G <- (G (period - 1) + max(d_i, 0)) / period and L likewise; RSI = 100 - 100 / (1 + G / L).
    L = 0 gives 100, or 50 where G = 0 too.
    """
    out: Series = _compiled["rsi"](close, period)
    return out


def cci(high: Series, low: Series, close: Series, period: int = 14) -> Series:
    """Commodity channel index of the typical price p = (H + L + C) / 3, first index ``period - 1``.

    CCI = (p_i - m_i) / (0.015 D), m_i the mean of the last ``period`` p, D the mean of |p_j - m_i| over them;
    0 where D = 0. Bounded by period / 0.03.
    """
    out: Series = _compiled["cci"](high, low, close, period)
    return out


def atr(high: Series, low: Series, close: Series, period: int = 14) -> Series:
    """Average true range: the simple mean of the last ``period`` true ranges, first index ``period``.

    TR_i = max(H_i, C_{i-1}) - min(L_i, C_{i-1}). Wilder's version, which other libraries use, differs.
    """
    out: Series = _compiled["sma"](_compiled["true_range"](high, low, close), period, 1)
    return out


def macd(close: Series, fast: int = FAST, slow: int = SLOW, signal: int = SIGNAL) -> tuple[Series, Series]:
    """Return MACD's main line (from index 0) and signal line (from index ``signal - 1``).

    E_0 = x_0, E <- E + 2 / (k + 1) (x - E) for k = fast and slow; main = E_fast - E_slow; signal = the simple
    mean of the last ``signal`` mains, not the exponential one of other libraries.
    """
    main: Series = _compiled["macd_main"](close, fast, slow)
    return main, _compiled["sma"](main, signal, 0)


def median_before(values: Series, period: int, *, least: int | None = None) -> Series:
    """Return the median of the ``period`` values before each index (the value itself excluded).

    Args:
        values: ``(n,)``, without NaN.
        period: length of the window.
        least: smallest number of values that give a median near the start; default: ``period``.
    """
    out: Series = _compiled["median_before"](values, period, period if least is None else least)
    return out


def atr_points(bars: Bars) -> Series:
    """Return the ATR in points, 0 where it is not yet defined."""
    values = atr(bars.high, bars.low, bars.close) * 10.0**bars.digits
    return np.nan_to_num(values, nan=0.0)
