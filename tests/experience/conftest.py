"""A small made-up market, and a store of trajectories over it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from halfstep.broker.table import MarketTable, market_table
from halfstep.experience.policy import NoisePolicy
from halfstep.experience.research import research
from halfstep.experience.settings import ResearchSettings
from halfstep.experience.store import EpisodeStore
from halfstep.market.instruments import instrument
from halfstep.market.synthetic import random_bars

from .made import RULES, SPAN, store_header

Collect = Callable[..., EpisodeStore]


@pytest.fixture(scope="session")
def table() -> MarketTable:
    return market_table(random_bars(400, seed=9), instrument("EURUSD"), RULES)


@pytest.fixture(scope="session")
def collect(table: MarketTable) -> Collect:
    def collected(folder: Path, **settings: object) -> EpisodeStore:
        store = EpisodeStore.create(folder, store_header(table.bars), table.bars)
        values = {"passes": 24, "group": 24, "scripted_share": 0.3} | settings
        research(
            table=table, rules=RULES, policy=NoisePolicy(1.0), settings=ResearchSettings(**values),  # type: ignore[arg-type]
            store=store, round_number=0, span=SPAN, seed=5,
        )  # fmt: skip
        return store

    return collected


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, collect: Collect) -> EpisodeStore:
    return collect(tmp_path_factory.mktemp("store"))
