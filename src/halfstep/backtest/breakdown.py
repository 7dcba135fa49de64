"""A run cut in parts: by side, by outcome, by cost, by month and hour; and its lists as the files hold them."""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from halfstep.backtest import content, ratios
from halfstep.backtest.content import ELEMENTS
from halfstep.backtest.figures import Table, table
from halfstep.backtest.metrics import ONE_SIDED, constant_elements
from halfstep.backtest.ratios import Floats
from halfstep.backtest.run import TestRun
from halfstep.broker.outcomes import Flag, Outcome
from halfstep.market.timeframes import DAY, HOUR

SIDE_NAMES = {1: "long", -1: "short"}
REASONS = {"action": "ACTION", "sl": "SL", "tp": "TP", "stop_out": "STOP_OUT", "end": "END"}
HISTOGRAM_BINS = 20
HINTS = {
    Outcome.NONFINITE: "the policy gives NaN or infinity: look for a divergence in its training",
    Outcome.STOPPED_OUT: "the position was liquidated: lower the volume (broker.lot_cap) or keep stops",
    Outcome.BELOW_MIN_LOT: "the policy asks less than {lot_min:g} lots: scale its output or lower lot_min",
    Outcome.TP_TOO_CLOSE: "the policy asks for targets nearer than the broker takes: scale its targets up",
    Outcome.SL_TOO_CLOSE: "the policy asks for stops inside the spread or nearer than the broker takes: scale its stops up",
    Outcome.NO_MONEY: "the deposit does not carry the volume asked for: lower broker.lot_cap or raise the deposit",
}


def side_table(run: TestRun) -> Table:
    """Return what long and short trades gave, and both together."""
    records: list[dict[str, Any]] = []
    for name, sides in (("long", [1]), ("short", [-1]), ("both", [1, -1])):
        trades = run.trades.filter(pl.col("side").is_in(sides))
        positions = run.positions.filter(pl.col("side").is_in(sides))
        nets = trades["net"].to_numpy()
        records.append(
            {
                "side": name,
                "trades": len(nets),
                "won": float((nets > 0).mean()) if len(nets) else None,
                "net": float(nets.sum()),
                "profit_factor": ratios.profit_factor(nets),
                "mean_net": float(nets.mean()) if len(nets) else None,
                "holding": positions["held_seconds"].mean(),
                **{key: int((trades["reason"] == reason).sum()) for key, reason in REASONS.items()},
            }
        )
    return table(content.SIDES, records)


def outcome_table(run: TestRun) -> Table:
    """Return how many decisions had each outcome, which add up to all of them, and how many carried each flag."""
    n = len(run)
    counts = np.bincount(run.outcome, minlength=len(Outcome))
    records = [
        {"name": outcome.name, "kind": "outcome", "count": int(counts[outcome]), "share": counts[outcome] / n if n else None}
        for outcome in Outcome
    ]  # fmt: skip
    for flag in Flag:
        count = int(((run.flags & flag.value) > 0).sum())
        records.append({"name": str(flag.name), "kind": "flag", "count": count, "share": count / n if n else None})  # fmt: skip
    return table(content.OUTCOMES, records)


def remarks_on_actions(run: TestRun) -> list[tuple[str, str]]:
    """Return the sentences on what the policy asks for: the commonest refusal, one side only, constant elements."""
    found = []
    counts = np.bincount(run.outcome, minlength=len(Outcome))
    refused = max(HINTS, key=lambda outcome: int(counts[outcome]))
    if counts[refused]:
        share = counts[refused] / len(run)
        hint = HINTS[refused].format(lot_min=run.lot_min)
        found.append(("outcomes", f"{refused.name} on {100 * share:.1f} % of the decisions: {hint}."))
    sides = run.trades["side"].to_numpy()
    if len(sides) and max((sides > 0).mean(), (sides < 0).mean()) >= ONE_SIDED:
        name = "long" if (sides > 0).mean() >= ONE_SIDED else "short"
        found.append(("sides", f"One-sided: at least 95 % of the trades are {name}."))
    still = [ELEMENTS[k] for k in constant_elements(run)]
    if still:
        found.append(("outcomes", f"Constant: {', '.join(still)} vary by less than 1 % of their range."))
    return found


def cost_parts(run: TestRun) -> dict[str, float]:
    """Return what the deals cost, account currency: negative where it was paid."""
    spread, slippage, commission, swap = (
        float(run.deals[name].sum()) for name in ("spread_cost", "slippage_cost", "commission", "swap")
    )
    paid = {"spread": spread, "slippage": slippage, "commission": commission}
    return {name: 0.0 - money for name, money in paid.items()} | {"swap": swap}  # 0.0 - 0.0 is no -0.0


def cost_table(run: TestRun) -> Table:
    """Return the way from the result at mid prices to the net result; the parts add up."""
    costs = cost_parts(run)
    parts = {
        "result at mid prices": float(run.deals["profit"].sum()) - costs["spread"] - costs["slippage"],
        **costs,
    }
    open_ = run.equity_end - (float(run.balance[-1]) if len(run) else run.deposit)
    if open_ != 0:
        parts["left open at the end"] = open_
    parts["net"] = sum(parts.values())
    return table(content.COSTS, [{"part": name, "money": money} for name, money in parts.items()])


def monthly_table(run: TestRun) -> Table:
    """Return each month of the server's calendar; a trade belongs to the month its bar opens in."""
    if len(run) == 0:
        return table(content.MONTHLY, [])
    days = run.open_time // DAY
    starts = np.concatenate([[0], np.flatnonzero(days[1:] != days[:-1]) + 1])
    months = days[starts].astype("datetime64[D]").astype("datetime64[M]")
    firsts = starts[np.concatenate([[True], months[1:] != months[:-1]])]
    borders = np.append(firsts, len(run))
    nets, step = run.trades["net"].to_numpy(), run.trades["step"].to_numpy()
    cuts = np.searchsorted(step, borders)
    records = []
    for k, name in enumerate(np.unique(months)):
        first, stop = borders[k], borders[k + 1]
        before = float(run.equity[first - 1]) if first else run.deposit
        mine = nets[cuts[k] : cuts[k + 1]]
        path = ratios.equity_path(before, run.equity_worst[first:stop], run.equity[first:stop])
        net = float(run.equity[stop - 1]) - before
        records.append(
            {
                "month": str(name),
                "net": net,
                "percent": net / before if before > 0 else None,
                "trades": len(mine),
                "won": float((mine > 0).mean()) if len(mine) else None,
                "drawdown": ratios.drawdowns(path).maximal if before > 0 else None,
            }
        )
    return table(content.MONTHLY, records)


def by_time_table(run: TestRun) -> Table:
    """Return entries by the time a position was opened, profit and loss by the time of the bar that closed a trade."""
    opened = run.open_time[run.positions["open_step"].to_numpy()]
    closed = run.open_time[run.trades["step"].to_numpy()]
    nets = run.trades["net"].to_numpy()
    records = []
    for name, groups, first in (("hour", 24, 0), ("weekday", 7, 0), ("month", 12, 1)):
        entries = np.bincount(_group(opened, name), minlength=groups + first)
        index = _group(closed, name)
        profit = np.bincount(index, np.where(nets > 0, nets, 0.0), minlength=groups + first)
        loss = np.bincount(index, np.where(nets <= 0, nets, 0.0), minlength=groups + first)
        records += [
            {"by": name, "group": g, "entries": int(entries[g]), "profit": float(profit[g]), "loss": float(loss[g])}
            for g in range(first, groups + first)
        ]  # fmt: skip
    return table(content.BY_TIME, records)


def _group(time: Any, name: str) -> Any:
    """Return hour 0 to 23, weekday 0 (Monday) to 6 or month 1 to 12 of server seconds."""
    if name == "hour":
        return time % DAY // HOUR
    if name == "weekday":
        return (time // DAY + 3) % 7  # day 0 of 1970 was a Thursday
    return (time // DAY).astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12 + 1


def action_table(run: TestRun) -> Table:
    """Return histograms of the six elements, as asked for and as executed, over their range."""
    records = []
    for k, element in enumerate(ELEMENTS):
        columns = {"raw": run.asked[:, k], "executed": run.executed[:, k]}
        finite = {kind: np.maximum(values[np.isfinite(values)], 0.0) for kind, values in columns.items()}
        high = max(
            float(run.action_range[k]), *(float(values.max(initial=0.0)) for values in finite.values())
        )
        for kind, values in finite.items():
            counts, edges = np.histogram(values, HISTOGRAM_BINS, (0.0, high))
            records += [
                {"element": element, "kind": kind, "low": float(low), "high": float(up), "count": int(count)}
                for low, up, count in zip(edges[:-1], edges[1:], counts, strict=True)
            ]
    return table(content.ACTIONS, records)


def list_tables(run: TestRun) -> tuple[Table, ...]:
    """Return trades, positions, deals, equity after each bar, and decisions."""
    number = pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias("number")
    side = pl.col("side").replace_strict(SIDE_NAMES, return_dtype=pl.String)
    return (
        table(content.TRADES, run.trades.with_columns(number, side)),
        table(content.POSITIONS, run.positions.with_columns(number, side)),
        table(content.DEALS, run.deals.with_columns(number, side)),
        table(content.EQUITY, equity_frame(run)),
        table(content.ORDERS, _order_frame(run)),
    )


def equity_frame(run: TestRun) -> pl.DataFrame:
    """Return the account after each bar."""
    level = np.full(len(run), np.nan)
    np.divide(run.equity, run.margin, out=level, where=run.margin > 0)
    return pl.DataFrame(
        {
            "time": run.close_time, "balance": run.balance, "equity": run.equity, "equity_worst": run.equity_worst,
            "margin_level": level, "lots": run.buy_lots - run.sell_lots,
        }
    )  # fmt: skip


def _order_frame(run: TestRun) -> pl.DataFrame:
    names = [column.name for column in content.ORDERS.columns]
    values: dict[str, Any] = {"time": run.open_time}
    values |= {name: run.asked[:, k] for k, name in enumerate(names[1:7])}
    values |= {name: run.executed[:, k] for k, name in enumerate(names[7:13])}
    outcomes = {outcome.value: outcome.name for outcome in Outcome}
    flags = {
        value: "|".join(str(flag.name) for flag in Flag if flag & value) for value in range(2 ** len(Flag))
    }
    values |= {"outcome": _named(run.outcome, outcomes), "flags": _named(run.flags, flags)}
    return pl.DataFrame(values)


def _named(codes: npt.NDArray[np.uint8], names: dict[int, str]) -> pl.Series:
    """Return the names of codes, a byte or two each: a million decisions are many."""
    return pl.Series(codes).replace_strict(names, return_dtype=pl.Enum(list(names.values())))


def equity_levels(run: TestRun) -> Floats:
    """Return the deposit, then the equity at each close, ``(bars + 1,)``."""
    return np.concatenate([[run.deposit], run.equity])
