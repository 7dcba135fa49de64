"""Tests of several spans as one: each began with the deposit, and growth is chained from one to the next."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float64

from halfstep.backtest.run import TestRun
from halfstep.market.calendar import SECONDS_PER_YEAR

MONEY = ("commission", "swap", "profit", "net", "mfe", "mae", "balance", "spread_cost", "slippage_cost")
"""Columns of deals, trades and positions in account currency."""
STEPS = ("step", "open_step")


def join_runs(runs: Sequence[TestRun], *, floor: float) -> TestRun:
    """Return tests of consecutive spans as the test of one account.

    With growth g_k = equity at the end of span k / deposit, all money of span k is multiplied by g_1 … g_{k-1}, so the
    account goes on with what it had and its end is deposit · Π g_k. Volumes and actions stay as they were traded from
    the deposit. Where a span ends at ``floor`` or below, the account is gone: the joined test ends there.

    Args:
        runs: in the order of time, one or more, of one symbol, account and deposit, each closed at its end.
        floor: equity at or below which an account is ruined, account currency.
    """
    parts, scales = runs[:1], [1.0]
    for before, run in pairwise(runs):
        if before.equity_end <= floor:
            break
        scales.append(scales[-1] * before.equity_end / before.deposit)
        parts = [*parts, run]
    if len(parts) == 1:
        return parts[0]
    steps = np.cumsum([0, *(len(part) for part in parts)])
    between = (int(b.open_time[0] - a.close_time[-1]) for a, b in pairwise(parts))

    def scaled(name: str) -> Float64[np.ndarray, " bar"]:
        return np.concatenate(
            [scale * getattr(part, name) for part, scale in zip(parts, scales, strict=True)]
        )

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    def listed(name: str) -> pl.DataFrame:
        frames = (getattr(part, name) for part in parts)
        return pl.concat(
            _moved(frame, scale, int(step)) for frame, scale, step in zip(frames, scales, steps, strict=False)
        )

    together: dict[str, Any] = {
        **{name: joined(name) for name in ("open_time", "close_time", "buy_lots", "sell_lots", "asked", "executed", "outcome", "flags")},
        **{name: scaled(name) for name in ("balance", "equity", "equity_worst", "margin")},
        **{name: listed(name) for name in ("deals", "trades", "positions")},
        **{name: _total(parts, name) for name in ("ambiguous", "detail_missing", "ticks")},
        "years": sum(part.years for part in parts) + sum(between) / SECONDS_PER_YEAR,
        "status": parts[-1].status,
    }  # fmt: skip
    return replace(parts[0], **together)


def _moved(frame: pl.DataFrame, scale: float, step: int) -> pl.DataFrame:
    """Return a table whose money is scaled and whose steps are counted from the first span's."""
    return frame.with_columns(
        *(pl.col(name) * scale for name in MONEY if name in frame.columns),
        *(pl.col(name) + step for name in STEPS if name in frame.columns),
    )


def _total(parts: Sequence[TestRun], name: str) -> int:
    return sum(getattr(part, name) for part in parts)
