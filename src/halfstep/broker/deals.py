"""Deals as the engine records them, and the same as tables of deals and positions."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from halfstep.broker import _kernel as k
from halfstep.broker.outcomes import Phase, Reason
from halfstep.errors import HalfstepError

if TYPE_CHECKING:
    from halfstep.broker.table import MarketTable


class DealLog:
    """Room for a number of deals per account.

    Attributes:
        records: ``(accounts, capacity, 17)`` float64, see the D_ names of the kernel.
        counts: deals made by each account, ``(accounts,)``; may exceed the capacity, then reading raises.
    """

    def __init__(self, n_accounts: int, capacity: int) -> None:
        self.records: npt.NDArray[np.float64] = np.zeros((n_accounts, capacity, k.DEAL_SIZE))
        self.counts = np.zeros(n_accounts, np.int64)

    def clear(self) -> None:
        """Forget all deals."""
        self.counts[:] = 0

    def of(self, account: int) -> npt.NDArray[np.float64]:
        """Return the records of one account, ``(deals, 17)``."""
        count = int(self.counts[account])
        if count > self.records.shape[1]:
            raise HalfstepError(
                f"deal log: {count} deals of account {account}, room for {self.records.shape[1]}. Give a larger log_capacity."
            )
        return self.records[account, :count]


def deals_frame(log: DealLog, table: "MarketTable", account: int = 0) -> pl.DataFrame:
    """Return one row per deal of an account.

    Times are UTC seconds: the bar's open for deals at the opening quote or by an action, its close for the others.
    Prices are quoted prices, money is account currency.
    """
    records = log.of(account)
    bar = records[:, k.D_BAR].astype(np.int64)
    phase = records[:, k.D_PHASE].astype(np.int64)
    at_open = phase <= Phase.ACTION
    point, lot_step = table.instrument.point, table.instrument.lot_step
    return pl.DataFrame(
        {
            "bar": bar,
            "time": np.where(at_open, table.bars.time[bar], table.bars.close_time[bar]),
            "phase": [Phase(p).name for p in phase],
            "side": records[:, k.D_SIDE].astype(np.int64),
            "is_out": records[:, k.D_IS_OUT] > 0,
            "reason": [Reason(int(r)).name for r in records[:, k.D_REASON]],
            "lots": records[:, k.D_STEPS] * lot_step,
            "price": records[:, k.D_PRICE] * point,
            "entry_price": records[:, k.D_ENTRY] * point,
            "sl": records[:, k.D_SL] * point,
            "tp": records[:, k.D_TP] * point,
            "spread_points": records[:, k.D_SPREAD],
            "slippage_points": records[:, k.D_SLIPPAGE],
            "commission": records[:, k.D_COMMISSION],
            "swap": records[:, k.D_SWAP],
            "profit": records[:, k.D_PROFIT],
            "balance": records[:, k.D_BALANCE],
            "ambiguous": records[:, k.D_AMBIGUOUS] > 0,
        },
        schema_overrides={"phase": pl.String, "reason": pl.String},
    )


def trades_frame(deals: pl.DataFrame) -> pl.DataFrame:
    """Return one row per trade (a deal that takes volume off a position), with its net result.

    net = profit + swap - its own commission - the share of the entry commissions that belongs to the volume
    closed, so that the nets of all trades add up to the change of the balance once everything is closed.
    """
    rows = []
    lots, entry_fees = 0.0, 0.0
    for deal in deals.iter_rows(named=True):
        if not deal["is_out"]:
            lots += deal["lots"]
            entry_fees += deal["commission"]
            continue
        share = entry_fees * deal["lots"] / lots
        rows.append(deal | {"net": deal["profit"] + deal["swap"] - deal["commission"] - share})
        lots -= deal["lots"]
        entry_fees -= share
        if lots < 1e-9:
            lots, entry_fees = 0.0, 0.0
    schema = dict(deals.schema) | {"net": pl.Float64()}
    return pl.DataFrame(rows, schema=schema)


def positions_frame(deals: pl.DataFrame, table: "MarketTable") -> pl.DataFrame:
    """Return one row per position, from its first opening to its full close.

    MFE and MAE are the largest and smallest of (realised so far + floating), in money at closing quotes: the
    entry, both extremes and the close of every bar it lived through whole, and in its last bar only the open and
    the exit price. Positions still open at the end are left out.
    """
    rows = []
    first, members = 0, list(deals.iter_rows(named=True))
    lots = 0.0
    for index, deal in enumerate(members):
        lots += -deal["lots"] if deal["is_out"] else deal["lots"]
        if lots < 1e-9:
            rows.append(_position(members[first : index + 1], table))
            first, lots = index + 1, 0.0
    schema = {
        "side": pl.Int64, "open_time": pl.Int64, "close_time": pl.Int64, "open_bar": pl.Int64, "close_bar": pl.Int64,
        "open_price": pl.Float64, "close_price": pl.Float64, "lots": pl.Float64, "sl": pl.Float64, "tp": pl.Float64,
        "reason": pl.String, "commission": pl.Float64, "swap": pl.Float64, "profit": pl.Float64, "net": pl.Float64,
        "mfe": pl.Float64, "mae": pl.Float64, "ambiguous": pl.Boolean,
    }  # fmt: skip
    return pl.DataFrame(rows, schema=schema)


def _position(deals: list[dict[str, object]], table: "MarketTable") -> dict[str, object]:
    column = {name: [deal[name] for deal in deals] for name in deals[0]}
    outs = [deal for deal in deals if deal["is_out"]]
    fees, swap, profit = (float(sum(column[name])) for name in ("commission", "swap", "profit"))  # type: ignore[arg-type]
    mfe, mae = _excursions(deals, table)
    return {
        "side": column["side"][0],
        "open_time": column["time"][0],
        "close_time": column["time"][-1],
        "open_bar": column["bar"][0],
        "close_bar": column["bar"][-1],
        "open_price": column["price"][0],
        "close_price": column["price"][-1],
        "lots": _largest_volume(deals),
        "sl": column["sl"][-1],
        "tp": column["tp"][-1],
        "reason": outs[-1]["reason"],
        "commission": fees,
        "swap": swap,
        "profit": profit,
        "net": profit + swap - fees,
        "mfe": mfe,
        "mae": mae,
        "ambiguous": any(column["ambiguous"]),
    }


def _largest_volume(deals: list[dict[str, object]]) -> float:
    lots = np.array([float(deal["lots"]) * (-1 if deal["is_out"] else 1) for deal in deals])  # type: ignore[arg-type]
    return float(np.cumsum(lots).max())


def _excursions(deals: list[dict[str, object]], table: "MarketTable") -> tuple[float, float]:
    """Return the largest and smallest of realised + floating profit over a position's life."""
    from halfstep.broker.table import (
        CLOSE,
        HIGH,
        LOW,
        OPEN,
        SPREAD,
    )  # the table module imports nothing of this one

    point = table.instrument.point
    side = float(deals[0]["side"])  # type: ignore[arg-type]
    seen: list[float] = []
    realised, lots, entry = 0.0, 0.0, 0.0
    money = table.instrument.point_value
    last_bar = int(deals[-1]["bar"])  # type: ignore[call-overload]

    def at(price: float) -> float:
        return realised + side * (price - entry) * money * lots

    for deal, following in zip(deals, [*deals[1:], None], strict=True):
        bar, price, volume = int(deal["bar"]), float(deal["price"]) / point, float(deal["lots"])  # type: ignore[arg-type, call-overload]
        if deal["is_out"]:
            seen.append(at(price))
            realised += side * (price - entry) * money * volume
            lots -= volume
        else:
            entry = (entry * lots + price * volume) / (lots + volume)
            lots += volume
            seen.append(at(price))
        if following is None:
            continue
        until = int(following["bar"])  # type: ignore[call-overload]
        for b in range(bar, until):
            row = table.values[b]
            ask_part = row[SPREAD] if side < 0 else 0.0
            seen.extend(at(float(row[c] + ask_part)) for c in (HIGH, LOW, CLOSE))
        if until == last_bar:
            row = table.values[last_bar]
            seen.append(at(float(row[OPEN] + (row[SPREAD] if side < 0 else 0.0))))
    return max(seen), min(seen)
