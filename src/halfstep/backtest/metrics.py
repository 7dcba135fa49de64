"""The rows of MetaTrader's tester report in its order, and the rows it does not have.

Terms: a *trade* is a deal that takes volume off a position; its *net* is profit + swap - its commission - its share
of the entry commissions, so the nets add up to the change of the balance. Won: net > 0. What each row means stands
in `halfstep.backtest.definitions`; a value that is not defined is None and reads ``--``.
"""

import math
from dataclasses import dataclass

import numpy as np

from halfstep.backtest import ratios
from halfstep.backtest.content import ELEMENTS
from halfstep.backtest.definitions import row
from halfstep.backtest.figures import Row, text_of
from halfstep.backtest.ratios import Floats
from halfstep.backtest.run import TestRun
from halfstep.backtest.statistics import binomial_tail, wilson_interval
from halfstep.market.timeframes import DAY

ONE_SIDED = 0.95
CONSTANT = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What the rows need to know besides the run.

    Attributes:
        quality: history quality of the test span, a fraction.
        criterion: what the weights were chosen by, in words, with its value.
        risk_free: annual rate of a deposit, a fraction.
        outside_data: share of actions outside the recorded data.
    """

    quality: float | None = None
    criterion: str | None = None
    risk_free: float = 0.04
    outside_data: float | None = None


@dataclass(frozen=True, slots=True)
class Metrics:
    """Every row of a run: the tester's and ours."""

    tester: tuple[Row, ...]
    ours: tuple[Row, ...]

    def __getitem__(self, key: str) -> Row:
        return next(row for row in (*self.tester, *self.ours) if row.key == key)

    def values(self) -> dict[str, float | None]:
        """Return the value of every row that is a number, by key."""
        return {row.key: row.value for row in (*self.tester, *self.ours) if row.unit != "text"}


def compute_metrics(run: TestRun, surroundings: Surroundings | None = None) -> Metrics:
    """Return every row of a run."""
    given = surroundings or Surroundings()
    nets = run.trades["net"].to_numpy()
    balance = np.concatenate([[run.deposit], run.deposit + np.cumsum(nets)])
    fall = ratios.drawdowns(ratios.equity_path(run.deposit, run.equity_worst, run.equity))
    tester = (
        row("history_quality", given.quality),
        row("bars", len(run)),
        row("ticks", run.ticks),
        row("symbols", 1),
        *_profit_rows(nets),
        *_drawdown_rows(
            "balance", ratios.drawdowns(np.concatenate([[run.deposit], run.deals["balance"].to_numpy()]))
        ),
        *_drawdown_rows("equity", fall),
        *_ratio_rows(run, nets, balance, fall.maximal),
        row("on_tester", None, text=given.criterion or "--"),
        *_trade_rows(run, nets),
        *_position_rows(run),
    )
    return Metrics(tester, _our_rows(run, nets, given))


def _profit_rows(nets: Floats) -> list[Row]:
    profit, loss = float(nets[nets > 0].sum()), float(nets[nets <= 0].sum())
    return [row("net_profit", profit + loss), row("gross_profit", profit), row("gross_loss", loss)]


def _drawdown_rows(name: str, found: ratios.Drawdowns) -> list[Row]:
    return [
        row(f"{name}_dd_absolute", found.absolute),
        row(f"{name}_dd_maximal", found.maximal, found.maximal_share),
        row(f"{name}_dd_relative", found.relative, found.relative_money),
    ]


def _ratio_rows(run: TestRun, nets: Floats, balance: Floats, fall: float) -> list[Row]:
    net, n = float(nets.sum()), len(nets)
    ahpr, ghpr = ratios.mean_growth(balance), ratios.geometric_growth(balance)
    z, confidence = ratios.z_score(nets > 0) or (None, None)
    held = run.margin > 0
    level = float((run.equity_worst[held] / run.margin[held]).min()) if held.any() else None
    levels = np.concatenate([[run.deposit], run.equity])
    return [
        row("profit_factor", ratios.profit_factor(nets)),
        row("expected_payoff", net / n if n else None),
        row("recovery_factor", net / fall if fall > 0 else None),
        row("ahpr", ahpr, None if ahpr is None else ahpr - 1),
        row("ghpr", ghpr, None if ghpr is None else ghpr - 1),
        row("sharpe_ratio", ratios.sharpe_ratio(levels, run.years)),
        row("lr_correlation", ratios.pearson(balance, np.arange(n + 1.0))),
        row("lr_standard_error", ratios.line_error(balance)),
        row("margin_level", level),
        row("z_score", z, confidence),
    ]


def _trade_rows(run: TestRun, nets: Floats) -> list[Row]:
    n, won, sides = len(nets), nets > 0, run.trades["side"].to_numpy()
    ended = int((run.trades["reason"] == "END").sum())
    note = f"{ended} closed by the end of the test" if ended else ""
    rows = [row("total_trades", n, note=note), row("total_deals", run.deals.height)]
    for name, side in (("short", -1), ("long", 1)):
        mine = sides == side
        count = int(mine.sum())
        rows.append(row(f"{name}_trades", count, float(won[mine].mean()) if count else None))
    for name, kind in (("profit", won), ("loss", ~won)):
        rows.append(row(f"{name}_trades", int(kind.sum()), float(kind.mean()) if n else None))
    wins, losses = nets[won], nets[~won]
    return [
        *rows,
        row("largest_profit", wins.max() if len(wins) else None),
        row("largest_loss", losses.min() if len(losses) else None),
        row("average_profit", wins.mean() if len(wins) else None),
        row("average_loss", losses.mean() if len(losses) else None),
        *_run_rows(nets),
    ]


def _run_rows(nets: Floats) -> list[Row]:
    """Return the rows on trades won or lost in a row."""
    longest, largest, mean = [], [], []
    for (plural, single), runs, sign in zip(
        (("wins", "profit"), ("losses", "loss")), ratios.runs_of(nets), (1, -1), strict=True
    ):
        if len(runs.counts) == 0:
            longest.append(row(f"max_consecutive_{plural}", None))
            largest.append(row(f"max_consecutive_{single}", None))
            mean.append(row(f"average_consecutive_{plural}", None))
            continue
        by_count, by_sum = int(runs.counts.argmax()), int((sign * runs.sums).argmax())
        longest.append(row(f"max_consecutive_{plural}", runs.counts[by_count], runs.sums[by_count]))
        largest.append(row(f"max_consecutive_{single}", runs.sums[by_sum], runs.counts[by_sum]))
        mean.append(row(f"average_consecutive_{plural}", math.floor(runs.counts.mean() + 0.5)))
    return longest + largest + mean


def _position_rows(run: TestRun) -> list[Row]:
    nets, mfe, mae, held = (run.positions[name].to_numpy() for name in ("net", "mfe", "mae", "held_seconds"))
    some = len(held) > 0
    return [
        row("corr_profit_mfe", ratios.pearson(nets, mfe)),
        row("corr_profit_mae", ratios.pearson(nets, mae)),
        row("corr_mfe_mae", ratios.pearson(mfe, mae)),
        row("holding_min", held.min() if some else None),
        row("holding_max", held.max() if some else None),
        row("holding_mean", held.mean() if some else None),
    ]


def _our_rows(run: TestRun, nets: Floats, given: Surroundings) -> tuple[Row, ...]:
    n, won = len(nets), int((nets > 0).sum())
    longs = int((run.trades["side"] > 0).sum())
    larger = max(longs, n - longs) / n if n else None
    days = daily_levels(run)
    held = (run.buy_lots != 0) | (run.sell_lots != 0)
    still = constant_elements(run)
    side = "long" if 2 * longs >= n else "short"
    return (
        row("growth_annual", ratios.annual_growth(run.deposit, run.equity_end, run.years)),
        row("risk_free", given.risk_free * run.years * run.deposit, run.net, note=f"{text_of(given.risk_free, 'share')} a year"),
        row("sharpe_daily", ratios.sharpe_daily(days) if len(days) > ratios.LEAST_DAYS else None),
        row("exposure", held.mean() if len(held) else None),
        row("turnover", float(run.deals["lots"].sum())),
        row("win_rate", won / n if n else None, interval=wilson_interval(won, n) if n else None),
        row("coin", binomial_tail(won, n) if n else None),
        row("one_sided", larger, note=f"one-sided: {side}" if larger is not None and larger >= ONE_SIDED else ""),
        row("constant", len(still), note=", ".join(ELEMENTS[k] for k in still)),
        row("outside_data", given.outside_data),
    )  # fmt: skip


def daily_levels(run: TestRun) -> Floats:
    """Return the deposit, then the last equity of each day on the server's clock, ``(days + 1,)``."""
    day = run.open_time // DAY
    last = np.append(np.flatnonzero(day[1:] != day[:-1]), len(day) - 1) if len(day) else np.zeros(0, int)
    return np.concatenate([[run.deposit], run.equity[last]])


def constant_elements(run: TestRun) -> list[int]:
    """Return the elements of the action that vary by less than 1 % of their range; none where there were no bars."""
    if len(run) == 0:
        return []
    asked = run.asked
    finite = np.isfinite(asked)
    if not finite.all():
        asked = asked[finite.all(axis=1)]
    if len(asked) == 0:
        return list(range(6))
    varied = asked.max(axis=0) - asked.min(axis=0)
    return np.flatnonzero(varied < CONSTANT * run.action_range).tolist()
