"""Trajectories are kept safely: bit-equal, checked, bounded, and never in memory as a whole."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from halfstep.broker.engine import run_actions
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable
from halfstep.errors import MissingInputError, StoreDamagedError, StoreError, StoreMismatchError
from halfstep.experience.episode import STEP, Group
from halfstep.experience.shard import FACTS, RowReader, Shard, sealed
from halfstep.experience.store import EpisodeStore
from halfstep.market.bars import Bars
from halfstep.market.synthetic import random_bars
from halfstep.market.timeframes import Timeframe

from .conftest import Collect
from .made import RULES, SPAN, random_group, store_header

BARS = random_bars(3100, seed=2)
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def made(folder: Path, bars: Bars = BARS, **header: object) -> EpisodeStore:
    return EpisodeStore.create(folder, store_header(bars, **header), bars)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    return made(tmp_path_factory.mktemp("empty"))


@pytest.mark.pitfall("R9")
def test_losing_passes_are_kept(tmp_path: Path, store: EpisodeStore) -> None:
    assert len(store) == 24
    assert (store.final_equity < RULES.deposit).sum() > 5
    three = made(tmp_path)
    three.write("r0-g0", random_group([9, 9, 9], final_equity=np.array([10_050.0, 10_000.0, 9_950.0])))
    assert three.bound() == 0
    assert EpisodeStore.open(tmp_path).final_equity.tolist() == [10_050, 10_000, 9_950]


@given(
    lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=4),
    seed=st.integers(0, 2**32),
    odd=st.lists(FLOAT32, min_size=1, max_size=50),
    first_bar=st.integers(0, 90),
)
@settings(max_examples=25)
def test_store_round_trip(
    empty: EpisodeStore, lengths: list[int], seed: int, odd: list[float], first_bar: int
) -> None:
    group = random_group(lengths, draw=seed, first_bar=first_bar)
    for array in (group.account, group.action, group.reward):
        array.flat[: len(odd)] = odd[: array.size]
        array.flat[-1] = np.float32(1e-45)  # the least subnormal number
    empty.write("r0-g0", group)
    read = EpisodeStore.open(empty.folder, expect=empty.header)
    for path, length in enumerate(lengths):
        episode = read.read(path)
        assert episode.account.tobytes() == group.account[path, : length + 1].tobytes()
        for name in ("action", "reward", "mark"):
            assert getattr(episode, name).tobytes() == getattr(group, name)[path, :length].tobytes()
        np.testing.assert_array_equal(episode.bar, first_bar + np.arange(length))
    for name in ("length", "first_bar", "seed", "trades", "terminated", "initial_balance", "final_equity"):
        assert (
            getattr(read, name).tobytes() == getattr(group, name).tobytes() == getattr(empty, name).tobytes()
        )
    assert read.policy == group.policy
    assert (read.source == 0).all()


def test_facts_are_those_of_the_steps(store: EpisodeStore) -> None:
    for number, episode in enumerate(store.episodes()):
        weights = np.array([0.99**k for k in range(len(episode.bar))])
        reward = episode.reward.astype(np.float64)
        np.testing.assert_allclose(store.discounted_return[number], weights @ reward, rtol=1e-12)
        np.testing.assert_allclose(store.reward_sum[number], reward.sum(axis=0), rtol=1e-9, atol=1e-15)
        np.testing.assert_array_equal(store.last_account[number], episode.account[-1])
        assert np.float32(store.final_equity[number]) == episode.account[-1, 1]
        assert store.trades[number] >= (np.diff(episode.account[:, 2]) != 0).sum() // 2
    assert set(store.policy) >= {"noise"}
    assert store.zero_levels == {"reject"}


def test_a_shard_is_a_safetensors_file(store: EpisodeStore) -> None:
    arrays = load_file(next(store.folder.glob("shard-*")))
    assert set(arrays) == {*FACTS, "step"}
    rows = arrays["step"].view(STEP)[:, 0]
    offset, length = int(arrays["offset"][3]), int(arrays["length"][3])
    np.testing.assert_array_equal(rows["action"][offset : offset + length], store.read(3).action)


def test_noise_does_not_depend_on_the_grouping(tmp_path: Path, collect: Collect, store: EpisodeStore) -> None:
    other = collect(tmp_path, group=7)
    assert len(list(tmp_path.glob("shard-*"))) == 4
    np.testing.assert_array_equal(other.column("action"), store.column("action"))
    np.testing.assert_array_equal(other.column("account"), store.column("account"))


def test_an_interrupted_round_ends_with_the_same_bytes(tmp_path: Path, collect: Collect) -> None:
    collect(tmp_path / "whole", group=8)
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    collect(tmp_path / "cut", group=8)
    (tmp_path / "cut" / "shard-r0-g1.safetensors").unlink()
    collect(tmp_path / "cut", group=8)
    assert {path.name: path.read_bytes() for path in (tmp_path / "cut").iterdir()} == whole


@pytest.mark.pitfall("U15")
def test_an_interrupted_write_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = made(tmp_path)
    store.write("r0-g0", random_group([50, 60]))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    calls = iter([None])
    rows = Group.rows

    def fails_in_the_middle(group: Group, path: int) -> Any:
        if next(calls, "stop") == "stop":
            raise OSError(28, "No space left on device")
        return rows(group, path)

    monkeypatch.setattr(Group, "rows", fails_in_the_middle)
    with pytest.raises(OSError, match="No space"):
        store.write("r0-g0", random_group([70, 80]))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert EpisodeStore.open(tmp_path).length.tolist() == [50, 60]


def test_stored_rewards_add_up(store: EpisodeStore, table: MarketTable) -> None:
    floor = RULES.floor
    for number, episode in enumerate(store.episodes()):
        balance, equity = episode.account[:-1, 0].astype(float), episode.account[:-1, 1].astype(float)
        change = episode.reward[:, 1].astype(float) * np.maximum(balance, floor)
        grown = np.log1p(
            (np.maximum(equity + change, floor) - np.maximum(equity, floor)) / np.maximum(equity, floor)
        )
        final = np.log(max(store.final_equity[number], floor) / store.initial_balance[number])
        assert grown.sum() == pytest.approx(final, abs=1e-5)
        run = run_actions(table, RULES, episode.action.astype(float), SPAN[0])
        np.testing.assert_allclose(run.equity, episode.account[1:, 1], rtol=1e-6)
        np.testing.assert_allclose(run.balance, episode.account[1:, 0], rtol=1e-6)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


@pytest.mark.pitfall("U3", "T33")
def test_damaged_shard_is_named(tmp_path: Path) -> None:
    made(tmp_path).write("r0-g0", random_group([3, 5]))
    path = tmp_path / "shard-r0-g0.safetensors"
    whole = path.read_bytes()
    for at in range(0, len(whole), 23):  # every array and the header
        flip(path, at)
        with pytest.raises(StoreDamagedError, match=path.name):
            EpisodeStore.open(tmp_path)
        path.write_bytes(whole)
    for cut in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(StoreDamagedError, match=rf"{path.name}: length: {cut} bytes"):
            EpisodeStore.open(tmp_path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(StoreDamagedError, match="length"):
        EpisodeStore.open(tmp_path)


@pytest.mark.pitfall("T33")
def test_foreign_files_are_refused(tmp_path: Path) -> None:
    made(tmp_path / "other", discount=0.9).write("r0-g0", random_group([4]))
    made(tmp_path / "store")
    path = tmp_path / "store" / "shard-r0-g0.safetensors"
    path.write_bytes((tmp_path / "other" / path.name).read_bytes())
    with pytest.raises(StoreDamagedError, match="another store"):
        EpisodeStore.open(tmp_path / "store")
    path.write_bytes(pickle.dumps(list(range(1000))))
    with pytest.raises(StoreDamagedError, match=f"{path.name}: length"):
        EpisodeStore.open(tmp_path / "store")
    text = json.dumps({"__metadata__": {"halfstep": json.dumps({"format": "halfstep-store/2"})}}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(StoreDamagedError, match=r"halfstep-store/2.*Install a newer"):
        EpisodeStore.open(tmp_path / "store")
    path.write_bytes(path.read_bytes().replace(b"halfstep-store/2", b"safetensors-file"))
    with pytest.raises(StoreDamagedError, match="magic"):
        EpisodeStore.open(tmp_path / "store")


def test_damaged_headers_and_bars_are_named(tmp_path: Path) -> None:
    made(tmp_path).write("r0-g0", random_group([3]))
    for name in ("header.json", "bars.parquet"):
        path = tmp_path / name
        whole = path.read_bytes()
        for at in range(0, len(whole), len(whole) // 40):
            flip(path, at)
            with pytest.raises(StoreDamagedError, match=name):
                EpisodeStore.open(tmp_path)
            path.write_bytes(whole)
    values = json.loads((tmp_path / "header.json").read_text())
    text = json.dumps(values | {"format": "halfstep-store/7", "checksum": "0" * 64})
    (tmp_path / "header.json").write_text(sealed(text))
    with pytest.raises(StoreDamagedError, match="Install a newer halfstep"):
        EpisodeStore.open(tmp_path)


def test_damaged_shards_can_be_left_out(tmp_path: Path) -> None:
    store = made(tmp_path)
    for number in range(3):
        store.write(f"r0-g{number}", random_group([number + 1], draw=number))
    flip(tmp_path / "shard-r0-g1.safetensors", -10)
    rest = EpisodeStore.open(tmp_path, drop_damaged=True)
    assert rest.length.tolist() == [1, 3]
    assert len(rest.damaged) == 1
    assert "shard-r0-g1.safetensors: checksum" in rest.damaged[0]
    assert (tmp_path / "shard-r0-g1.safetensors").exists()


def test_foreign_and_absent_stores_are_named(tmp_path: Path) -> None:
    store = made(tmp_path / "store")
    other = random_bars(300, seed=5)
    with pytest.raises(StoreMismatchError, match=f"bars_hash '{BARS.hash}', wanted '{other.hash}'"):
        EpisodeStore.open(tmp_path / "store", expect=store_header(other))
    rules = AccountRules(leverage=30.0, idle_lots=1.0)
    wanted = store_header(BARS, rules=rules)
    with pytest.raises(StoreMismatchError) as caught:
        EpisodeStore.create(tmp_path / "store", wanted, BARS)
    for part in (
        store.header.rules_hash,
        wanted.rules_hash,
        "leverage 500.0, wanted 30.0",
        "idle_lots 0.0, wanted 1.0",
    ):
        assert part in str(caught.value)
    with pytest.raises(StoreMismatchError, match="feature_set 'robust9/1', wanted 'published9/1'"):
        EpisodeStore.open(tmp_path / "store", expect=store_header(BARS, feature_set="published9/1"))
    converted = store_header(BARS, other_bars={"profit_rate": other})
    with pytest.raises(
        StoreMismatchError, match=f"other_bars {{}}, wanted {{'profit_rate': '{other.hash}'}}"
    ):
        EpisodeStore.open(tmp_path / "store", expect=converted)
    EpisodeStore.create(tmp_path / "converted", converted, BARS)
    assert EpisodeStore.open(tmp_path / "converted", expect=converted).header == converted
    with pytest.raises(StoreMismatchError, match=r"StoreHeader\.of"):
        EpisodeStore.create(tmp_path / "new", store_header(BARS), other)
    with pytest.raises(MissingInputError, match="halfstep research"):
        EpisodeStore.open(tmp_path / "nothing")


def test_signals_and_policies_share_a_store(tmp_path: Path) -> None:
    store = made(tmp_path)
    store.write("r0-g0", random_group([4]))
    without = store_header(BARS, rules=AccountRules(leverage=500.0, zero_level="none"))
    same = EpisodeStore.open(tmp_path, expect=without)
    same.write("s0-g0", random_group([6], source=("signal",), zero_level="none"))
    both = EpisodeStore.open(tmp_path)
    assert both.zero_levels == {"reject", "none"}
    assert both.length.tolist() == [4, 6]
    assert both.up_to(0).length.tolist() == [6]


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        ({"first_bar": np.array([3090])}, "bars 3090 to 3110, must lie in 0 to 3099"),
        ({"first_bar": np.array([-1])}, "bars -1"),
        ({"source": ("guess",)}, "source 'guess', must be one of policy, noise, scripted, signal, imported"),
        ({"length": np.array([0])}, r"lengths \[0\]"),
        ({"seed": np.zeros(2, np.int64)}, r"seed has shape \(2,\)"),
        ({"final_equity": np.array([np.nan])}, "final_equity is not finite"),
        ({"reward": np.full((1, 20, 3), np.inf, np.float32)}, "reward is not finite"),
    ],
)
def test_wrong_groups_are_refused(tmp_path: Path, facts: dict[str, Any], what: str) -> None:
    store = made(tmp_path)
    with pytest.raises(StoreError, match=what):
        store.write("r0-g0", random_group([20], **facts))
    with pytest.raises(StoreError, match="r0-g0"):
        store.write("mine", random_group([20]))
    assert not list(tmp_path.glob("*shard*"))


@pytest.mark.pitfall("U3")
def test_bytes_per_recorded_bar(tmp_path: Path) -> None:
    store = made(tmp_path, random_bars(6300, seed=1))
    group = random_group([6200] * 10)
    for number in range(3):
        store.write(f"r0-g{number}", group)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    shards = sum(size for name, size in sizes.items() if name.startswith("shard"))
    assert STEP.itemsize == 65
    assert shards / store.steps < 65.1
    assert len(sizes) == 5  # three shards, the header, the bars once
    # 500 year-runs: 3.1 million steps of 65 bytes beside one table
    assert (shards / 30 * 500 + sizes["bars.parquet"] + sizes["header.json"]) / (500 * 6200) < 68


@pytest.mark.pitfall("U3")
def test_large_stores(tmp_path: Path) -> None:
    rows, path = 70_000_000, tmp_path / "shard-r0-g0.safetensors"  # 4.55 GB, nearly all of it a hole
    wanted = np.zeros(3, STEP)
    wanted["action"] = np.arange(18).reshape(3, 6)
    begin = 66_100_000  # beyond 2^32 bytes
    with path.open("wb") as stream:
        stream.truncate(1000 + rows * STEP.itemsize)
        stream.seek(1000 + begin * STEP.itemsize)
        stream.write(wanted.tobytes())
    status = path.stat()
    identity = (status.st_size, status.st_mtime_ns, status.st_ino)
    shard = Shard(
        path=path, rows_at=1000, facts={}, policies=(), zero_level="reject", left_out=0, identity=identity
    )
    read = RowReader([shard]).read(np.zeros(2, np.int64), np.array([begin - 1, begin + 1]), 2)
    assert begin * STEP.itemsize > 2**32
    np.testing.assert_array_equal(read["action"][:, 1], wanted["action"][[0, 2]])
    assert (read["action"][0, 0] == 0).all()


def test_a_file_that_changes_under_a_reader_is_named(tmp_path: Path) -> None:
    store = made(tmp_path)
    store.write("r0-g0", random_group([30]))
    again = EpisodeStore.open(tmp_path)
    store.write("r0-g0", random_group([40]))
    with pytest.raises(StoreDamagedError, match=r"r0-g0.* changed since"):
        again.read(0)
    assert store.read(0).bar[-1] == 5 + 39


@pytest.mark.pitfall("R7")
def test_time_survives_storage(tmp_path: Path) -> None:
    n = 1000  # minutes from one second after 2024-01-01 00:01, where float32 has steps of 128 seconds
    time = 1_704_067_261 + 60 * np.arange(n + 1)
    price = np.full(n + 1, 1.1)
    bars = Bars(
        time=time, open=price, high=price, low=price, close=price, volume=price, spread=np.full(n + 1, 1),
        symbol="EURUSD", timeframe=Timeframe.M1, digits=5,
    )  # fmt: skip
    made(tmp_path, bars).write("r0-g0", random_group([n], first_bar=0))
    store = EpisodeStore.open(tmp_path)
    stamps = store.bars().time[store.gather(np.zeros(n, np.int64), np.arange(n)).bar]
    assert stamps.dtype == np.int64
    assert stamps[0] == 1_704_067_261
    assert len(np.unique(stamps)) == n
    assert int(stamps.astype(np.float32)[0]) == 1_704_067_200  # what the defect gives
    assert len(np.unique((stamps - 61).astype(np.float32))) == 469


def test_gathered_steps_are_those_of_their_episode(tmp_path: Path) -> None:
    store = made(tmp_path)
    lengths = [1, 2, 7, 30, 3, 11]
    group = random_group(lengths)
    store.write("r0-g0", random_group([5, 4], draw=7))
    store.write("r0-g1", group)
    for horizon in (1, 3, 24, 100):
        pairs = [(e, k) for e, length in enumerate(lengths) for k in range(length + 1)]
        episode, step = np.array(pairs).T
        found = store.gather(episode + 2, step, horizon=horizon)
        for row, (e, k) in enumerate(pairs):
            count = min(horizon, lengths[e] - k)
            account = group.account[e]
            expected = np.zeros((horizon, 3), np.float32)
            expected[:count] = group.reward[e, k : k + count]
            np.testing.assert_array_equal(found.reward[row], expected)
            np.testing.assert_array_equal(found.now[row], account[k])
            np.testing.assert_array_equal(found.previous[row], account[max(k - 1, 0)])
            np.testing.assert_array_equal(found.after[row], account[k + count])
            np.testing.assert_array_equal(found.after_previous[row], account[max(k + count - 1, 0)])
            np.testing.assert_array_equal(found.action[row], group.action[e, k] if count else np.zeros(6))
            assert found.bar[row] == 5 + k
            assert found.count[row] == count
            assert found.terminated[row] == (group.terminated[e] and k + horizon >= lengths[e])


@pytest.mark.pitfall("T18")
def test_no_stored_transition_spans_a_reset(store: EpisodeStore) -> None:
    last = store.length[:4] - 1
    steps = store.gather(np.arange(4), last, horizon=5)
    assert (steps.reward[:, 1:] == 0).all()
    np.testing.assert_array_equal(steps.after, store.last_account[:4])
    np.testing.assert_array_equal(steps.terminated, store.terminated[:4])
    assert (steps.count == 1).all()


def test_a_store_can_be_sent_to_another_process(store: EpisodeStore) -> None:
    store.read(0)
    sent = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(sent.read(5).action, store.read(5).action)
