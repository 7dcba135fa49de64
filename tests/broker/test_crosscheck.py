"""The same orders in other simulators, where they are installed; the package never imports them.

Long or flat: a crossing of two moving averages buys with a stop and a target, which alone close. No spread, and gaps
fill at the open, as there. backtesting.py places the levels in prices. vectorbt takes them as fractions of the fill
and looks for them from the bar after the order on; so the order stands on the bar of the crossing, at the next open.
"""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from halfstep.broker import AccountRules, BatchedAccounts, deals_frame, market_table
from halfstep.market.bars import Bars
from halfstep.market.instruments import instrument
from halfstep.market.read import read_bars
from halfstep.market.synthetic import random_bars

Trades = tuple[
    list[tuple[int, int, float, float]], float
]  # bars and prices of entry and exit; the final equity

STOP, TARGET = 150, 220  # points
LOTS = 0.10


def signals(close: np.ndarray) -> np.ndarray:
    """Return where the mean of 10 closes crosses above the mean of 30."""
    total = np.concatenate([[0.0], np.cumsum(np.rint(close * 1e5))])
    fast, slow = np.zeros(len(close)), np.zeros(len(close))
    fast[9:] = (total[10:] - total[:-10]) / 10
    slow[29:] = (total[30:] - total[:-30]) / 30
    above = fast > slow
    return np.concatenate([np.zeros(30, bool), above[30:] & ~above[29:-1]])


def ours(bars: Bars) -> Trades:
    rules = AccountRules(spread_floor_points=0, gap_fill="market")
    traded = replace(instrument("EURUSD", profile="free"))
    bars = replace(bars, spread=np.zeros(len(bars), np.int32))
    table = market_table(bars, traded, rules)
    accounts = BatchedAccounts(table, rules, 1, log_capacity=4 * len(bars))
    accounts.reset(first=0, stop=len(bars) - 1)
    buys, close, opened = signals(bars.close), bars.points("close"), bars.points("open")
    hold = np.full((1, 6), np.nan)
    for t in range(len(bars) - 1):
        action = hold
        if buys[t] and accounts.state.long_.steps[0] == 0:
            distances = close[t] + TARGET - opened[t + 1], opened[t + 1] - close[t] + STOP
            action = np.array([[LOTS, distances[0] / 1000, distances[1] / 1000, 0, 0, 0]])
        accounts.step(action)
    trades = []
    deals = deals_frame(accounts.log, table)
    ins, outs = (deals.filter(deals["entry"] == entry).to_dicts() for entry in ("in", "out"))
    for start, end in zip(ins, outs, strict=False):
        trades.append((start["bar"], end["bar"], round(start["price"], 5), round(end["price"], 5)))
    return trades, float(accounts.state.equity[0])


def of_backtesting(bars: Bars) -> Trades:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backtesting = pytest.importorskip("backtesting", reason="backtesting.py is not installed")
        import pandas as pd

        class Crossing(backtesting.Strategy):  # type: ignore[misc, name-defined]
            def init(self) -> None:
                self.buys = signals(bars.close)

            def next(self) -> None:
                t = len(self.data) - 1
                if self.buys[t] and not self.position:
                    points = round(self.data.Close[-1] * 1e5)
                    self.buy(size=int(LOTS * 1e5), sl=(points - STOP) / 1e5, tp=(points + TARGET) / 1e5)

        frame = pd.DataFrame(
            {name.title(): np.array(getattr(bars, name)) for name in ("open", "high", "low", "close")},
            index=pd.to_datetime(bars.time, unit="s"),
        )
        stats: Any = backtesting.Backtest(frame, Crossing, cash=10_000, margin=0.01).run()
    found = stats["_trades"]
    columns = (found["EntryBar"], found["ExitBar"], found["EntryPrice"].round(5), found["ExitPrice"].round(5))
    return list(zip(*(column.tolist() for column in columns), strict=True)), float(stats["Equity Final [$]"])


def of_vectorbt(bars: Bars) -> Trades:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vectorbt = pytest.importorskip("vectorbt", reason="vectorbt is not installed")
        import pandas as pd
        from vectorbt.portfolio.enums import StopEntryPrice, StopExitPrice, TradeStatus

        columns = {name: pd.Series(bars.points(name)) for name in ("open", "high", "low", "close")}  # type: ignore[arg-type]
        close, buys = columns["close"].to_numpy(), signals(bars.close)
        fill = np.append(columns["open"].to_numpy()[1:], 0.0)
        buys[-1], fill[-1] = False, close[-1]  # there is no next open
        portfolio = vectorbt.Portfolio.from_signals(
            **columns, entries=buys, exits=False, price=fill, size=LOTS * 1e5, init_cash=1e12,
            sl_stop=(fill - close + STOP) / fill, tp_stop=(close + TARGET - fill) / fill,
            stop_entry_price=StopEntryPrice.FillPrice, stop_exit_price=StopExitPrice.StopLimit,
        )  # fmt: skip
        found = portfolio.trades.records
        profit = float(found["pnl"].sum()) / 1e5
    trades = [
        (
            trade.entry_idx + 1,
            trade.exit_idx,
            round(trade.entry_price / 1e5, 5),
            round(trade.exit_price / 1e5, 5),
        )
        for trade in found.itertuples()
    ]
    assert (found["status"][:-1] == TradeStatus.Closed).all()
    return trades, 10_000.0 + profit


SIMULATORS = [of_backtesting, of_vectorbt]


def compare(bars: Bars, theirs: Callable[[Bars], Trades]) -> int:
    mine, equity = ours(bars)
    other, other_equity = theirs(bars)
    assert mine == sorted(other)[: len(mine)]
    assert len(other) - len(mine) in (0, 1)  # the one still open
    assert equity == pytest.approx(other_equity, rel=1e-9)
    return len(mine)


@pytest.mark.parametrize("theirs", SIMULATORS)
def test_same_trades_on_a_random_walk(theirs: Callable[[Bars], Trades]) -> None:
    assert compare(random_bars(2000, seed=3), theirs) > 20


@pytest.mark.parametrize("theirs", SIMULATORS)
def test_same_trades_on_the_real_hours(  # type: ignore[no-untyped-def]
    theirs: Callable[[Bars], Trades], shared_data
) -> None:
    bars = read_bars(shared_data("EURUSD_H1_mt5_2022-01_2024-01.csv.gz"), symbol="EURUSD")
    assert compare(bars.slice(6228, 12_435), theirs) > 50
