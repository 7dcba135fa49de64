"""What a store forgets: nothing below its bound, then the oldest; every removal is on record."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halfstep.experience.episode import SOURCES
from halfstep.experience.retention import all_kept, published_kept
from halfstep.experience.store import EpisodeStore
from halfstep.market.synthetic import random_bars

from .conftest import Collect
from .made import random_group, store_header

BARS = random_bars(60, seed=3)
POLICY, NOISE, SCRIPTED, SIGNAL, IMPORTED = range(5)


def codes(*names: int) -> np.ndarray:
    return np.array(names, np.uint8)


@given(st.lists(st.integers(0, 4), max_size=40), st.integers(0, 45))
@settings(max_examples=100)
def test_signals_stay_and_the_oldest_go_first(source: list[int], most: int) -> None:
    kept = all_kept(codes(*source), most)
    signals = source.count(SIGNAL)
    assert kept.sum() == max(min(len(source), most), signals)
    assert kept[codes(*source) == SIGNAL].all()
    free = np.isin(source, (POLICY, NOISE))
    gone = np.flatnonzero(~kept & free)
    assert not len(gone) or not (kept & free)[: gone.max() + 1].any()  # only the youngest are left
    if (kept & free).any():
        assert kept[~free].all()  # scripts and imports go after all policies and noise


def test_published_bound_by_hand() -> None:
    source = codes(POLICY, POLICY, NOISE, SIGNAL, SIGNAL, SIGNAL, POLICY, POLICY)
    profit = np.array([9.99, 10.0, -50.0, -10_000.0, 0.0, -10_001.0, 30.0, 20.0])
    kept = published_kept(source, profit, 10_000 + profit)
    assert kept.tolist() == [False, True, False, True, False, False, True, True]
    # with room for two: the signal of 0 enters beside 10,010, then 10,030 replaces it, 10,020 replaces 10,010
    assert np.flatnonzero(published_kept(source, profit, 10_000 + profit, most=2)).tolist() == [6, 7]
    equal = published_kept(codes(0, 0, 0), np.full(3, 10.0), np.full(3, 10_010.0), most=2)
    assert equal.tolist() == [False, True, True]  # not smaller is enough


def filled(folder: Path) -> EpisodeStore:
    store = EpisodeStore.create(folder, store_header(BARS), BARS)
    names = [("policy", "scripted", "noise"), ("noise", "policy", "policy"), ("signal", "policy", "policy")]
    for number, source in enumerate(names):
        equity = 10_000 + np.array([50.0, -50.0, 20.0]) + number
        group = random_group([3 + number, 4, 5], draw=number, source=source, final_equity=equity)
        store.write(f"r0-g{number}", group)
    return store


@pytest.mark.parametrize("most", [9, 8, 6, 4, 3, 1])
def test_a_bound_removes_episodes_and_nothing_else(tmp_path: Path, most: int) -> None:
    store = filled(tmp_path)
    kept = all_kept(store.source, most)
    expected = [store.read(k) for k in np.flatnonzero(kept).tolist()]
    facts = {name: getattr(store, name)[kept].copy() for name in ("seed", "trades", "final_equity", "source")}
    removed = store.bound(max_episodes=most)
    assert removed == (~kept).sum() == store.dropped
    for again in (store, EpisodeStore.open(tmp_path)):
        assert len(again) == len(expected)
        for number, episode in enumerate(expected):
            np.testing.assert_array_equal(again.read(number).account, episode.account)
            np.testing.assert_array_equal(again.read(number).mark, episode.mark)
        for name, values in facts.items():
            np.testing.assert_array_equal(getattr(again, name), values)
        assert again.dropped == removed
        assert all(again.finished(f"r0-g{number}") for number in range(3))
        assert again.bound(max_episodes=most) == 0
    if removed:
        record = json.loads((tmp_path / "dropped.json").read_text())
        assert sum(record["emptied"].values()) + sum(record["rewritten"].values()) == removed


def test_an_interrupted_bound_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(tmp_path)
    unlink = Path.unlink

    def interrupted(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith("shard-"):
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.bound(max_episodes=1)
    monkeypatch.undo()
    rest = EpisodeStore.open(tmp_path)  # emptied shards are on record, whether or not their files are gone
    assert rest.source.tolist() == [SOURCES.index("signal")]
    assert rest.dropped == 8
    assert rest.bound(max_episodes=1) == 0


def test_published_bound_of_a_store(tmp_path: Path) -> None:
    store = filled(tmp_path)
    assert store.bound(keep="published") == 3
    assert (store.final_equity >= 10_010).all()
    assert len(store) == 6


def test_a_round_ends_within_the_bound(tmp_path: Path, collect: Collect) -> None:
    collect(tmp_path, group=6, max_episodes=15)
    rest = EpisodeStore.open(tmp_path)
    assert (len(rest), rest.dropped) == (15, 9)
    again = collect(
        tmp_path, group=6, max_episodes=15
    )  # the groups are done, whether or not their episodes are left
    assert (len(again), again.dropped) == (15, 9)
