"""Time of the report's rows on a million bars, of random trading, resampling and overfitting, and peak memory.

    python benchmarks/bench_report.py

The rows are compared with ``backtesting._stats.compute_stats`` of backtesting.py where it is installed (it is not a
dependency: AGPL) and with ``Portfolio.stats`` of vectorbt. The first gives some 30 figures from closed trades and an
equity curve, the second some 28 from orders and closes; ours are some 60, with MetaTrader's equity drawdowns on two
points a bar.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np

from halfstep.backtest import breakdown
from halfstep.backtest.baselines import Span, random_band
from halfstep.backtest.metrics import compute_metrics
from halfstep.backtest.run import TestRun
from halfstep.backtest.statistics import overfitting_logits, stationary_bootstrap
from halfstep.broker.deals import deals_frame, positions_frame
from halfstep.broker.engine import run_actions
from halfstep.broker.rules import AccountRules
from halfstep.cli.programs.bench_markets import actions_of, market, traded
from halfstep.market.synthetic import random_bars
from measure import Times, arguments, interleaved, machine, quartiles, report

BARS, TRADES = 1_000_000, 20_000
RULES = AccountRules(close_at_end=True)
AIMS = {  # seconds, of the report's specification
    "rows, 1 M bars, 20,000 trades": 0.5, "random, month": 1.0, "random, year": 3.0, "bootstrap of a month": 1.0,
    "overfitting, 20 trials × a year": 3.0,
}  # fmt: skip
MEMORY_AIM = 600e6
PEAK = """
import ctypes, sys
sys.path.insert(0, {folder!r})
from bench_report import million
from halfstep.backtest import breakdown
from halfstep.backtest.metrics import compute_metrics
run = million()
ctypes.CDLL("libc.so.6").malloc_trim(0)  # what making the bars has freed is no memory of the report
open("/proc/self/clear_refs", "w").write("5")  # forgets the peak so far
compute_metrics(run), breakdown.monthly_table(run), breakdown.list_tables(run)
print(1024 * next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""
"""Largest resident size while rows and lists of a million bars are made, the run and the interpreter included."""


def million() -> TestRun:
    """Return the run that the rows are timed on."""
    return traded(market(BARS, RULES), RULES, BARS, TRADES)


def works(run: TestRun) -> dict[str, Callable[[], Any]]:
    """Return what is timed, by name."""
    year = market(6207, RULES)
    ours = {"month": traded(year, RULES, 528, 40), "year": traded(year, RULES, 6207, 480)}
    rng = np.random.default_rng(0)
    returns, trials = rng.normal(0, 1e-4, 528), rng.normal(0, 1e-4, (6207, 20))
    table, actions = market(BARS // 10, RULES), actions_of(BARS // 10, TRADES // 10)
    made = run_actions(table, RULES, actions, 10)
    deals = deals_frame(made.log, table)
    return {
        "rows, 1 M bars, 20,000 trades": lambda: compute_metrics(run),
        "months, sides, outcomes, costs, hours": lambda: (
            breakdown.monthly_table(run), breakdown.side_table(run), breakdown.outcome_table(run),
            breakdown.cost_table(run), breakdown.by_time_table(run),
        ),
        "lists for the files": lambda: breakdown.list_tables(run),
        "positions from the deal log, 2,000": lambda: positions_frame(deals, table),
        "random, month": lambda: random_band(year, RULES, ours["month"], Span(first=10, bars=528), runs=1000, seed=1),
        "random, year": lambda: random_band(year, RULES, ours["year"], Span(first=10, bars=6207), runs=1000, seed=1),
        "bootstrap of a month": lambda: stationary_bootstrap(returns, mean_block=24.0, draws=10_000, seed=1),
        "overfitting, 20 trials × a year": lambda: overfitting_logits(trials),
    }  # fmt: skip


def peers(run: TestRun) -> dict[str, Callable[[], Any]]:
    """Return the same run through the statistics of other packages, by name and version, as far as they are installed."""
    return {**backtesting_peer(run), **vectorbt_peer(run)}


def backtesting_peer(run: TestRun) -> dict[str, Callable[[], Any]]:
    """Return backtesting.py's statistics of the positions and the equity curve."""
    try:
        import backtesting
        import pandas as pd
        from backtesting._stats import compute_stats
    except ImportError as problem:
        print(f"backtesting.py skipped: {problem}", file=sys.stderr)
        return {}
    index = pd.DatetimeIndex(run.close_time.astype("datetime64[s]"))
    trades = run.positions
    frame = pd.DataFrame(
        {
            "Size": trades["lots"].to_numpy() * 1e5, "EntryBar": trades["open_step"].to_numpy(),
            "ExitBar": run.trades["step"].to_numpy(), "EntryPrice": trades["open_price"].to_numpy(),
            "ExitPrice": trades["close_price"].to_numpy(), "PnL": trades["net"].to_numpy(),
            "ReturnPct": trades["net"].to_numpy() / run.deposit,
            "EntryTime": pd.to_datetime(trades["open_time"].to_numpy(), unit="s"),
            "ExitTime": pd.to_datetime(trades["close_time"].to_numpy(), unit="s"),
        }
    )  # fmt: skip
    frame["Duration"] = frame["ExitTime"] - frame["EntryTime"]
    prices = pd.DataFrame({"Close": run.equity}, index=index)
    name = f"backtesting.py {backtesting.__version__}, statistics"
    return {name: lambda: compute_stats(frame, run.equity, prices, None)}


def vectorbt_peer(run: TestRun) -> dict[str, Callable[[], Any]]:
    """Return vectorbt's statistics of a portfolio with the same orders; what it remembers is forgotten each time."""
    try:
        import pandas as pd
        import vectorbt
    except ImportError as problem:
        print(f"vectorbt skipped: {problem}", file=sys.stderr)
        return {}
    deals = run.deals
    step = deals["step"].to_numpy()
    size, price = np.zeros(len(run)), np.full(len(run), np.nan)
    sign = deals["side"].to_numpy() * np.where(deals["entry"].to_numpy() == "in", 1.0, -1.0)
    np.add.at(size, step, sign * deals["lots"].to_numpy() * 1e5)
    price[step] = deals["price"].to_numpy()
    closes = random_bars(BARS + 20, seed=1).close[11 : 11 + len(run)]
    portfolio = vectorbt.Portfolio.from_orders(
        pd.Series(closes, index=pd.DatetimeIndex(run.close_time.astype("datetime64[s]"))),
        size=np.where(size == 0, np.nan, size), price=np.where(np.isnan(price), closes, price), init_cash=run.deposit, freq="1h",
    )  # fmt: skip
    return {
        f"vectorbt {vectorbt.__version__}, statistics": lambda: portfolio.replace().stats()
    }  # a new one remembers nothing


def peak_memory() -> float | None:
    """Return the largest resident size of a process that makes rows and lists of a million bars; Linux only."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    code = PEAK.format(folder=str(Path(__file__).parent))
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(found.stdout)


def main() -> None:
    """Print times against their aims."""
    given = arguments(__doc__.splitlines()[0], rounds=5).parse_args()
    run = million()
    timed = works(run)
    others = peers(run)
    timed |= others
    times: Times = interleaved(timed, rounds=given.rounds, warmup=1)
    rows = []
    for name, values in times.items():
        low, middle, high = quartiles(values)
        rows.append({"work": name, "seconds": middle, "low": low, "high": high, "aim": AIMS.get(name)})
    ours = rows[0]["seconds"]
    memory = peak_memory()
    figures = {
        "machine": machine(),
        "bars": BARS,
        "trades": run.trades.height,
        "rows": rows,
        "peak_bytes": memory,
        "peak_aim": MEMORY_AIM,
        "ratios": {row["work"]: row["seconds"] / ours for row in rows if row["work"] in others},
    }
    lines = [
        f"{row['work']:40} {row['seconds']:8.3f} s ({row['low']:.3f} … {row['high']:.3f})"
        + ("" if row["aim"] is None else f"   aim {row['aim']:g} s")
        for row in rows
    ]
    lines.append(f"trades {run.trades.height:,}")
    lines += [
        f"{name} take {value:.1f} times as long as the rows" for name, value in figures["ratios"].items()
    ]
    if memory is not None:
        lines.append(f"peak memory {memory / 1e6:.0f} MB, aim {MEMORY_AIM / 1e6:.0f} MB")
    report(figures, lines, as_json=given.json, out=given.out)


if __name__ == "__main__":
    main()
