"""Small markets and actions written as text.

EURUSD, 10,000 USD, leverage 100, stop-out 50 %, lot cap 100, spread 10, level scale 1000, no commission or swap
unless given. Prices are points above a base of 1.10000; a bar is open/high/low/close of the BID; one point of 0.10
lots is 0.10 USD.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from halfstep.broker import AccountRules, MarketTable, market_table
from halfstep.market.bars import Bars
from halfstep.market.calendar import ServerZone, parse_date
from halfstep.market.instruments import Instrument, instrument
from halfstep.market.timeframes import Timeframe

EURUSD = replace(instrument("EURUSD"), swap_long=0.0, swap_short=0.0)
USDJPY = replace(instrument("USDJPY"), swap_long=0.0, swap_short=0.0)
EURGBP = replace(instrument("EURGBP"), swap_long=0.0, swap_short=0.0)
RULES = AccountRules(lot_cap=100.0, spread_floor_points=10)
Z = [0.0] * 6
BACKENDS = ("python", "single", "batch")
TUESDAY = parse_date("2023-06-06") + 12 * 3600
BASE = 110_000


def buy(lots: float, tp: float, sl: float) -> list[float]:
    return [lots, tp / 1000, sl / 1000, 0, 0, 0]


def sell(lots: float, tp: float, sl: float) -> list[float]:
    return [0, 0, 0, lots, tp / 1000, sl / 1000]


A = buy(0.10, 300, 200)


def bars_of(
    text: str, *, of: Instrument = EURUSD, base: int = BASE, first: str = "0/0/0/0", spread: int | None = 10,
    times: list[int] | None = None, timeframe: Timeframe = Timeframe.H1, side: str = "bid",
) -> Bars:  # fmt: skip
    """Return a bar ``first``, then the bars of ``"o/h/l/c; o/h/l/c"``."""
    rows = [[float(x) for x in bar.split("/")] for bar in [first, *text.split(";")] if bar]
    points = np.array(rows) + base
    n = len(points)
    return Bars(
        time=np.array(times if times else TUESDAY + timeframe.seconds * np.arange(n)),
        **{name: points[:, k] / 10**of.digits for k, name in enumerate(("open", "high", "low", "close"))},
        volume=np.ones(n),
        spread=np.full(n, -1 if spread is None else spread, np.int32),
        symbol=of.symbol,
        timeframe=timeframe,
        digits=of.digits,
        side=side,  # type: ignore[arg-type]
        zone=ServerZone("UTC"),
    )


def market(
    text: str, *, rules: AccountRules = RULES, of: Instrument = EURUSD, detail: str | None = None, atr: float = 0.0,
    rates: tuple[float, float] | None = None, **options: Any,
) -> MarketTable:  # fmt: skip
    """Return the table of `bars_of`; ``detail`` are the quarters of bar 1 on."""
    bars = bars_of(text, of=of, **options)
    n = len(bars)
    finer = None
    if detail is not None:
        base = options.get("base", BASE)
        count = len(detail.split(";"))
        times = [int(bars.time[1]) + 900 * k for k in range(count)]
        finer = bars_of(detail, of=of, base=base, first="", times=times, timeframe=Timeframe.M15)
    given = (
        {} if rates is None else {"profit_rate": np.full(n, rates[0]), "margin_rate": np.full(n, rates[1])}
    )
    return market_table(bars, of, rules, detail=finer, atr_points=np.full(n, atr), **given)


def wild_bars(n: int, seed: int, *, spreads: int = 50, of: Instrument = EURUSD, step: float = 60.0) -> Bars:
    """Return a random walk with gaps, weekends and spreads of 0 to ``spreads`` points, some of them not stated."""
    generator = np.random.default_rng(seed)
    move = np.rint(generator.normal(0, step, n))
    gap = np.where(generator.random(n) < 0.2, np.rint(generator.normal(0, 3 * step, n)), 0)
    opened = BASE + np.concatenate([[0], np.cumsum(move + gap)[:-1]]) + np.where(np.arange(n) > 0, gap, 0)
    opened = np.maximum(opened, 2000)
    close = np.maximum(opened + move, 1000)
    high = np.maximum(opened, close) + np.rint(np.abs(generator.normal(0, step, n)))
    low = np.maximum(np.minimum(opened, close) - np.rint(np.abs(generator.normal(0, step, n))), 500)
    hours = TUESDAY // 86_400 * 86_400 + 3600 * np.arange(3 * n)
    hours = hours[((hours // 86_400 + 3) % 7) < 5][:n]
    columns = {"open": opened, "high": high, "low": low, "close": close}
    return Bars(
        time=hours, **{name: column / 10**of.digits for name, column in columns.items()}, volume=np.ones(n),
        spread=generator.integers(-1, spreads + 1, n).astype(np.int32), symbol=of.symbol, timeframe=Timeframe.H1,
        digits=of.digits, zone=ServerZone("UTC"),
    )  # fmt: skip


def random_actions(n: int, seed: int, cap: float = 1.0) -> np.ndarray:
    """Return actions of which half hold what there is, some ask for nothing and the others for anything."""
    generator = np.random.default_rng(seed)
    actions = generator.random((n, 6))
    actions[:, [0, 3]] *= cap * (generator.random((n, 2)) < 0.6)
    actions[generator.random(n) < 0.5] = np.nan
    return actions
