"""Deals as the engine records them, and the same as tables of deals, trades and positions.

A *deal* is one fill. A *trade* is a deal that takes volume off a position. A *position* lives from its first
opening to its full close.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from halfstep.broker import _layout as c
from halfstep.broker.outcomes import Phase, Reason
from halfstep.errors import HalfstepError

if TYPE_CHECKING:
    from halfstep.broker.table import MarketTable

Deal = dict[str, Any]
NO_LOTS = 1e-9


class DealLog:
    """Room for a number of deals per account.

    Attributes:
        records: ``(accounts, capacity, 18)`` float64, see the D_ names of `_layout`.
        counts: deals made by each account, ``(accounts,)``; may exceed the capacity, then reading raises.
    """

    def __init__(self, n_accounts: int, capacity: int) -> None:
        self.records: npt.NDArray[np.float64] = np.zeros((n_accounts, capacity, c.DEAL_SIZE))
        self.counts = np.zeros(n_accounts, np.int64)

    @property
    def recording(self) -> "DealLog | None":
        """This log, or None where it has no room at all."""
        return self if self.records.shape[1] else None

    def clear(self) -> None:
        """Forget all deals."""
        self.counts[:] = 0

    def of(self, account: int) -> npt.NDArray[np.float64]:
        """Return the records of one account, ``(deals, 18)``.

        Raises:
            HalfstepError: more deals were made than there was room for.
        """
        count = int(self.counts[account])
        if count > self.records.shape[1]:
            raise HalfstepError(
                f"deal log: {count} deals of account {account}, room for {self.records.shape[1]}. Give a larger log_capacity."
            )
        return self.records[account, :count]


def results_by_side(log: DealLog) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return trades and results of the long and of the short side, ``(2,)`` each, over all accounts of a log.

    result = sum of profit + swap - commission of all deals of the side, account currency.

    Raises:
        HalfstepError: the log has no room for some of the deals.
    """
    for account in np.flatnonzero(log.counts > log.records.shape[1])[:1]:
        log.of(int(account))
    used = np.arange(log.records.shape[1]) < log.counts[:, None]
    is_short = (log.records[..., c.D_SIDE][used] < 0).astype(np.int64)
    profit, swap, fee = (log.records[..., column][used] for column in (c.D_PROFIT, c.D_SWAP, c.D_COMMISSION))
    trades = np.bincount(is_short, log.records[..., c.D_IS_OUT][used], minlength=2)
    results = np.bincount(is_short, profit + swap - fee, minlength=2)
    return trades.astype(np.int64), np.asarray(results, np.float64)


def deals_frame(
    log: DealLog,
    table: "MarketTable",
    account: int = 0,
    *,
    account_mode: Literal["hedging", "netting"] = "hedging",
) -> pl.DataFrame:
    """Return one row per deal of an account.

    Times are UTC seconds: the bar's open for deals at the opening quote or by an action, its close for the others,
    or the close of the detail bar that decided them. Prices are quoted prices, money is account currency.

    Args:
        account_mode: netting joins the close and the opening of a reversal into one deal, ``entry`` "in/out".
    """
    records = log.of(account)
    bar = records[:, c.D_BAR].astype(np.int64)
    phase = records[:, c.D_PHASE].astype(np.int64)
    detail = records[:, c.D_DETAIL].astype(np.int64)
    time = np.where(phase <= Phase.ACTION, table.bars.time[bar], table.bars.close_time[bar])
    if table.detail is not None:
        time = np.where(detail >= 0, table.detail.bars.close_time[detail], time)
    point, lot_step = table.instrument.point, table.instrument.lot_step
    is_out = records[:, c.D_IS_OUT] > 0
    frame = pl.DataFrame(
        {
            "account": np.full(len(bar), account),
            "bar": bar,
            "time": time,
            "phase": [Phase(p).name for p in phase],
            "side": records[:, c.D_SIDE].astype(np.int64),
            "entry": ["out" if out else "in" for out in is_out],
            "reason": [Reason(int(r)).name for r in records[:, c.D_REASON]],
            "steps": records[:, c.D_STEPS].astype(np.int64),
            "lots": records[:, c.D_STEPS] * lot_step,
            "price": records[:, c.D_PRICE] * point,
            "entry_price": records[:, c.D_ENTRY] * point,
            "sl": records[:, c.D_SL] * point,
            "tp": records[:, c.D_TP] * point,
            "spread_points": records[:, c.D_SPREAD],
            "slippage_points": records[:, c.D_SLIPPAGE],
            "commission": records[:, c.D_COMMISSION],
            "swap": records[:, c.D_SWAP],
            "profit": records[:, c.D_PROFIT],
            "balance": records[:, c.D_BALANCE],
            "ambiguous": records[:, c.D_AMBIGUOUS] > 0,
        },
        schema_overrides={"phase": pl.String, "entry": pl.String, "reason": pl.String},
    )
    return frame if account_mode == "hedging" else _netted(frame)


def _netted(deals: pl.DataFrame) -> pl.DataFrame:
    """Join each close by action with the opening of the other side in the same bar."""
    rows: list[Deal] = []
    for deal in deals.iter_rows(named=True):
        last = rows[-1] if rows else None
        if (
            last is not None
            and (last["entry"], last["reason"], last["bar"]) == ("out", "ACTION", deal["bar"])
            and (deal["entry"], deal["reason"], deal["side"]) == ("in", "ACTION", -last["side"])
        ):
            lots = last["lots"] + deal["lots"]
            price = (last["price"] * last["lots"] + deal["price"] * deal["lots"]) / lots
            added = {name: last[name] + deal[name] for name in ("steps", "commission", "swap", "profit")}
            rows[-1] = deal | added | {
                "entry": "in/out", "lots": lots, "price": price, "entry_price": last["entry_price"],
            }  # fmt: skip
        else:
            rows.append(deal)
    return pl.DataFrame(rows, schema=deals.schema)


def trades_frame(deals: pl.DataFrame) -> pl.DataFrame:
    """Return one row per trade (a deal that takes volume off a position), with its net result.

    net = profit + swap - its own commission - the share of the entry commissions that belongs to the volume
    closed, so that the nets of all trades add up to the change of the balance once everything is closed.

    Args:
        deals: of `deals_frame` in its hedging view.
    """
    rows = []
    lots, entry_fees = {1: 0.0, -1: 0.0}, {1: 0.0, -1: 0.0}
    for deal in deals.iter_rows(named=True):
        side = deal["side"]
        if deal["entry"] == "in":
            lots[side] += deal["lots"]
            entry_fees[side] += deal["commission"]
            continue
        share = entry_fees[side] * deal["lots"] / lots[side]
        rows.append(deal | {"net": deal["profit"] + deal["swap"] - deal["commission"] - share})
        lots[side] -= deal["lots"]
        entry_fees[side] -= share
        if lots[side] < NO_LOTS:
            lots[side], entry_fees[side] = 0.0, 0.0
    schema = dict(deals.schema) | {"net": pl.Float64()}
    return pl.DataFrame(rows, schema=schema)


def positions_frame(deals: pl.DataFrame, table: "MarketTable") -> pl.DataFrame:
    """Return one row per position, from its first opening to its full close; positions still open are left out.

    Open and close prices are volume-weighted, ``lots`` is the largest volume. MFE and MAE are the largest and
    smallest of (realised so far + floating), account currency, without swap and commission, at closing quotes: 0
    at the entry, both extremes and the close of every bar it lived through whole, and in its last bar only the
    open and the exit price.

    Args:
        deals: of `deals_frame` in its hedging view.
    """
    rows = []
    open_deals: dict[int, list[Deal]] = {1: [], -1: []}
    lots = {1: 0.0, -1: 0.0}
    for deal in deals.iter_rows(named=True):
        side = deal["side"]
        open_deals[side].append(deal)
        lots[side] += deal["lots"] if deal["entry"] == "in" else -deal["lots"]
        if lots[side] < NO_LOTS:
            rows.append(_position(open_deals[side], table))
            open_deals[side], lots[side] = [], 0.0
    schema = {
        "side": pl.Int64, "open_time": pl.Int64, "close_time": pl.Int64, "open_bar": pl.Int64, "close_bar": pl.Int64,
        "open_price": pl.Float64, "close_price": pl.Float64, "volume": pl.Float64, "lots": pl.Float64, "sl": pl.Float64,
        "tp": pl.Float64, "reason": pl.String, "commission": pl.Float64, "swap": pl.Float64, "profit": pl.Float64,
        "net": pl.Float64, "mfe": pl.Float64, "mae": pl.Float64, "ambiguous": pl.Boolean,
    }  # fmt: skip
    return pl.DataFrame(rows, schema=schema)


def _position(deals: list[Deal], table: "MarketTable") -> Deal:
    first, last = deals[0], deals[-1]
    signed = np.array([deal["lots"] if deal["entry"] == "in" else -deal["lots"] for deal in deals])
    price = np.array([deal["price"] for deal in deals])
    ins, outs = signed > 0, signed < 0
    commission, swap, profit = (
        float(sum(deal[name] for deal in deals)) for name in ("commission", "swap", "profit")
    )
    mfe, mae = _excursions(deals, table)
    return {
        "side": first["side"],
        "open_time": first["time"],
        "close_time": last["time"],
        "open_bar": first["bar"],
        "close_bar": last["bar"],
        "open_price": float(np.average(price[ins], weights=signed[ins])),
        "close_price": float(np.average(price[outs], weights=signed[outs])),
        "volume": float(signed[ins].sum()),
        "lots": float(np.cumsum(signed).max()),
        "sl": last["sl"],
        "tp": last["tp"],
        "reason": last["reason"],
        "commission": commission,
        "swap": swap,
        "profit": profit,
        "net": profit + swap - commission,
        "mfe": mfe,
        "mae": mae,
        "ambiguous": any(deal["ambiguous"] for deal in deals),
    }


@dataclass(slots=True)
class _Open:
    """What is open of a position while its deals are gone through; prices in points."""

    side: int
    lots: float = 0.0
    entry: float = 0.0
    realised: float = 0.0


def _excursions(deals: list[Deal], table: "MarketTable") -> tuple[float, float]:
    """Return the largest and smallest of realised + floating profit over a position's life."""
    point, last_bar = table.instrument.point, deals[-1]["bar"]
    now = _Open(deals[0]["side"])
    seen = [0.0]
    for deal, following in zip(deals, [*deals[1:], None], strict=True):
        price, lots = deal["price"] / point, deal["lots"]
        if deal["entry"] == "in":
            now.entry = (now.entry * now.lots + price * lots) / (now.lots + lots)
            now.lots += lots
        else:
            seen.append(float(_worth(now, table, deal["bar"], price)))
            now.realised += deal["profit"]
            now.lots -= lots
        if following is None:
            break
        whole = slice(deal["bar"], following["bar"])
        rows = table.values[whole]
        ask_part = rows[:, c.SPREAD] if now.side < 0 else 0.0
        for column in (c.HIGH, c.LOW, c.CLOSE):
            worth = _worth(now, table, whole, rows[:, column] + ask_part)
            seen.extend((worth.max(), worth.min()) if len(rows) else ())
        if following["bar"] == last_bar != deal["bar"]:
            row = table.values[last_bar]
            start = row[c.OPEN] + (row[c.SPREAD] if now.side < 0 else 0.0)
            seen.append(float(_worth(now, table, last_bar, start)))
    return float(max(seen)), float(min(seen))


def _worth(now: _Open, table: "MarketTable", bar: Any, price: Any) -> Any:
    """Return realised + floating profit at prices in points."""
    gain = now.side * (price - now.entry) * table.instrument.point_value * now.lots
    if table.pricing[0] == table.instrument.base:
        return now.realised + gain / (price * table.instrument.point)
    return now.realised + gain * table.values[bar, c.PROFIT_RATE]
