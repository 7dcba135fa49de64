"""Runs for tests: made by hand from nets and equities, or traded by the engine on made-up bars."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from halfstep.backtest.run import TestRun, make_test_run
from halfstep.broker.engine import run_actions
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable, market_table
from halfstep.market.bars import Bars
from halfstep.market.instruments import instrument
from halfstep.market.synthetic import random_bars
from halfstep.market.timeframes import HOUR, Timeframe

RULES = AccountRules(close_at_end=True)
FIRST = 1_704_153_600  # Tuesday 2024-01-02 00:00


def run_of(
    nets: Sequence[float],
    sides: Sequence[int] | None = None,
    *,
    deposit: float = 1000.0,
    equity: Sequence[float] | None = None,
    worst: Sequence[float] | None = None,
    years: float = 1.0,
    seconds: int = HOUR,
    mfe: Sequence[float] | None = None,
    mae: Sequence[float] | None = None,
    held: Sequence[float] | None = None,
    margin: Sequence[float] | None = None,
) -> TestRun:
    """Return a run whose trades have these nets, one position each; by default one bar closes each of them."""
    n = len(nets)
    balance = deposit + np.cumsum(np.asarray(nets, float)) if n else np.array([deposit])
    equities = np.asarray(balance if equity is None else equity, float)
    bars = len(equities)
    times = FIRST + seconds * np.arange(bars)
    side = np.asarray(sides if sides is not None else [1] * n, np.int64)
    step = np.minimum(np.arange(n), max(bars - 1, 0))
    common = {
        "side": side, "reason": ["ACTION"] * n, "commission": [0.0] * n, "swap": [0.0] * n,
        "profit": np.asarray(nets, float), "net": np.asarray(nets, float), "lots": [0.1] * n, "ambiguous": [False] * n,
    }  # fmt: skip
    schema = {
        "reason": pl.String,
        "commission": pl.Float64,
        "swap": pl.Float64,
        "lots": pl.Float64,
        "ambiguous": pl.Boolean,
    }
    trades = pl.DataFrame(
        common | {"time": times[step], "step": step, "price": [1.1] * n, "entry_price": [1.1] * n, "balance": balance[:n]},
        schema_overrides=schema | {"price": pl.Float64, "entry_price": pl.Float64},
    )  # fmt: skip
    deals = trades.with_columns(
        entry=pl.lit("out"), spread_points=pl.lit(0.0), slippage_points=pl.lit(0.0), spread_cost=pl.lit(0.0),
        slippage_cost=pl.lit(0.0),
    )  # fmt: skip
    positions = pl.DataFrame(
        common
        | {
            "open_time": times[step], "close_time": times[step], "open_step": step, "open_bar": step, "close_bar": step,
            "open_price": [1.1] * n, "close_price": [1.1] * n, "sl": [1.0] * n, "tp": [1.2] * n, "volume": [0.1] * n,
            "mfe": np.asarray(mfe if mfe is not None else nets, float), "mae": np.asarray(mae if mae is not None else nets, float),
            "held_seconds": np.asarray(held if held is not None else [HOUR] * n, float),
        },
        schema_overrides=schema | dict.fromkeys(("open_price", "close_price", "sl", "tp", "volume"), pl.Float64),
    )  # fmt: skip
    zeros = np.zeros(bars)
    return TestRun(
        symbol="EURUSD", timeframe="H1", zone="UTC", currency="USD", deposit=deposit, leverage=100.0, lot_min=0.01,
        action_range=np.array([1.0, 1, 1, 1, 1, 1]), open_time=times, close_time=times + seconds, years=years,
        balance=equities, equity=equities, equity_worst=np.asarray(equities if worst is None else worst, float),
        margin=zeros if margin is None else np.asarray(margin, float), buy_lots=zeros, sell_lots=zeros,
        asked=np.zeros((bars, 6)), executed=np.zeros((bars, 6)), outcome=np.full(bars, 7, np.uint8),
        flags=np.zeros(bars, np.uint8), deals=deals, trades=trades, positions=positions, status=2, ambiguous=0,
        detail_missing=0, ticks=4 * bars,
    )  # fmt: skip


def made_up_table(bars: int = 600, *, seed: int = 4, rules: AccountRules = RULES) -> MarketTable:
    return market_table(random_bars(bars, seed=seed), instrument("EURUSD"), rules)


def random_actions(bars: int, seed: int, *, lots: float = 0.1, hold: int = 8) -> np.ndarray:
    """Return a policy without skill: flat, long or short for some bars each, with a target and a stop."""
    rng = np.random.default_rng(seed)
    side = np.repeat(rng.integers(0, 3, bars // hold + 1), hold)[:bars]
    actions = np.zeros((bars, 6))
    actions[side == 1, :3] = (lots, 0.5, 0.3)
    actions[side == 2, 3:] = (lots, 0.5, 0.3)
    return actions


def traded(
    table: MarketTable, actions: np.ndarray, *, first: int = 10, rules: AccountRules = RULES
) -> TestRun:
    return make_test_run(run_actions(table, rules, actions, first), actions, table, rules)


def golden_run(text: str, actions: Sequence[Sequence[float]], **rules: float) -> TestRun:
    """Return a run on bars ``"o/h/l/c; ..."`` in points above 1.10000, spread 10, without swap: 0.10 lots, 0.10 USD a point."""
    points = np.array([[float(x) for x in bar.split("/")] for bar in ["0/0/0/0", *text.split(";")]]) + 110_000
    bars = Bars(
        time=FIRST + HOUR * np.arange(len(points)), volume=np.ones(len(points)), spread=np.full(len(points), 10, np.int32),
        **{name: points[:, k] / 1e5 for k, name in enumerate(("open", "high", "low", "close"))},
        symbol="EURUSD", timeframe=Timeframe.H1, digits=5,
    )  # fmt: skip
    chosen = AccountRules(lot_cap=100.0, spread_floor_points=10, **rules)
    table = market_table(bars, replace(instrument("EURUSD"), swap_long=0.0, swap_short=0.0), chosen)
    return traded(table, np.array(actions, float), first=0, rules=chosen)


HOLD = [0.10, 0.3, 0.2, 0, 0, 0]
CLOSE = [0.0] * 6
