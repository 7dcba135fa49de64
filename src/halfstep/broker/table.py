"""Bars in the form the engine reads: bids in whole points, spreads after the floor, nights of swap, rates."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from halfstep.broker.rules import AccountRules
from halfstep.errors import ConfigError
from halfstep.market.bars import Bars
from halfstep.market.calendar import rollover_days
from halfstep.market.instruments import Instrument

Column = npt.NDArray[np.float64]

OPEN, HIGH, LOW, CLOSE, SPREAD, NIGHTS, PROFIT_RATE, MARGIN_RATE, ATR, TIME, COLOUR = range(11)
"""Columns of `MarketTable.values`."""


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
    """

    values: Column
    server_time: npt.NDArray[np.int64]
    bars: Bars
    instrument: Instrument
    floored_spreads: float

    def __len__(self) -> int:
        return len(self.values)


def market_table(
    bars: Bars,
    instrument: Instrument,
    rules: AccountRules,
    *,
    profit_rate: Column | None = None,
    margin_rate: Column | None = None,
    atr_points: Column | None = None,
) -> MarketTable:
    """Return the engine's table of bars.

    The spread of a bar is the stated one, else the last known one, else the floor; then at least the floor; then
    scaled by ``cost_scale`` and rounded. ASK bars become BID by subtracting that spread from all four prices.

    Args:
        profit_rate, margin_rate: account currency per unit of the quote and of the base currency at each bar,
            ``(n,)``; needed where the account currency is neither.
        atr_points: charged for idle bars, ``(n,)``; default 0.

    Raises:
        ConfigError: the account currency is neither base nor quote and no rates are given.
        PriceError: prices off the instrument's grid.
    """
    n = len(bars)
    given = profit_rate is not None and margin_rate is not None
    if rules.currency not in (instrument.base, instrument.quote) and not given:
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
    values = np.zeros((n, 11))
    for column, name in ((OPEN, "open"), (HIGH, "high"), (LOW, "low"), (CLOSE, "close")):
        prices = bars.points(name)  # type: ignore[arg-type]  # the four literals above
        values[:, column] = prices - spread if bars.side == "ask" else prices
    values[:, SPREAD] = spread
    values[:, NIGHTS] = rollover_days(bars.time, bars.zone, instrument.swap_days)
    values[:, PROFIT_RATE] = 1.0 if profit_rate is None else profit_rate
    values[:, MARGIN_RATE] = 1.0 if margin_rate is None else margin_rate
    values[:, ATR] = 0.0 if atr_points is None else atr_points
    values[:, TIME] = bars.time
    values[:, COLOUR] = _colours(values[:, OPEN], values[:, CLOSE])
    values.flags.writeable = False
    return MarketTable(
        values=values, server_time=bars.server_time, bars=bars, instrument=instrument, floored_spreads=floored
    )


def _spreads(bars: Bars, instrument: Instrument, rules: AccountRules) -> tuple[Column, float]:
    floor = instrument.spread_floor_points if rules.spread_floor_points is None else rules.spread_floor_points
    stated = bars.spread >= 0
    last = np.maximum.accumulate(np.where(stated, np.arange(len(bars)), -1))
    known = np.where(last >= 0, bars.spread[np.maximum(last, 0)], floor)
    charged = np.maximum(known, floor)
    floored = float(((charged > known) | ~stated).mean())
    return np.floor(charged * rules.cost_scale + 0.5), floored


def _colours(opens: Column, closes: Column) -> Column:
    """Return +1 for a rising and -1 for a falling bar; a doji takes the opposite of the bar before."""
    colours = np.sign(closes - opens)
    if len(colours) and colours[0] == 0:
        colours[0] = 1
    for i in np.flatnonzero(colours == 0):
        colours[i] = -colours[i - 1]
    return np.asarray(colours, np.float64)
