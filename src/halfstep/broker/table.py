"""Bars in the form the engine reads: bids in whole points, spreads after the floor, nights of swap, rates."""

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from halfstep.broker._layout import (
    ATR,
    CLOSE,
    COLOUR,
    DETAIL_SIZE,
    MARGIN_RATE,
    NIGHTS,
    OPEN,
    PROFIT_RATE,
    SPREAD,
    TABLE_SIZE,
    TIME,
)  # fmt: skip
from halfstep.broker.rules import AccountRules
from halfstep.errors import ConfigError
from halfstep.market.bars import Bars
from halfstep.market.calendar import rollover_days
from halfstep.market.instruments import Instrument
from halfstep.market.state import time_harmonics
from halfstep.market.timeframes import Timeframe

__all__ = ["CLOSE", "OPEN", "SPREAD", "Detail", "MarketTable", "market_table"]

Column = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Detail:
    """Finer bars inside the bars of a table.

    Attributes:
        values: ``(rows, 5)`` float64: open, high, low, close of the BID in points, spread in points.
        rows: first and last-plus-one row of each bar, ``(bars, 2)`` int64; equal where the finer bars do not
            resample to the bar exactly, so that they are not used.
        bars: what it was made from.
        missing: bars for which it cannot be used.
    """

    values: Column
    rows: Rows
    bars: Bars
    missing: int


@dataclass(frozen=True, kw_only=True, eq=False)
class MarketTable:
    """What the engine reads of the market.

    Attributes:
        values: ``(bars, 11)`` float64: open, high, low, close of the BID in points, spread in points, nights of
            swap, profit rate, margin rate, ATR in points, UTC second of the open, colour (+1 rising, -1 falling).
        server_time: server seconds at each bar's open, ``(bars,)`` int64.
        bars: the bars it was made from.
        instrument: what is traded.
        floored_spreads: share of bars whose spread is the floor because the stated one is smaller or absent.
        pricing: `AccountRules.pricing` of the rules it was made with.
        detail: finer bars, or None.
    """

    values: Column
    server_time: Rows
    bars: Bars
    instrument: Instrument
    floored_spreads: float
    pricing: tuple[str, float, int | None]
    detail: Detail | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __deepcopy__(self, memo: object) -> "MarketTable":
        return self  # frozen; environments are copied with their arguments

    @functools.cached_property
    def harmonics(self) -> Column:
        """Sine of the year, cosine of the month, sine of the week and of the day at each bar, ``(bars, 4)``."""
        return time_harmonics(self.server_time)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays that the engine reads."""
        detail = 0 if self.detail is None else self.detail.values.nbytes + self.detail.rows.nbytes
        return self.values.nbytes + self.server_time.nbytes + detail


def market_table(
    bars: Bars,
    instrument: Instrument,
    rules: AccountRules,
    *,
    detail: Bars | None = None,
    profit_rate: Column | None = None,
    margin_rate: Column | None = None,
    atr_points: Column | None = None,
) -> MarketTable:
    """Return the engine's table of bars.

    The spread of a bar is the stated one, else the last known one, else the floor; then at least the floor; then
    scaled by ``cost_scale`` and rounded. ASK bars become BID by subtracting that spread from all four prices.

    Args:
        detail: finer bars of the same symbol and side, for ``intrabar="m1"``.
        profit_rate, margin_rate: account currency per unit of the quote and of the base currency at each bar,
            ``(n,)``; needed where the account currency is neither, and of no influence otherwise.
        atr_points: charged for idle bars, ``(n,)``; default 0.

    Raises:
        ConfigError: the account currency is neither base nor quote and no rates are given; series of another
            length; detail of another symbol, side or of no finer timeframe.
        PriceError: prices off the instrument's grid.
    """
    n = len(bars)
    needs_rates = rules.currency not in (instrument.base, instrument.quote)
    if needs_rates and (profit_rate is None or margin_rate is None):
        raise ConfigError(
            f"currency: {rules.currency!r}, must be {instrument.base} or {instrument.quote} for {instrument.symbol}. "
            f"For another account give profit_rate ({instrument.quote}{rules.currency}) "
            f"and margin_rate ({instrument.base}{rules.currency})."
        )
    if bars.digits != instrument.digits:
        raise ConfigError(
            f"digits: the bars have {bars.digits}, {instrument.symbol} has {instrument.digits}."
        )
    spread, floored = _spreads(bars, instrument, rules)
    values = np.zeros((n, TABLE_SIZE))
    values[:, : CLOSE + 1] = _bids(bars, spread)
    values[:, SPREAD] = spread
    values[:, NIGHTS] = rollover_days(bars.time, bars.zone, instrument.swap_days)
    values[:, PROFIT_RATE] = _rates("profit_rate", profit_rate, n) if needs_rates else 1.0
    values[:, MARGIN_RATE] = _rates("margin_rate", margin_rate, n) if needs_rates else 1.0
    values[:, ATR] = 0.0 if atr_points is None else atr_points
    values[:, TIME] = bars.time
    values[:, COLOUR] = _colours(values[:, OPEN], values[:, CLOSE])
    values.flags.writeable = False
    return MarketTable(
        values=values,
        server_time=bars.server_time,
        bars=bars,
        instrument=instrument,
        floored_spreads=floored,
        pricing=rules.pricing,
        detail=None if detail is None else _detail(bars, detail, instrument, rules),
    )


def _rates(name: str, series: Column | None, n: int) -> Column:
    rates = np.asarray(series, np.float64)
    if rates.shape != (n,) or not (np.isfinite(rates) & (rates > 0)).all():
        raise ConfigError(f"{name}: shape {rates.shape}, must be ({n},) finite rates above 0, one a bar.")
    return rates


def _bids(bars: Bars, spread: Column) -> Column:
    """Return open, high, low, close of the BID in points, ``(n, 4)``."""
    prices = np.stack([bars.points("open"), bars.points("high"), bars.points("low"), bars.points("close")], 1)
    return prices - spread[:, None] if bars.side == "ask" else prices


def _spreads(bars: Bars, instrument: Instrument, rules: AccountRules) -> tuple[Column, float]:
    floor = instrument.spread_floor_points if rules.spread_floor_points is None else rules.spread_floor_points
    stated = bars.spread >= 0
    last = np.maximum.accumulate(np.where(stated, np.arange(len(bars)), -1))
    known = np.where(last >= 0, bars.spread[np.maximum(last, 0)], floor)
    charged = np.maximum(known, floor)
    floored = float(((charged > known) | (last < 0)).mean())
    return np.floor(charged * rules.cost_scale + 0.5), floored


def _colours(opens: Column, closes: Column) -> Column:
    """Return +1 for a rising and -1 for a falling bar; a doji takes the opposite of the bar before."""
    colours = np.sign(closes - opens)
    index = np.arange(len(colours))
    last = np.maximum.accumulate(np.where(colours != 0, index, -1))  # newest bar with a colour of its own
    before = np.where(last >= 0, colours[np.maximum(last, 0)], -1.0)  # as if a falling bar preceded the first
    return np.asarray(np.where((index - last) % 2 == 0, before, -before), np.float64)


def _detail(bars: Bars, finer: Bars, instrument: Instrument, rules: AccountRules) -> Detail:
    """Return finer bars with the rows that belong to each bar."""
    if (finer.digits, finer.side) != (bars.digits, bars.side) or finer.symbol != bars.symbol:
        raise ConfigError(
            f"detail: {finer.symbol} {finer.side} with {finer.digits} digits, "
            f"must be {bars.symbol} {bars.side} with {bars.digits} digits as the bars."
        )
    if finer.timeframe.seconds >= bars.timeframe.seconds:
        raise ConfigError(
            f"detail: {finer.timeframe.name}, must be of a finer timeframe than {bars.timeframe.name}."
        )
    until = np.append(bars.time[1:], bars.close_time[-1])
    if bars.timeframe.seconds <= Timeframe.D1.seconds:
        until = np.minimum(until, bars.close_time)
    rows = np.stack([np.searchsorted(finer.time, bars.time), np.searchsorted(finer.time, until)], axis=1)
    usable = rows[:, 0] < rows[:, 1]
    first, last = rows[usable].T
    points = {name: finer.points(name) for name in ("open", "high", "low", "close")}
    inside = np.stack([first, last], axis=1).ravel()
    highest = np.maximum.reduceat(np.append(points["high"], 0), inside)[::2]
    lowest = np.minimum.reduceat(np.append(points["low"], 0), inside)[::2]
    usable[usable] = (
        (points["open"][first] == bars.points("open")[usable])
        & (highest == bars.points("high")[usable])
        & (lowest == bars.points("low")[usable])
        & (points["close"][last - 1] == bars.points("close")[usable])
    )
    rows[~usable] = 0
    spread = _spreads(finer, instrument, rules)[0]
    values = np.empty((len(finer), DETAIL_SIZE))
    values[:, : CLOSE + 1] = _bids(finer, spread)
    values[:, SPREAD] = spread
    values.flags.writeable = False
    return Detail(values=values, rows=rows.astype(np.int64), bars=finer, missing=int((~usable).sum()))
