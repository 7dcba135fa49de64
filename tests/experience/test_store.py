"""Trajectories are collected repeatably, kept safely and sampled fairly."""

from pathlib import Path

import numpy as np
import pytest

from halfstep.broker.engine import run_actions
from halfstep.broker.rules import AccountRules, rules_hash
from halfstep.broker.table import MarketTable, market_table
from halfstep.errors import MissingInputError, StoreDamagedError, StoreMismatchError
from halfstep.experience.policy import NoisePolicy
from halfstep.experience.research import research
from halfstep.experience.sampling import epoch_order, return_weights, usable_origins
from halfstep.experience.settings import ResearchSettings
from halfstep.experience.store import EpisodeStore, Group, StoreHeader
from halfstep.market.instruments import instrument
from halfstep.market.synthetic import random_bars

RULES = AccountRules(leverage=500.0)
SPAN = (30, 330)


@pytest.fixture(scope="module")
def table() -> MarketTable:
    return market_table(random_bars(400, seed=9), instrument("EURUSD"), RULES)


def header(table: MarketTable) -> StoreHeader:
    return StoreHeader(
        bars_hash=table.bars.hash,
        feature_set="robust9/1",
        rules_hash=rules_hash(RULES, table.instrument),
        symbol="EURUSD",
        discount=0.99,
    )


def collect(folder: Path, table: MarketTable, **settings: object) -> EpisodeStore:
    store = EpisodeStore.create(folder, header(table))
    research(
        table=table, rules=RULES, policy=NoisePolicy(1.0), settings=ResearchSettings(**({"passes": 24, "group": 24, "scripted_share": 0.3} | settings)),  # type: ignore[arg-type]
        store=store, round_number=0, span=SPAN, seed=5,
    )  # fmt: skip
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, table: MarketTable) -> EpisodeStore:
    return collect(tmp_path_factory.mktemp("store"), table)


@pytest.mark.pitfall("R9")
def test_losing_passes_are_kept(store: EpisodeStore) -> None:
    assert len(store) == 24
    final = np.asarray(store.column("account"))[store._account_start + store.length, 0]
    assert (final < RULES.deposit).sum() > 5


@pytest.mark.pitfall("U3")
def test_bytes_per_recorded_bar(store: EpisodeStore) -> None:
    size = sum(path.stat().st_size for path in store.folder.glob("shard-*"))
    assert size / store.length.sum() < 68


def test_noise_does_not_depend_on_the_grouping(
    tmp_path: Path, table: MarketTable, store: EpisodeStore
) -> None:
    other = collect(tmp_path, table, group=7)
    assert len(list(tmp_path.glob("shard-*"))) == 4
    np.testing.assert_array_equal(other.column("action"), store.column("action"))
    np.testing.assert_array_equal(other.column("account"), store.column("account"))


def test_an_interrupted_round_ends_with_the_same_bytes(tmp_path: Path, table: MarketTable) -> None:
    collect(tmp_path / "whole", table, group=8)
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    collect(tmp_path / "cut", table, group=8)
    (tmp_path / "cut" / "shard-r0-g1.safetensors").unlink()
    collect(tmp_path / "cut", table, group=8)
    assert {path.name: path.read_bytes() for path in (tmp_path / "cut").iterdir()} == whole


def test_replaying_stored_actions_reproduces_the_account(store: EpisodeStore, table: MarketTable) -> None:
    account = np.asarray(store.column("account"))
    for episode in range(3):
        start, length = store._account_start[episode], int(store.length[episode])
        actions = np.asarray(store.column("action"), np.float64)[store._start[episode] :][:length]
        run = run_actions(table, RULES, actions, SPAN[0])
        np.testing.assert_allclose(run.equity[:length], account[start + 1 : start + 1 + length, 1], rtol=1e-6)


def test_stored_rewards_add_up(store: EpisodeStore) -> None:
    account, reward = np.asarray(store.column("account"), float), np.asarray(store.column("reward"), float)
    for episode in range(len(store)):
        start, first, length = (
            store._account_start[episode],
            store._start[episode],
            int(store.length[episode]),
        )
        rows = slice(first, first + length)
        gain = (reward[rows, 1] * np.maximum(account[start : start + length, 0], RULES.floor)).sum()
        assert gain == pytest.approx(account[start + length, 1] - RULES.deposit, abs=0.05)


@pytest.mark.pitfall("T33")
@pytest.mark.parametrize("position", [0.1, 0.5, 0.9])
def test_damaged_shard_is_named(tmp_path: Path, table: MarketTable, position: float) -> None:
    collect(tmp_path, table)
    path = next(tmp_path.glob("shard-*"))
    data = bytearray(path.read_bytes())
    data[int(position * len(data))] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(StoreDamagedError, match=path.name):
        EpisodeStore.open(tmp_path)
    path.write_bytes(bytes(data[: len(data) // 2]))
    with pytest.raises(StoreDamagedError, match="not a whole shard"):
        EpisodeStore.open(tmp_path)


def test_foreign_and_absent_stores_are_named(tmp_path: Path, table: MarketTable) -> None:
    collect(tmp_path / "store", table)
    other = StoreHeader(
        bars_hash="x", feature_set="robust9/1", rules_hash="y", symbol="EURUSD", discount=0.99
    )
    with pytest.raises(StoreMismatchError, match="bars_hash"):
        EpisodeStore.open(tmp_path / "store", expect=other)
    with pytest.raises(MissingInputError, match="halfstep research"):
        EpisodeStore.open(tmp_path / "nothing")


@pytest.mark.pitfall("R4")
def test_starts_are_uniform(store: EpisodeStore) -> None:
    episode, step = usable_origins(store, 24, SPAN)
    order = epoch_order(len(episode), seed=1, epoch=0)
    assert sorted(order) == list(range(len(episode)))
    assert not np.array_equal(order, epoch_order(len(episode), seed=1, epoch=1))
    bars = store.first_bar[episode] + step
    assert bars.max() + 24 < SPAN[1]
    quarters = np.bincount((4 * (bars - SPAN[0]) // (bars.max() - SPAN[0] + 1)).astype(int)) / len(bars)
    np.testing.assert_allclose(quarters, 0.25, atol=0.02)


@pytest.mark.pitfall("R7")
def test_time_survives_storage(tmp_path: Path, table: MarketTable) -> None:
    # steps are found in time by their bar: as large as a second of 2024, where float32 has steps of 128
    n, first = 1000, 1_704_067_261
    made = EpisodeStore.create(tmp_path, header(table))
    group = Group(
        first_bar=first, account=np.zeros((1, n + 1, 7), np.float32), action=np.zeros((1, n, 6), np.float32),
        reward=np.zeros((1, n, 3), np.float32), mark=np.zeros((1, n), np.uint8), length=np.array([n]),
        terminated=np.zeros(1, bool), source=np.zeros(1, np.uint8),
    )  # fmt: skip
    made.write("r0-g0", group)
    again = EpisodeStore.open(tmp_path)
    steps = again.gather(np.zeros(n, np.int64), np.arange(n))
    assert again.first_bar[0] == first
    np.testing.assert_array_equal(steps.bar, first + np.arange(n))
    assert steps.bar.dtype == np.int64


def test_gathered_rewards_stop_at_the_end(store: EpisodeStore) -> None:
    last = store.length[:4] - 2
    steps = store.gather(np.arange(4), last, horizon=5)
    assert (steps.reward[:, 2:] == 0).all()
    np.testing.assert_array_equal(steps.bar, store.first_bar[:4] + last)
    first = store.gather(np.arange(4), np.zeros(4, np.int64))
    np.testing.assert_array_equal(first.now, first.previous)


def test_sampling_weights_golden() -> None:
    np.testing.assert_allclose(
        return_weights(np.array([0.0, 1, 2, 3, 10])),
        [0.021558, 0.047214, 0.078104, 0.115542, 0.737581],
        atol=5e-7,
    )
    np.testing.assert_allclose(
        return_weights(np.array([-3.0, -1, 2])), [0.001149, 0.047448, 0.951404], atol=5e-7
    )
    np.testing.assert_allclose(return_weights(np.zeros(3)), 1 / 3)
