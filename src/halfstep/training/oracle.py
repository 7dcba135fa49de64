"""Actions that know the next bars: labels for training an actor where the future is already history.

All prices are points from the open O of the next bar (bid), s is its spread; bar k of the m <= 24 next ones has h_k = high - O,
l_k = low - O, c_k = close - O. An account without a position takes the first move that is not undone by a larger one:

    i, j = argmax, argmin of c_1 ... c_m;   e = the earlier, f = the later of the two
    |c_e| >= |c_f|: take e, K = e;   else m = f - 1 and again     (m = 1 or all equal: the sign of c_m, K = m)
    long:   tp = max_{k<=K} h_k - s,    sl = s - min_{k<=K} l_k + 1
    short:  tp = -min_{k<=K} l_k - s,   sl = max_{k<=K} h_k + s + 1

so that the target is just reached and the stop just not. Nothing is done where sl exceeds the level scale, or tp less the
commission stays under the least edge. An account with a position keeps its volume and side until no profit is left, over the
bars before a stop at full scale would be hit.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Float64, Int64

from halfstep.broker._layout import CLOSE, HIGH, LOW, OPEN, PROFIT_RATE, SPREAD
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable

LOTS_PER_EQUITY = 0.01 / 100  # lots per unit of account currency

_Row = npt.NDArray[np.float64]  # (batch,)
_Table = npt.NDArray[np.float64]  # (batch, horizon)
_Counts = npt.NDArray[np.int64]  # (batch,)


@dataclass(frozen=True, kw_only=True)
class OracleTable:
    """The bars of a training span as labels read them.

    Attributes:
        bars: open, high, low, close, spread, and the commission of a whole trade at the open; points, ``(bar, 6)``.
        stop: labels read no bar from here on.
        scale: points that a level fraction of 1 means.
        least_target: smallest target distance the broker takes, points; a stop needs the spread on top.
        min_edge_points: least profit after commission; None: the spread.
        lot_step, lot_min, lot_cap: grid and limits of volumes, lots.
        horizon: bars to look ahead.
    """

    bars: Float64[np.ndarray, "bar 6"]
    stop: int
    scale: float
    least_target: float
    min_edge_points: float | None
    lot_step: float
    lot_min: float
    lot_cap: float
    horizon: int


def oracle_table(
    table: MarketTable,
    rules: AccountRules,
    *,
    stop: int,
    horizon: int = 24,
    min_edge_points: float | None = None,
) -> OracleTable:
    """Return what `oracle_labels` needs of a market.

    Args:
        stop: end of the training span: no label looks at this bar or a later one.
        horizon: bars to look ahead.
        min_edge_points: see `StudySettings.min_edge_points`.
    """
    traded = table.instrument
    if rules.currency == traded.base:
        rate = 1 / (table.values[:, OPEN] * traded.point)
    else:
        rate = table.values[:, PROFIT_RATE]
    commission = 2 * traded.commission * rules.cost_scale / (traded.point_value * rate)
    return OracleTable(
        bars=np.column_stack([table.values[:, [OPEN, HIGH, LOW, CLOSE, SPREAD]], commission]),
        stop=min(stop, len(table)),
        scale=float(traded.level_scale_points),
        least_target=float(max(traded.stops_level_points, 1) + 1),
        min_edge_points=min_edge_points,
        lot_step=traded.lot_step,
        lot_min=traded.lot_min,
        lot_cap=min(rules.lot_cap, traded.lot_max),
        horizon=horizon,
    )


def oracle_labels(
    oracle: OracleTable,
    bar: Int64[np.ndarray, " batch"],
    equity: Float64[np.ndarray, " batch"],
    lots: Float64[np.ndarray, " batch"],
) -> Float32[np.ndarray, "batch 6"]:
    """Return the actions of an oracle at the close of bars, in lots and level fractions.

    Args:
        bar: newest closed bar of each decision.
        equity: of the account, account currency.
        lots: held, bought minus sold.

    Raises:
        ValueError: a decision whose next bar lies outside the span.
    """
    if len(bar) and not (bar.min() >= 0 and bar.max() + 1 < oracle.stop):
        raise ValueError(f"bar: {bar.min()} to {bar.max()}, must lie in 0 to {oracle.stop - 2}.")
    first = bar + 1
    count = np.minimum(oracle.horizon, oracle.stop - first)  # bars ahead of each decision
    ahead = np.arange(oracle.horizon)
    rows = oracle.bars[np.minimum(first[:, None] + ahead, oracle.stop - 1)]  # (batch, horizon, 6)
    spread, commission = rows[:, 0, 4], rows[:, 0, 5]
    high, low, close = np.moveaxis(
        rows[..., 1:4] - rows[:, :1, :1], 2, 0
    )  # (batch, horizon), from the next open
    is_flat = lots == 0
    side, last = _first_move(close, count)
    count_held = _bars_before_full_stop(high, low, np.sign(lots), spread, oracle.scale, count)
    side = np.where(is_flat, side, np.sign(lots))
    last = np.where(is_flat, last, _best(np.sign(lots)[:, None] * close, count_held))
    until = ahead <= last[:, None]
    top, bottom = np.where(until, high, -np.inf).max(axis=1), np.where(until, low, np.inf).min(axis=1)
    tp = np.where(side > 0, top, -bottom) - spread
    sl = np.where(side > 0, -bottom, top) + spread + 1
    sl = np.maximum(sl, oracle.least_target + spread)
    edge = spread if oracle.min_edge_points is None else oracle.min_edge_points
    opens = (side != 0) & (sl <= oracle.scale) & (tp - commission >= edge) & (tp >= oracle.least_target)
    steps = np.floor(LOTS_PER_EQUITY * equity / oracle.lot_step + 1e-9)
    volume = np.where(is_flat, np.minimum(steps * oracle.lot_step, oracle.lot_cap), np.abs(lots))
    trades = np.where(is_flat, opens & (volume > oracle.lot_min - 1e-9), (count_held > 0) & (tp > 0))
    fractions = np.stack([np.maximum(tp, oracle.least_target), sl], axis=1) / oracle.scale
    action = np.where(trades[:, None], np.column_stack([volume, np.minimum(fractions, 1)]), 0)
    buys = (side > 0)[:, None]
    return np.concatenate([np.where(buys, action, 0), np.where(buys, 0, action)], axis=1).astype(np.float32)


def _first_move(close: _Table, count: _Counts) -> tuple[_Counts, _Counts]:
    """Return side and index of the first close that no larger one on the other side undoes."""
    count = count.copy()
    each = np.arange(len(close))
    side, last = np.zeros(len(close), np.int64), np.zeros(len(close), np.int64)
    open_ = np.ones(len(close), np.bool_)
    while open_.any():
        best, worst = _best(close, count), _best(-close, count)
        early, late = np.minimum(best, worst), np.maximum(best, worst)
        is_settled = (count == 1) | (best == worst)
        is_larger = np.abs(close[each, early]) >= np.abs(close[each, late])
        now = open_ & (is_settled | is_larger)
        end = np.where(is_settled, count - 1, early)
        direction = np.where(is_settled, np.sign(close[each, count - 1]), np.where(best < worst, 1, -1))
        side, last = np.where(now, direction, side).astype(np.int64), np.where(now, end, last)
        open_ &= ~now
        count = np.where(open_, late, count)  # the bars before the later extreme
    return side, last


def _bars_before_full_stop(
    high: _Table, low: _Table, side: _Row, spread: _Row, scale: float, count: _Counts
) -> _Counts:
    """Return how many bars pass before a stop at the full level scale from the next open would be hit."""
    adverse = np.where(side[:, None] > 0, low - spread[:, None], -high - spread[:, None])
    is_hit = adverse <= -scale
    first_hit = np.where(is_hit.any(axis=1), is_hit.argmax(axis=1), high.shape[1])
    return np.asarray(np.minimum(first_hit, count), np.int64)


def _best(values: _Table, count: _Counts) -> _Counts:
    """Return the index of the first greatest of each row's first ``count`` values."""
    inside = np.arange(values.shape[1]) < count[:, None]
    return np.asarray(np.where(inside, values, -np.inf).argmax(axis=1), np.int64)
