"""Training sees every usable step once per epoch, in an order that depends on nothing but its seed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halfstep.errors import StoreError
from halfstep.experience.sampling import (
    Shuffled,
    episode_returns,
    epoch_order,
    return_weights,
    uniform_rows,
    usable_origins,
    weighted_rows,
)
from halfstep.experience.store import EpisodeStore
from halfstep.market.synthetic import random_bars

from .made import SPAN, random_group, store_header

BARS = random_bars(700, seed=2)


def store_of(folder: Path, lengths: list[int], first_bar: list[int], terminated: list[bool]) -> EpisodeStore:
    store = EpisodeStore.create(folder, store_header(BARS), BARS)
    store.write(
        "r0-g0", random_group(lengths, first_bar=np.array(first_bar), terminated=np.array(terminated))
    )
    return store


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    return EpisodeStore.create(tmp_path_factory.mktemp("empty"), store_header(BARS), BARS)


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    horizon=st.integers(1, 30),
    begin=st.integers(0, 60),
    size=st.integers(1, 80),
    bootstrap=st.booleans(),
    data=st.data(),
)
def test_usable_origins_read_nothing_outside_the_span(
    empty: EpisodeStore,
    lengths: list[int], horizon: int, begin: int, size: int, bootstrap: bool, data: st.DataObject,
) -> None:  # fmt: skip
    n = len(lengths)
    first = data.draw(st.lists(st.integers(0, 60), min_size=n, max_size=n))
    terminated = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    store, facts = empty, {"first_bar": np.array(first), "terminated": np.array(terminated)}
    store.write("r0-g0", random_group(lengths, **facts))  # type: ignore[arg-type]
    span = (begin, begin + size)
    expected = [
        (e, k)
        for e in range(n)
        for k in range(lengths[e])
        if span[0] <= first[e] + k  # the decision
        and first[e] + min(k + horizon, lengths[e]) < span[1]  # the bar of the last account it reads
        and (bootstrap or terminated[e] or k + horizon <= lengths[e])  # the sum is whole
    ]
    if not expected:
        with pytest.raises(StoreError, match=rf"episodes by source: {n} policy; no step"):
            usable_origins(store, horizon, span, bootstrap=bootstrap)
        return
    origins = usable_origins(store, horizon, span, bootstrap=bootstrap)
    assert len(origins) == len(expected)
    episode, step = origins.at(np.arange(len(origins)))
    assert list(zip(episode.tolist(), step.tolist(), strict=True)) == expected


@pytest.mark.pitfall("R4")
@pytest.mark.parametrize("size", [61, 256, 100_000])
def test_every_origin_once(store: EpisodeStore, size: int) -> None:
    origins = usable_origins(store, 24, SPAN)
    n = len(origins)
    batches = -(-2 * n // size)
    rows = np.concatenate([uniform_rows(n, k, size, seed=3) for k in range(batches)])
    for epoch in range(2):
        episode, step = origins.at(rows[epoch * n : (epoch + 1) * n])
        assert len({*zip(episode.tolist(), step.tolist(), strict=True)}) == n
        assert (store.first_bar[episode] + step + 24 < SPAN[1]).all()
        assert (store.first_bar[episode] + step >= SPAN[0]).all()
    assert not np.array_equal(rows[:n], rows[n : 2 * n])
    np.testing.assert_array_equal(rows[:n], epoch_order(n, seed=3, epoch=0)[:])


@pytest.mark.pitfall("R4")
def test_starts_are_uniform(tmp_path: Path) -> None:
    store = store_of(tmp_path, [600] * 40, [20] * 40, [False] * 40)
    origins = usable_origins(store, 24, (0, 700))
    rows = np.concatenate([uniform_rows(len(origins), k, 1000, seed=1) for k in range(100)])
    bars = store.first_bar[0] + origins.at(rows)[1]
    quarters = np.bincount(4 * (bars - 20) // 577, minlength=4) / len(bars)
    np.testing.assert_allclose(quarters, 0.25, atol=0.01)  # not 0.597 and 0.034
    single = np.concatenate([uniform_rows(len(origins), k, 256, seed=s) for s in range(4) for k in range(3)])
    quarters = np.bincount(4 * (origins.at(single)[1]) // 577, minlength=4) / len(single)
    np.testing.assert_allclose(quarters, 0.25, atol=0.04)  # also inside an epoch


@settings(max_examples=50)
@given(st.integers(1, 3000), st.integers(0, 2**63))
def test_an_order_is_a_permutation(n: int, seed: int) -> None:
    order = Shuffled(n, np.random.default_rng(seed))
    assert sorted(order[:].tolist()) == list(range(n))
    assert order[n // 2 :].tolist() == order[np.arange(n // 2, n)].tolist()


def test_an_order_is_as_good_as_random() -> None:
    n, repeats = 1000, 400
    orders = np.stack([epoch_order(n, seed=1, epoch=epoch)[:] for epoch in range(repeats)])
    # chi-square of (place in tenths, value in tenths): 100 cells of 4,000, 81 degrees of freedom, deviation 12.7
    place = np.broadcast_to(np.arange(n) // 100, orders.shape)
    cells = np.bincount((10 * place + orders // 100).ravel(), minlength=100)
    assert ((cells - repeats * 10) ** 2 / (repeats * 10)).sum() < 81 + 5 * 12.7
    # neighbours in the order do not know each other: correlation of n * repeats pairs, deviation 0.0016
    centred = orders - orders.mean()
    assert abs((centred[:, 1:] * centred[:, :-1]).mean() / centred.var() + 1 / n) < 0.008
    # the same place in successive epochs neither
    assert abs((centred[1:] * centred[:-1]).mean() / centred.var()) < 0.008
    # fixed points of a random permutation: 1 on average
    assert abs((orders == np.arange(n)).sum() / repeats - 1) < 0.25


def test_an_order_needs_no_memory() -> None:
    order = epoch_order(62_000_000, seed=1, epoch=0)
    rows = order[np.arange(200_000)]
    assert len(np.unique(rows)) == len(rows)
    assert rows.max() > 61_990_000
    assert rows.min() >= 0
    far = epoch_order(3 * 2**40, seed=1, epoch=0)[np.arange(10_000)]
    assert far.max() > 2**41
    assert far.min() >= 0


def test_weighted_draws_follow_weights_and_are_uniform_inside(tmp_path: Path) -> None:
    store = store_of(tmp_path, [50, 20, 80], [0, 0, 0], [True, True, True])
    origins = usable_origins(store, 1, (0, 700))
    rows = weighted_rows(origins, np.array([0.2, 0.7, 0.1]), 200_000, np.random.default_rng(1))
    episode, step = origins.at(rows)
    np.testing.assert_allclose(np.bincount(episode) / len(rows), [0.2, 0.7, 0.1], atol=0.005)
    for number, length in enumerate([50, 20, 80]):
        inside = np.bincount(step[episode == number], minlength=length)
        np.testing.assert_allclose(inside / inside.sum(), 1 / length, rtol=0.25)
    # an episode without origins is never drawn
    late = usable_origins(store, 1, (30, 700))
    drawn, _ = late.at(weighted_rows(late, np.array([0.2, 0.7, 0.1]), 1000, np.random.default_rng(1)))
    assert set(drawn.tolist()) == {0, 2}


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
    np.testing.assert_allclose(return_weights(np.array([5.0, 5.0])), 1 / 2)
    with pytest.raises(StoreError, match="not finite"):
        return_weights(np.array([1.0, np.nan]))


def test_returns_with_another_discount_are_computed_anew(store: EpisodeStore) -> None:
    assert episode_returns(store, 0.99) is store.discounted_return
    again = episode_returns(store, 0.5)
    reward = store.read(2).reward.astype(float)
    np.testing.assert_allclose(again[2], (0.5 ** np.arange(len(reward))) @ reward)
