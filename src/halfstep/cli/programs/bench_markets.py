"""Made-up markets, stores and runs that benchmarks measure on. No network: what measures memory loads no torch."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from halfstep.backtest.run import TestRun, make_test_run
from halfstep.broker.engine import run_actions
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable, market_table
from halfstep.experience.episode import Group
from halfstep.experience.store import EpisodeStore, StoreHeader
from halfstep.market.instruments import instrument
from halfstep.market.synthetic import random_bars

Actions = npt.NDArray[np.float64]

EURUSD = instrument("EURUSD")


def market(bars: int, rules: AccountRules) -> MarketTable:
    """Return made-up hourly bars as the engine reads them: so many, and a few more to begin and end with."""
    return market_table(random_bars(bars + 20, seed=1), EURUSD, rules)


def actions_of(bars: int, positions: int) -> Actions:
    """Return actions that open so many positions, half of the time in the market, sides by a coin."""
    rng = np.random.default_rng(0)
    hold = bars // (2 * positions)
    side = np.repeat(
        np.stack([rng.integers(1, 3, positions), np.zeros(positions, int)], axis=1).ravel(), hold
    )
    actions = np.zeros((bars, 6))
    actions[: len(side)][side == 1, :3] = (0.01, 1.0, 1.0)
    actions[: len(side)][side == 2, 3:] = (0.01, 1.0, 1.0)
    return actions


def traded(table: MarketTable, rules: AccountRules, bars: int, positions: int) -> TestRun:
    """Return a run over the first bars of a table, with so many positions."""
    actions = actions_of(bars, positions)
    return make_test_run(run_actions(table, rules, actions, 10), actions, table, rules)


def empty_store(folder: Path, table: MarketTable, rules: AccountRules) -> EpisodeStore:
    """Return a new store of trajectories for a market."""
    header = StoreHeader.of(
        table.bars, feature_set="robust9/1", rules=rules, instrument=table.instrument, discount=0.99
    )
    return EpisodeStore.create(folder, header, table.bars)


def random_group(passes: int, length: int) -> Group:
    """Return passes full of random numbers."""
    random = np.random.default_rng(0)
    return Group(
        first_bar=np.full(passes, 20), account=random.random((passes, length + 1, 7), np.float32),
        action=random.random((passes, length, 6), np.float32), reward=random.random((passes, length, 3), np.float32),
        mark=np.zeros((passes, length), np.uint8), length=np.full(passes, length), terminated=np.zeros(passes, np.bool_),
        source=("noise",) * passes, seed=np.arange(passes), policy=("noise",) * passes,
        initial_balance=np.full(passes, 1e4), final_equity=np.full(passes, 1e4), trades=np.zeros(passes, np.int64),
    )  # fmt: skip
