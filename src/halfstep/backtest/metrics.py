"""The rows of MetaTrader's tester report and our own, each with its definition.

Terms: a *trade* is a deal that takes volume off a position; its *net* is profit + swap - its commission - its share
of the entry commissions, so the nets add up to the change of the balance. Won: net > 0. A value that is not defined
is None and prints as ``--``.
"""

import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float64

from halfstep.backtest.statistics import binomial_tail, wilson_interval

THOUSANDS = "\u00a0"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One figure of the report."""

    key: str
    label: str
    value: float | None
    text: str
    definition: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Path:
    """What happened in a test, as plain arrays.

    Attributes:
        deposit: money at the start.
        balance, equity, equity_worst, margin, lots: after each bar, ``(bar,)``; lots are signed.
        years: length of the span.
        trades: one row per trade with columns ``side`` and ``net``.
        positions: one row per position with ``open_time``, ``close_time``, ``mfe``, ``mae`` and ``net``.
        deals: number of deals.
    """

    deposit: float
    balance: Float64[np.ndarray, " bar"]
    equity: Float64[np.ndarray, " bar"]
    equity_worst: Float64[np.ndarray, " bar"]
    margin: Float64[np.ndarray, " bar"]
    lots: Float64[np.ndarray, " bar"]
    years: float
    trades: pl.DataFrame
    positions: pl.DataFrame
    deals: int


def compute_rows(path: Path) -> list[Row]:
    """Return every row, in the order of MetaTrader's report, then ours."""
    nets = path.trades["net"].to_numpy()
    return [
        *_profit_rows(nets),
        *_drawdown_rows(path, nets),
        *_ratio_rows(path, nets),
        *_trade_rows(path, nets),
        *_position_rows(path),
        *_our_rows(path, nets),
    ]


def money(value: float | int | None) -> str:
    """Return money with two decimals and narrow thousands, ``--`` for None, and never ``-0.00``."""
    if value is None:
        return "--"
    text = f"{value:,.2f}".replace(",", THOUSANDS)
    return "0.00" if text == "-0.00" else text


def percent(value: float | int | None) -> str:
    """Return a fraction as percent with two decimals."""
    if value is None:
        return "--"
    text = f"{100 * value:.2f}%"
    return "0.00%" if text == "-0.00%" else text


def number(value: float | int | None, digits: int = 2) -> str:
    """Return a plain number."""
    if value is None:
        return "--"
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def drawdowns(path: Float64[np.ndarray, " point"]) -> tuple[float, float, float, float, float]:
    """Return the absolute, the maximal (money, its percent) and the relative drawdown (percent, its money).

    Maximal is the largest fall in money from a running peak; relative the largest in percent of the peak, which may
    be another episode; absolute is the start minus the lowest point.
    """
    peak = np.maximum.accumulate(path)
    fall = peak - path
    share = np.where(peak > 0, fall / np.where(peak > 0, peak, 1), 0.0)
    by_money, by_share = int(fall.argmax()), int(share.argmax())
    absolute = max(0.0, float(path[0] - path.min()))
    return (
        absolute,
        float(fall[by_money]),
        float(share[by_money]),
        float(share[by_share]),
        float(fall[by_share]),
    )


def z_score(won: np.ndarray) -> tuple[float, float] | None:
    """Return the runs test's Z and its confidence, or None where it is not defined.

    Z = (N (R - 0.5) - P) / sqrt(P (P - N) / (N - 1)), P = 2 W L, R runs of won or lost trades.
    """
    n, w = len(won), int(won.sum())
    p = 2 * w * (n - w)
    if w in (0, n) or p <= n:
        return None
    runs = 1 + int((won[1:] != won[:-1]).sum())
    z = (n * (runs - 0.5) - p) / math.sqrt(p * (p - n) / (n - 1))
    return z, math.erf(abs(z) / math.sqrt(2))


def _row(key: str, label: str, value: float | int | None, text: str, definition: str) -> Row:
    return Row(
        key=key, label=label, value=None if value is None else float(value), text=text, definition=definition
    )


def _profit_rows(nets: np.ndarray) -> list[Row]:
    gross_profit, gross_loss = float(nets[nets > 0].sum()), float(nets[nets <= 0].sum())
    net = gross_profit + gross_loss
    factor = gross_profit / -gross_loss if gross_loss < 0 else None
    payoff = net / len(nets) if len(nets) else None
    return [
        _row(
            "net_profit",
            "Total Net Profit",
            net,
            money(net),
            "gross profit + gross loss, after swap and commission",
        ),
        _row(
            "gross_profit", "Gross Profit", gross_profit, money(gross_profit), "sum of the nets of won trades"
        ),
        _row("gross_loss", "Gross Loss", gross_loss, money(gross_loss), "sum of the nets of lost trades"),
        _row("profit_factor", "Profit Factor", factor, number(factor), "gross profit / |gross loss|"),
        _row("expected_payoff", "Expected Payoff", payoff, money(payoff), "net profit / trades"),
    ]


def _drawdown_rows(path: Path, nets: np.ndarray) -> list[Row]:
    balance = np.concatenate([[path.deposit], path.deposit + np.cumsum(nets)])
    equity = np.concatenate([[path.deposit], np.stack([path.equity_worst, path.equity], axis=1).ravel()])
    rows = []
    for key, label, series in (("balance", "Balance", balance), ("equity", "Equity", equity)):
        absolute, most, most_share, share, share_money = drawdowns(series)
        rows += [
            _row(f"{key}_dd_absolute", f"{label} Drawdown Absolute", absolute, money(absolute), "deposit - lowest point"),
            _row(
                f"{key}_dd_maximal", f"{label} Drawdown Maximal", most, f"{money(most)} ({percent(most_share)})",
                "largest fall in money from a running peak, and its percent of that peak",
            ),
            _row(
                f"{key}_dd_relative", f"{label} Drawdown Relative", share, f"{percent(share)} ({money(share_money)})",
                "largest fall in percent of a running peak, and its money; may be another episode",
            ),
        ]  # fmt: skip
    return rows


def _ratio_rows(path: Path, nets: np.ndarray) -> list[Row]:
    balance = np.concatenate([[path.deposit], path.deposit + np.cumsum(nets)])
    n = len(nets)
    usable = n > 0 and bool((balance > 0).all())
    ahpr = float((balance[1:] / balance[:-1]).mean()) if usable else None
    ghpr = float((balance[-1] / balance[0]) ** (1 / n)) if n and balance[-1] > 0 else None
    equity = np.concatenate([[path.deposit], np.stack([path.equity_worst, path.equity], axis=1).ravel()])
    most = drawdowns(equity)[1]
    recovery = float(nets.sum()) / most if most > 0 else None
    sharpe = _sharpe(path)
    correlation, error = _line(balance)
    held = path.margin > 0
    level = float((path.equity_worst[held] / path.margin[held]).min()) if held.any() else None
    z = z_score(nets > 0)
    return [
        _row("recovery_factor", "Recovery Factor", recovery, number(recovery), "net profit / maximal equity drawdown in money"),
        _row("ahpr", "AHPR", ahpr, "--" if ahpr is None else f"{ahpr:.4f} ({percent(ahpr - 1)})", "mean growth of the balance per trade"),
        _row("ghpr", "GHPR", ghpr, "--" if ghpr is None else f"{ghpr:.4f} ({percent(ghpr - 1)})", "geometric growth of the balance per trade"),
        _row("sharpe_ratio", "Sharpe Ratio", sharpe, number(sharpe), "mean / deviation of the log returns of bars on which equity changed, times the root of their number per year; risk-free rate 0"),
        _row("lr_correlation", "LR Correlation", correlation, number(correlation), "correlation of the balance with the number of the trade"),
        _row("lr_standard_error", "LR Standard Error", error, money(error), "standard error about the balance's straight line (points - 2)"),
        _row("margin_level", "Margin Level", level, percent(level), "lowest equity / margin while a position was held"),
        _row("z_score", "Z-Score", None if z is None else z[0], "--" if z is None else f"{number(z[0])} ({percent(z[1])})", "runs test of won and lost trades"),
    ]  # fmt: skip


def _sharpe(path: Path) -> float | None:
    equity = np.concatenate([[path.deposit], path.equity])
    if (equity <= 0).any():
        return None
    r = np.diff(np.log(equity))
    r = r[r != 0]
    if len(r) < 2 or r.std() < 1e-12 or path.years <= 0:
        return None
    return float(r.mean() / r.std() * math.sqrt(len(r) / path.years))


def _line(balance: np.ndarray) -> tuple[float | None, float | None]:
    if len(balance) < 3:
        return None, None
    x = np.arange(len(balance))
    slope, start = np.polyfit(x, balance, 1)
    error = math.sqrt(float(((balance - start - slope * x) ** 2).sum()) / (len(balance) - 2))
    correlation = float(np.corrcoef(x, balance)[0, 1]) if balance.std() > 0 else None
    return correlation, error


def _trade_rows(path: Path, nets: np.ndarray) -> list[Row]:
    n = len(nets)
    won = nets > 0
    sides = path.trades["side"].to_numpy()
    rows = [
        _row("total_trades", "Total Trades", n, str(n), "deals that take volume off a position"),
        _row("total_deals", "Total Deals", path.deals, str(path.deals), "all deals"),
    ]
    for key, label, mask in (
        ("short_trades", "Short Trades (won %)", sides < 0),
        ("long_trades", "Long Trades (won %)", sides > 0),
    ):
        count = int(mask.sum())
        share = float(won[mask].mean()) if count else None
        rows.append(
            _row(
                key,
                label,
                count,
                f"{count} ({percent(share)})",
                "trades that closed this side, and the share of them that won",
            )
        )
    for key, label, mask in (
        ("profit_trades", "Profit Trades (% of total)", won),
        ("loss_trades", "Loss Trades (% of total)", ~won),
    ):
        count = int(mask.sum())
        rows.append(
            _row(
                key,
                label,
                count,
                f"{count} ({percent(count / n if n else None)})",
                "count and share of all trades",
            )
        )
    for kind, mask, extreme in (("profit", won, np.max), ("loss", ~won, np.min)):
        picked = nets[mask]
        best = float(extreme(picked)) if len(picked) else None
        mean = float(picked.mean()) if len(picked) else None
        rows += [
            _row(f"largest_{kind}", f"Largest {kind} trade", best, money(best), "extreme net of a trade"),
            _row(f"average_{kind}", f"Average {kind} trade", mean, money(mean), "mean net of these trades"),
        ]
    return rows + _run_rows(nets, won)


def _run_rows(nets: np.ndarray, won: np.ndarray) -> list[Row]:
    """Return the rows on runs of won and lost trades."""
    borders = np.flatnonzero(np.diff(won.astype(int))) + 1
    runs = [
        (bool(part_won[0]), len(part), float(part.sum()))
        for part, part_won in zip(np.split(nets, borders), np.split(won, borders), strict=True)
        if len(part)
    ]
    rows = []
    for kind, is_won, sign in (("wins", True, 1), ("losses", False, -1)):
        mine = [(count, total) for run_won, count, total in runs if run_won == is_won]
        name = "profit" if is_won else "loss"
        if not mine:
            rows += [
                _row(f"max_consecutive_{kind}", f"Maximum consecutive {kind} ($)", None, "--", "longest run"),
                _row(
                    f"max_consecutive_{name}",
                    f"Maximal consecutive {name} (count)",
                    None,
                    "--",
                    "run with the largest sum",
                ),
                _row(
                    f"average_consecutive_{kind}",
                    f"Average consecutive {kind}",
                    None,
                    "--",
                    "mean length of a run",
                ),
            ]
            continue
        longest = max(mine, key=lambda run: run[0])
        largest = max(mine, key=lambda run: sign * run[1])
        mean = math.floor(sum(run[0] for run in mine) / len(mine) + 0.5)
        rows += [
            _row(
                f"max_consecutive_{kind}",
                f"Maximum consecutive {kind} ($)",
                longest[0],
                f"{longest[0]} ({money(longest[1])})",
                "longest run and its sum",
            ),
            _row(
                f"max_consecutive_{name}",
                f"Maximal consecutive {name} (count)",
                largest[1],
                f"{money(largest[1])} ({largest[0]})",
                "run with the largest sum and its length",
            ),
            _row(
                f"average_consecutive_{kind}",
                f"Average consecutive {kind}",
                mean,
                str(mean),
                "mean length of a run, rounded half up",
            ),
        ]
    return rows


def _position_rows(path: Path) -> list[Row]:
    table = path.positions
    nets, mfe, mae = (table[name].to_numpy().astype(float) for name in ("net", "mfe", "mae"))
    rows = []
    for key, label, a, b in (
        ("corr_profit_mfe", "Correlation (Profits,MFE)", nets, mfe),
        ("corr_profit_mae", "Correlation (Profits,MAE)", nets, mae),
        ("corr_mfe_mae", "Correlation (MFE,MAE)", mfe, mae),
    ):
        value = float(np.corrcoef(a, b)[0, 1]) if len(a) >= 3 and a.std() > 0 and b.std() > 0 else None
        rows.append(_row(key, label, value, number(value), "correlation over positions"))
    held = (table["close_time"] - table["open_time"]).to_numpy()
    for key, label, function in (
        ("holding_min", "Minimal position holding time", np.min),
        ("holding_max", "Maximal position holding time", np.max),
        ("holding_mean", "Average position holding time", np.mean),
    ):
        seconds = float(function(held)) if len(held) else None
        rows.append(_row(key, label, seconds, duration(seconds), "from the first opening to the full close"))
    return rows


def duration(seconds: float | None) -> str:
    """Return ``2 d 3:04:05``."""
    if seconds is None:
        return "--"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days} d " if days else "") + f"{hours}:{minutes:02d}:{rest:02d}"


def _our_rows(path: Path, nets: np.ndarray) -> list[Row]:
    exposure = float((path.lots != 0).mean()) if len(path.lots) else None
    ended = float(path.equity[-1]) if len(path.equity) else path.deposit
    annual = (ended / path.deposit) ** (1 / path.years) - 1 if path.years >= 0.25 and ended > 0 else None
    n, won = len(nets), int((nets > 0).sum())
    interval = wilson_interval(won, n) if n else None
    text = "--" if interval is None else f"{percent(interval[0])} … {percent(interval[1])}"
    coin = binomial_tail(won, n) if 0 < n <= 5000 else None
    return [
        _row("growth_annual", "Growth per year", annual, percent(annual), "(end / deposit)^(1 / years) - 1; not shown below a quarter of a year"),
        _row("exposure", "Bars with a position", exposure, percent(exposure), "share of bars that ended with a position"),
        _row("win_rate_interval", "Won trades, 95 % interval", None if interval is None else won / n, text, "Wilson interval of the share of won trades"),
        _row("coin", "As few wins by a fair coin", coin, "--" if coin is None else percent(coin), "P(X <= won) at one half"),
    ]  # fmt: skip
