"""What doing something simple on the same bars, deposit, rules and costs would have given."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl
from jaxtyping import Float64

from halfstep.backtest.metrics import drawdowns
from halfstep.broker.engine import BatchedAccounts, Run, run_actions
from halfstep.broker.outcomes import Outcome
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import CLOSE, OPEN, MarketTable
from halfstep.experience.seeds import generator

PLAN_NUMBERS = 2**23  # numbers of random plans held in memory at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """One comparison run."""

    name: str
    net: float
    drawdown: float
    """Maximal equity drawdown, account currency."""
    deals: float
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomBand:
    """Random policies with as many positions as ours.

    Attributes:
        nets: of each run, ``(run,)``.
        p: (1 + runs at least as good as ours) / (1 + runs).
    """

    nets: Float64[np.ndarray, " run"]
    p: float


def simple_baselines(
    table: MarketTable, rules: AccountRules, ours: Run, first: int, bars: int
) -> list[Baseline]:
    """Return flat, always long, always short, and buy and hold over the bars that our run was given.

    Always long and always short ask at every bar for the median volume and levels of our own openings, and enter
    again after an exit. Buy and hold buys what the deposit pays for without leverage, once, without levels.
    """
    typical = _typical_opening(ours, table)
    opened, closed = table.values[first + 1, OPEN], table.values[first + bars, CLOSE]
    point = table.instrument.point
    change = f"price {opened * point:.5f} to {closed * point:.5f}, {100 * (closed / opened - 1):+.2f} %"
    asked = f"{typical[0]:.2f} lots, the median of our openings; {change}"
    affordable = max(table.instrument.lot_min, _affordable_lots(rules, table, opened))
    return [
        _baseline("flat", _constant(table, rules, first, bars, None), rules),
        replace(
            _baseline("always long", _constant(table, rules, first, bars, 0, *typical), rules), note=asked
        ),
        replace(
            _baseline("always short", _constant(table, rules, first, bars, 3, *typical), rules), note=asked
        ),
        replace(
            _baseline(
                "buy and hold", _constant(table, _without_levels(rules), first, bars, 0, affordable), rules
            ),
            note=f"{affordable:.2f} lots; {change}",
        ),
    ]


def _constant(
    table: MarketTable, rules: AccountRules, first: int, bars: int, column: int | None, *request: float
) -> Run:
    """Return the run that asks for the same at every bar: volume, target and stop from ``column`` on."""
    plan = np.zeros((bars, 6))
    if column is not None:
        plan[:, column : column + len(request)] = request
    return run_actions(table, rules, plan, first)


def _affordable_lots(rules: AccountRules, table: MarketTable, open_points: float) -> float:
    """Return the volume whose contract value is the deposit, on the instrument's grid."""
    instrument = table.instrument
    steps = rules.deposit // (open_points * instrument.point * instrument.contract_size * instrument.lot_step)
    return min(float(steps * instrument.lot_step), rules.lot_cap)


def random_band(
    table: MarketTable,
    rules: AccountRules,
    positions: pl.DataFrame,
    first: int,
    bars: int,
    net: float,
    *,
    runs: int,
    seed: int,
) -> RandomBand:
    """Play random policies: our positions' volumes and holding times in random order, gaps redrawn, sides by coin.

    Their positions have no stops or targets, because ours ended where theirs are planned to end.
    """
    random = generator(seed, "random baseline")
    held = np.maximum(1, (positions["close_bar"] - positions["open_bar"]).to_numpy()).astype(np.int64)
    lots = positions["lots"].to_numpy().astype(np.float64)
    nets = np.empty(runs)
    chunk = max(1, PLAN_NUMBERS // (6 * bars))
    for begin in range(0, runs, chunk):
        plans = np.stack(
            [_random_plan(random, held, lots, bars) for _ in range(begin, min(begin + chunk, runs))], axis=1
        )
        accounts = BatchedAccounts(table, _without_levels(rules), plans.shape[1])
        accounts.reset(first=first, stop=first + bars)
        for actions in plans:
            accounts.step(actions)
        nets[begin : begin + chunk] = accounts.state.equity - rules.deposit
    return RandomBand(nets=nets, p=float((1 + (nets >= net).sum()) / (1 + runs)))


def _random_plan(
    random: np.random.Generator,
    held: npt.NDArray[np.int64],
    lots: Float64[np.ndarray, " position"],
    bars: int,
) -> Float64[np.ndarray, "bar 6"]:
    """Return positions of the given lengths and volumes in random order, with random gaps and sides."""
    plan = np.zeros((bars, 6))
    n = len(held)
    order = random.permutation(n)
    free = max(0, bars - int(held.sum()) - n)  # a flat bar after each position keeps neighbours apart
    cuts = np.sort(random.integers(0, free + 1, n))
    starts = cuts + np.concatenate([[0], np.cumsum(held[order] + 1)[:-1]]) if n else cuts
    columns = 3 * random.integers(0, 2, n)
    for start, index, column in zip(starts, order, columns, strict=True):
        plan[start : start + held[index], column] = lots[index]
    return plan


def _without_levels(rules: AccountRules) -> AccountRules:
    return replace(rules, zero_level="none", volume_unit="lots")


def _typical_opening(run: Run, table: MarketTable) -> tuple[float, float, float]:
    """Return the median volume, target and stop of the requests that opened a position."""
    before = np.concatenate([[0.0], run.lots[:-1]])
    filled = run.outcome == Outcome.FILLED
    longs = run.executed[filled & (before <= 0) & (run.executed[:, 0] > 0)][:, :3]
    shorts = run.executed[filled & (before >= 0) & (run.executed[:, 3] > 0)][:, 3:]
    openings = np.concatenate([longs, shorts])
    if len(openings) == 0:
        return table.instrument.lot_min, 1.0, 1.0
    lots, target, stop = np.median(openings, axis=0)
    return float(lots), float(target), float(stop)


def _baseline(name: str, run: Run, rules: AccountRules) -> Baseline:
    path = np.concatenate([[rules.deposit], np.stack([run.equity_worst, run.equity], axis=1).ravel()])
    return Baseline(
        name=name,
        net=float(run.equity[-1] - rules.deposit),
        drawdown=drawdowns(path)[1],
        deals=float(run.log.counts[0]),
    )
