"""What happened in a test, as plain arrays and tables: everything the figures of the report are computed from."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float64, Int64, UInt8

from halfstep.broker._layout import PROFIT_RATE
from halfstep.broker.deals import deals_frame, positions_frame, trades_frame
from halfstep.broker.engine import RUNNING, TERMINATED, TRUNCATED, Run
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable
from halfstep.market.calendar import years_between

ENDS = {RUNNING: "running", TERMINATED: "ruined", TRUNCATED: "finished"}
PRICES_PER_BAR = 4


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class TestRun:
    """One account's pass over a test span. Money is account currency, times are seconds of the server's clock.

    Attributes:
        symbol, timeframe, zone: of the bars; names.
        currency, deposit, leverage: of the account.
        lot_min: least volume of the instrument.
        action_range: largest value of each element of an action, ``(6,)``.
        open_time, close_time: of each bar stepped, ``(bar,)``; the record of a bar is the account at its close.
        years: from the first open to the last close.
        balance, equity, equity_worst, margin, buy_lots, sell_lots: after each bar, ``(bar,)``.
        asked: actions as the policy gave them, ``(bar, 6)``.
        executed: what the broker made of them, ``(bar, 6)``.
        outcome, flags: `halfstep.broker.Outcome` and a set of `Flag` for each decision, ``(bar,)``.
        deals: one row per fill, with ``spread_cost`` and ``slippage_cost``; ``step`` is its bar in the arrays above.
        trades: one row per deal that takes volume off a position, with ``step`` and ``net``.
        positions: one row per position, with ``open_step``, ``net``, ``mfe``, ``mae`` and ``held_seconds``.
        status: how it ended: 1 ruined, 2 at the end of the span.
        ambiguous: positions decided by the rule inside a bar.
        detail_missing: bars held through without the finer bars that were asked for.
        ticks: prices simulated.
    """

    __test__ = False  # not a test class, whatever its name

    symbol: str
    timeframe: str
    zone: str
    currency: str
    deposit: float
    leverage: float
    lot_min: float
    action_range: Float64[np.ndarray, "6"]
    open_time: Int64[np.ndarray, " bar"]
    close_time: Int64[np.ndarray, " bar"]
    years: float
    balance: Float64[np.ndarray, " bar"]
    equity: Float64[np.ndarray, " bar"]
    equity_worst: Float64[np.ndarray, " bar"]
    margin: Float64[np.ndarray, " bar"]
    buy_lots: Float64[np.ndarray, " bar"]
    sell_lots: Float64[np.ndarray, " bar"]
    asked: Float64[np.ndarray, "bar 6"]
    executed: Float64[np.ndarray, "bar 6"]
    outcome: UInt8[np.ndarray, " bar"]
    flags: UInt8[np.ndarray, " bar"]
    deals: pl.DataFrame
    trades: pl.DataFrame
    positions: pl.DataFrame
    status: int
    ambiguous: int
    detail_missing: int
    ticks: int

    def __post_init__(self) -> None:
        bars = len(self.equity)
        for name in ("open_time", "close_time", "equity_worst", "asked", "executed", "outcome", "flags"):
            if len(getattr(self, name)) != bars:
                raise ValueError(f"{name}: {len(getattr(self, name))} bars, must be {bars} as the equity.")

    def __len__(self) -> int:
        return len(self.equity)

    @property
    def equity_end(self) -> float:
        """Equity at the last close; the deposit where no bar was stepped."""
        return float(self.equity[-1]) if len(self) else self.deposit

    @property
    def net(self) -> float:
        """Equity at the end minus the deposit: what a run is compared by, also where something was left open."""
        return self.equity_end - self.deposit


def make_test_run(
    run: Run, asked: Float64[np.ndarray, "decision 6"], table: MarketTable, rules: AccountRules
) -> TestRun:
    """Return the record of a run of the engine.

    Each column lies in one piece, so that tables of a million bars share memory with it instead of copying.

    Args:
        run: of `halfstep.broker.engine.run_actions`.
        asked: the actions that were given to it; more than it stepped where it was ruined.
        table, rules: with which it was made.
    """
    bars, instrument = table.bars, table.instrument
    first, stop = (int(run.bar[0]), int(run.bar[-1]) + 1) if len(run.bar) else (0, 0)
    deals = _with_costs(deals_frame(run.log, table), table, rules).with_columns(step=pl.col("bar") - first)
    positions = positions_frame(deals, table).with_columns(
        held_seconds=(pl.col("close_time") - pl.col("open_time")).cast(pl.Float64),
        open_step=pl.col("open_bar") - first,
    )
    ticks = PRICES_PER_BAR * (stop - first)
    if rules.intrabar == "m1" and table.detail is not None:
        ticks += PRICES_PER_BAR * int(np.diff(table.detail.rows[first:stop], axis=1).sum())
    cap = min(rules.lot_cap, instrument.lot_max)
    return TestRun(
        symbol=bars.symbol, timeframe=bars.timeframe.name, zone=bars.zone.name, currency=rules.currency,
        deposit=rules.deposit, leverage=rules.leverage, lot_min=instrument.lot_min,
        action_range=np.array([cap, 1.0, 1.0, cap, 1.0, 1.0]),
        open_time=bars.server_time[first:stop], close_time=bars.zone.to_server(bars.close_time[first:stop]),
        years=years_between(int(bars.time[first]), int(bars.close_time[stop - 1])) if stop else 0.0,
        balance=np.ascontiguousarray(run.balance), equity=np.ascontiguousarray(run.equity),
        equity_worst=np.ascontiguousarray(run.equity_worst), margin=np.ascontiguousarray(run.margin),
        buy_lots=run.buy_lots, sell_lots=run.sell_lots,
        asked=np.asfortranarray(asked[: len(run.bar)]), executed=np.asfortranarray(run.executed),
        outcome=run.outcome, flags=run.flags, deals=_on_server(deals, table, "time"),
        trades=_on_server(trades_frame(deals), table, "time"),
        positions=_on_server(positions, table, "open_time", "close_time"),
        status=run.status, ambiguous=run.ambiguous, detail_missing=run.detail_missing, ticks=ticks,
    )  # fmt: skip


def _with_costs(deals: pl.DataFrame, table: MarketTable, rules: AccountRules) -> pl.DataFrame:
    """Return deals with what spread and slippage took from each fill, against the mid price."""
    price, bar = deals["price"].to_numpy(), deals["bar"].to_numpy()
    rate = 1 / price if rules.currency == table.instrument.base else table.values[bar, PROFIT_RATE]
    per_point = deals["lots"].to_numpy() * table.instrument.point_value * rate
    return deals.with_columns(
        spread_cost=per_point * deals["spread_points"].to_numpy() / 2,
        slippage_cost=per_point * deals["slippage_points"].to_numpy(),
    )


def _on_server(frame: pl.DataFrame, table: MarketTable, *columns: str) -> pl.DataFrame:
    """Return a table whose times are read on the server's clock."""
    zone = table.bars.zone
    return frame.with_columns(pl.Series(name, zone.to_server(frame[name].to_numpy())) for name in columns)
