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
from halfstep.broker.rates import Rate, conversion_rates
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

    def repriced(self, rules: AccountRules) -> "MarketTable":
        """Return the table of the same bars, detail, rates and ATR for rules with other costs.

        Raises:
            ConfigError: the rules are of an account in another currency.
        """
        if rules.currency != self.pricing[0]:
            raise ConfigError(
                f"currency: {rules.currency}, must be {self.pricing[0]} as of the table. "
                "Make a new one with market_table(bars, instrument, rules)."
            )
        return market_table(
            self.bars, self.instrument, rules, detail=None if self.detail is None else self.detail.bars,
            profit_rate=self.values[:, PROFIT_RATE], margin_rate=self.values[:, MARGIN_RATE],
            atr_points=self.values[:, ATR],
        )  # fmt: skip

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
    profit_rate: Rate | None = None,
    margin_rate: Rate | None = None,
    atr_points: Column | None = None,
) -> MarketTable:
    """Return the engine's table of bars.

    The spread of a bar is the stated one, else the last known one, else the floor; then at least the floor; then
    scaled by ``cost_scale`` and rounded. ASK bars become BID by subtracting that spread from all four prices.

    Args:
        detail: finer bars of the same symbol and side, for ``intrabar="m1"``.
        profit_rate, margin_rate: account currency per unit of the quote and of the base currency: a number, one
            a bar ``(n,)``, or `Bars` of the connecting symbol, whose last close known at each bar's open counts.
            Needed where the account currency is neither, and of no influence otherwise.
        atr_points: charged for idle bars, ``(n,)``; default 0.

    Raises:
        ConfigError: the account currency is neither base nor quote and no rates are given; rates of another
            length or symbol; detail of another symbol, side or of no finer timeframe.
        CoverageError: bars of a connecting symbol that do not cover the bars.
        PriceError: prices off the instrument's grid.
    """
    n = len(bars)
    if bars.digits != instrument.digits:
        raise ConfigError(
            f"digits: the bars have {bars.digits}, {instrument.symbol} has {instrument.digits}. Make the contract with "
            f"instrument({instrument.symbol!r}, digits={bars.digits}, ...)."
        )
    spread, floored = _spreads(bars, instrument, rules)
    values = np.zeros((n, TABLE_SIZE))
    values[:, : CLOSE + 1] = _bids(bars, spread)
    values[:, SPREAD] = spread
    values[:, NIGHTS] = rollover_days(bars.time, bars.zone, instrument.swap_days)
    rates = _rates(bars, instrument, rules, profit_rate, margin_rate)
    values[:, PROFIT_RATE], values[:, MARGIN_RATE] = rates
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


def _rates(
    bars: Bars,
    instrument: Instrument,
    rules: AccountRules,
    profit_rate: Rate | None,
    margin_rate: Rate | None,
) -> tuple[Column | float, Column | float]:
    """Return account currency per unit of quote and of base; 1 where the engine needs no rate."""
    to, base, quote = rules.currency, instrument.base, instrument.quote
    if to in (base, quote):
        return 1.0, 1.0
    if profit_rate is None or margin_rate is None:
        raise ConfigError(
            f"currency: {to!r}, must be {base} or {quote} for {instrument.symbol}. For another account give "
            f"profit_rate ({quote}{to}) and margin_rate ({base}{to}): numbers, or bars of that symbol."
        )
    return (
        conversion_rates(profit_rate, bars, base=quote, quote=to, name="profit_rate"),
        conversion_rates(margin_rate, bars, base=base, quote=to, name="margin_rate"),
    )


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
