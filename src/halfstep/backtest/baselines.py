"""What doing something simple on the same bars, deposit, rules and costs would have given.

Random policies have the positions of the policy under test: their number, volumes, distances of target and stop and
planned holding times, in random order; only when they begin and on which side is drawn. So they pay what ours pays,
and what is left is timing and direction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl
from jaxtyping import Float64, Int64

from halfstep.backtest import content, ratios
from halfstep.backtest.figures import Table, table
from halfstep.backtest.joined import join_runs
from halfstep.backtest.run import TestRun, make_test_run
from halfstep.broker._layout import CLOSE, OPEN, POSITION_SIZE, STEPS
from halfstep.broker.engine import BatchedAccounts, run_actions
from halfstep.broker.outcomes import Outcome
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable
from halfstep.experience.seeds import generator

PLAN_CELLS = 2**23  # cells of random plans (bar, run) held in memory at once
LOW, HIGH = 0.05, 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """The bars of a test in a table: the newest closed bar at the first decision, and how many bars are stepped."""

    first: int
    bars: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """One comparison run: a name, what happened, what to know about it, and whether it traded the bars of the test."""

    name: str
    run: TestRun
    note: str = ""
    on_test_bars: bool = True


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RandomBand:
    """Random policies with as many positions as ours.

    Attributes:
        nets: of each run, ``(run,)``.
        trades: positions that each run opened, ``(run,)``; fewer than ours where the margin did not suffice.
        low, high: equity that 5 % and 95 % of the runs stay below after each bar, ``(bar,)``.
    """

    nets: Float64[np.ndarray, " run"]
    trades: Int64[np.ndarray, " run"]
    low: Float64[np.ndarray, " bar"]
    high: Float64[np.ndarray, " bar"]

    def p(self, net: float) -> float:
        """Return (1 + runs at least as good as ``net``) / (1 + runs)."""
        return float((1 + (self.nets >= net).sum()) / (1 + len(self.nets)))


def simple_baselines(market: MarketTable, rules: AccountRules, ours: TestRun, span: Span) -> list[Baseline]:
    """Return flat, always long, always short, and buy and hold over the bars that our run was given.

    Always long and always short ask at every bar for the median volume and levels of our own openings, and enter
    again after an exit. Buy and hold buys what the deposit pays for without leverage, once, without levels.
    """
    lots, target, stop = _typical_opening(ours)
    opened, change = market.values[span.first + 1, OPEN], price_change(market, span)
    why = (
        "the median of our openings" if ours.positions.height else "the least there are: ours opened nothing"
    )
    asked = f"{lots:.2f} lots, {why}; {change}"
    affordable = max(market.instrument.lot_min, _affordable_lots(rules, market, opened))
    return [
        Baseline(name="flat", run=_constant(market, rules, span)),
        Baseline(name="always long", run=_constant(market, rules, span, (lots, target, stop, 0.0, 0.0, 0.0)), note=asked),
        Baseline(name="always short", run=_constant(market, rules, span, (0.0, 0.0, 0.0, lots, target, stop)), note=asked),
        Baseline(
            name="buy and hold",
            run=_constant(market, _without_levels(rules), span, (affordable, *(0.0,) * 5)),
            note=f"{affordable:.2f} lots; {change}",
        ),
    ]  # fmt: skip


def price_change(market: MarketTable, span: Span) -> str:
    """Return the first open, the last close and the change between them, in words."""
    opened, closed = market.values[span.first + 1, OPEN], market.values[span.first + span.bars, CLOSE]
    point = market.instrument.point
    return f"price {opened * point:.5f} to {closed * point:.5f}, {100 * (closed / opened - 1):+.2f} %"


def join_baselines(spans: Sequence[Sequence[Baseline]], *, floor: float, note: str) -> list[Baseline]:
    """Return the simple rules of consecutive spans as those of one account, each span begun anew; see `join_runs`.

    Args:
        spans: of each span, the same rules in the same order.
        floor: equity at or below which an account is ruined, account currency.
        note: on every rule that has one.
    """
    return [
        Baseline(
            name=same[0].name,
            run=join_runs([each.run for each in same], floor=floor),
            note=note if same[0].note else "",
        )
        for same in zip(*spans, strict=True)
    ]  # fmt: skip


def baseline_table(baselines: Sequence[Baseline], band: RandomBand | None, deposit: float) -> Table:
    """Return one line per baseline, and three quantiles of the random policies."""
    records = [run_record(each.run) | {"name": each.name, "note": each.note} for each in baselines]
    if band is not None:
        for quantile, name in ((LOW, "5 %"), (0.5, "middle"), (HIGH, "95 %")):
            net = float(np.quantile(band.nets, quantile))
            note = f"{name} of {len(band.nets):,} runs; positions of ours at other times, sides by a coin"
            records.append(
                {
                    "name": f"random, {name}", "net": net, "percent": net / deposit, "drawdown": None,
                    "profit_factor": None, "trades": float(band.trades.mean()), "note": note,
                }
            )  # fmt: skip
    return table(content.BASELINES, records)


def run_record(run: TestRun) -> dict[str, float | None]:
    """Return net, percent, maximal equity drawdown, profit factor and trades of a run."""
    path = ratios.equity_path(run.deposit, run.equity_worst, run.equity)
    return {
        "net": run.net,
        "percent": run.net / run.deposit,
        "drawdown": ratios.drawdowns(path).maximal,
        "profit_factor": ratios.profit_factor(run.trades["net"].to_numpy()),
        "trades": float(run.trades.height),
    }


def band_table(run: TestRun, band: RandomBand, hold: TestRun) -> Table:
    """Return buy and hold and the middle nine tenths of random trading at the bars that our run stepped."""
    n = min(len(run), len(hold), len(band.low))
    frame = pl.DataFrame(
        {
            "time": run.close_time[:n],
            "buy_and_hold": hold.equity[:n],
            "random_low": band.low[:n],
            "random_high": band.high[:n],
        }
    )
    return table(content.BAND, frame)


def random_table(band: RandomBand) -> Table:
    """Return the net profit of each random policy."""
    return table(content.RANDOM, pl.DataFrame({"net": band.nets, "trades": band.trades}))


@dataclass(frozen=True, eq=False, slots=True)
class _Positions:
    """What random policies take over from ours, ``(position,)`` each: bars asked for, lots, target, stop."""

    bars: npt.NDArray[np.int64]
    request: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, slots=True)
class _Plans:
    """Random plans: which position is asked for at each bar or -1, ``(bar, run)``; sides, ``(run, position)``."""

    position: npt.NDArray[np.int32]
    side: npt.NDArray[np.int8]


def random_band(
    market: MarketTable, rules: AccountRules, ours: TestRun, span: Span, *, runs: int, seed: int
) -> RandomBand:
    """Play random policies with our positions at other times, sides by a fair coin.

    The gaps between the positions are redrawn uniformly with the same total. A position asks at every bar of its
    planned time, as a policy does, so its stop trails; once closed by a level it is not opened again. Where no gap
    lies before a position of the same side, the later one begins a bar late, or, if it lasts one bar, its side is the
    other one: otherwise the two would be one.
    """
    return joined_random_band(market, rules, [(ours, span)], runs=runs, seed=seed)


def joined_random_band(
    market: MarketTable, rules: AccountRules, spans: Sequence[tuple[TestRun, Span]], *, runs: int, seed: int
) -> RandomBand:
    """Play random policies over consecutive spans as one account, with our positions of each span; see `join_runs`."""
    random = generator(seed, "random baseline")
    rules = replace(rules, delay_bars=0)  # when a random decision is executed does not matter
    ours = [_positions_of(run) for run, _ in spans]
    bars = sum(span.bars for _, span in spans)
    nets, trades = np.empty(runs), np.zeros(runs, np.int64)
    low, high = np.zeros(bars), np.zeros(bars)
    chunk = max(1, PLAN_CELLS // max(1, max(span.bars for _, span in spans)))
    for begin in range(0, runs, chunk):
        part = slice(begin, min(begin + chunk, runs))
        count = part.stop - part.start
        chain = _Chain(np.ones(count), np.full(count, rules.deposit))
        done = 0
        for positions, (_, span) in zip(ours, spans, strict=True):
            plans = _random_plans(random, positions.bars, span.bars, count)
            accounts = BatchedAccounts(market, rules, count, backend="single")
            accounts.reset(first=span.first, stop=span.first + span.bars)
            opened, quantiles = _play(accounts, plans, positions, chain)
            trades[part] += opened
            low[done : done + span.bars] += count / runs * quantiles[:, 0]
            high[done : done + span.bars] += count / runs * quantiles[:, 1]
            done += span.bars
            chain = chain.after(accounts.state.equity, rules)
        nets[part] = chain.equity - rules.deposit
    return RandomBand(nets=nets, trades=trades, low=low, high=high)


@dataclass(frozen=True, eq=False, slots=True)
class _Chain:
    """What each random account has after the spans so far, ``(run,)`` each.

    Attributes:
        scale: money of the next span is multiplied by it; 0 for an account that is gone.
        equity: at the end of the last span, account currency.
    """

    scale: Float64[np.ndarray, " run"]
    equity: Float64[np.ndarray, " run"]

    def at(self, equity: Float64[np.ndarray, " run"]) -> Float64[np.ndarray, " run"]:
        """Return the joined equity where the span's own is ``equity``; that of a ruined account stays."""
        return np.where(self.scale > 0, self.scale * equity, self.equity)

    def after(self, equity: Float64[np.ndarray, " run"], rules: AccountRules) -> "_Chain":
        """Return the chain after a span that ended with ``equity``."""
        growth = np.where(equity > rules.floor, equity / rules.deposit, 0.0)
        return _Chain(self.scale * growth, self.at(equity))


def _positions_of(run: TestRun) -> _Positions:
    """Return how long each of our positions was asked for, and with what volume and levels it was opened."""
    table = run.positions.sort("open_step", maintain_order=True)
    opened = table["open_step"].to_numpy()
    inside = (table["reason"] != "ACTION").to_numpy()  # closed inside the bar of its last request
    bars = (table["close_bar"] - table["open_bar"]).to_numpy() + inside
    bars[:-1] = np.minimum(bars[:-1], np.diff(opened))
    request = _openings(run, table)
    request[:, 0] = table["lots"].to_numpy()
    return _Positions(np.maximum(bars, 1).astype(np.int64), request)


def _openings(run: TestRun, positions: pl.DataFrame) -> npt.NDArray[np.float64]:
    """Return volume, target and stop of the request that opened each position, ``(position, 3)``."""
    request = run.executed[positions["open_step"].to_numpy()]
    is_long = (positions["side"] > 0).to_numpy()
    return np.asarray(np.where(is_long[:, None], request[:, :3], request[:, 3:]), np.float64)


def _random_plans(random: np.random.Generator, held: npt.NDArray[np.int64], bars: int, runs: int) -> _Plans:
    """Return plans: positions of the given lengths in random order, the free bars spread uniformly around them."""
    n = len(held)
    position = np.full((bars, runs), -1, np.int32)
    side = (2 * random.integers(0, 2, (runs, n)) - 1).astype(np.int8)
    if n == 0:
        return _Plans(position, side)
    order = random.permuted(np.tile(np.arange(n), (runs, 1)), axis=1)
    length = held[order]
    free = max(0, bars - int(held.sum()))
    cuts = np.sort(random.integers(0, free + 1, (runs, n)), axis=1)
    starts = cuts + np.cumsum(length, axis=1) - length
    ends = np.cumsum(length.ravel())
    inside = np.arange(ends[-1]) - np.repeat(ends - length.ravel(), length.ravel())
    row = np.repeat(starts.ravel(), length.ravel()) + inside
    column = np.repeat(np.repeat(np.arange(runs), n), length.ravel())
    fits = row < bars
    position[row[fits], column[fits]] = np.repeat(order.ravel(), length.ravel())[fits]
    return _Plans(position, side)


def _play(
    accounts: BatchedAccounts, plans: _Plans, positions: _Positions, chain: _Chain
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Step all runs through their plans; returns positions opened, and the low and high equity after each bar."""
    bars, runs = plans.position.shape
    everyone = np.arange(runs)
    opened = np.zeros(runs, bool)  # the position of the plan has been opened
    before = np.full(runs, -1, np.int32)
    trades = np.zeros(runs, np.int64)
    quantiles = np.empty((bars, 2))
    actions = np.zeros((runs, 6))
    ranks = (int(LOW * (runs - 1)), int(np.ceil(HIGH * (runs - 1))))
    state, side = accounts.state, plans.side.copy()
    for bar, now in enumerate(plans.position):
        is_new = now != before
        opened[is_new] = False
        held = np.sign(state.floats[:, STEPS] + state.floats[:, STEPS + POSITION_SIZE])
        planned = np.where(now >= 0, side[everyone, now] if side.shape[1] else 0, 0)
        clash = is_new & (now >= 0) & (held == planned)
        is_short = clash & (positions.bars[now] == 1) if clash.any() else clash
        if is_short.any():
            side[everyone[is_short], now[is_short]] *= -1
            planned = np.where(is_short, -planned, planned)
        asks = (now >= 0) & ~(opened & (held == 0)) & ~(clash & ~is_short)
        actions[:] = 0.0
        for sign, column in ((1, 0), (-1, 3)):
            rows = np.flatnonzero(asks & (planned == sign))
            actions[rows, column : column + 3] = positions.request[now[rows]]
        outcome = accounts.step(actions).outcome
        fresh = asks & ~opened & (outcome == Outcome.FILLED)
        opened |= fresh
        trades += fresh
        before = now
        quantiles[bar] = np.partition(chain.at(state.equity), ranks)[list(ranks)]
    return trades, quantiles


def _constant(
    market: MarketTable, rules: AccountRules, span: Span, action: Sequence[float] = (0.0,) * 6
) -> TestRun:
    """Return the run that asks for the same at every bar."""
    actions = np.tile(np.asarray(action, np.float64), (span.bars, 1))
    return make_test_run(run_actions(market, rules, actions, span.first), actions, market, rules)


def _affordable_lots(rules: AccountRules, market: MarketTable, open_points: float) -> float:
    """Return the volume whose contract value is the deposit, on the instrument's grid."""
    instrument = market.instrument
    steps = rules.deposit // (open_points * instrument.point * instrument.contract_size * instrument.lot_step)
    return min(float(steps * instrument.lot_step), rules.lot_cap)


def _without_levels(rules: AccountRules) -> AccountRules:
    return replace(rules, zero_level="none", volume_unit="lots")


def _typical_opening(run: TestRun) -> tuple[float, float, float]:
    """Return the median volume, target and stop of the requests that opened a position."""
    if run.positions.height == 0:
        return run.lot_min, 1.0, 1.0
    lots, target, stop = np.median(_openings(run, run.positions), axis=0)
    return float(lots), float(target), float(stop)
