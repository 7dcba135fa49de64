"""Batches of stored steps: what they hold, in which order, what follows a step, at both kinds of ends."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from halfstep.experience.episode import Group
from halfstep.experience.store import EpisodeStore
from halfstep.training.samples import (
    Batches,
    account_vectors,
    accounts_ahead,
    at_rows,
    learning_reward,
    reward_scale,
)
from halfstep.training.settings import StudySettings
from halfstep.training.targets import bootstrapped

from .conftest import TRAIN, World

SETTINGS = StudySettings(updates=30, batch=32)


def test_equity_is_learnt_as_log_growth() -> None:
    reward = np.array([[0.01, 0.01, -0.002], [0.01, 0.01, 0.0], [-0.5, -2.0, 0.0]], np.float32)
    balance, equity = np.array([10_000.0, 10_000.0, 10_000.0]), np.array([10_000.0, 8_000.0, 9_000.0])
    learnt = learning_reward(reward, balance, equity, 100.0)
    assert learnt[0].tolist() == pytest.approx([0.01, np.log(1.01), -0.002])
    assert learnt[1, 1] == pytest.approx(np.log(8_100 / 8_000))  # relative to equity, not to the balance
    assert learnt[2].tolist() == pytest.approx([-0.5, np.log(100 / 9_000), 0.0])  # down to the floor
    assert reward[2, 1] == -2.0  # the stored rewards are as they were


def test_learnt_growth_adds_up_to_that_of_the_account(world: World) -> None:
    store, floor = world.study_data.store, world.study_data.rules.floor
    for episode in range(len(store)):
        length = int(store.length[episode])
        steps = store.gather(np.array([episode]), np.array([0]), horizon=length)
        balance, equity = accounts_ahead(steps.now, steps.reward, floor)
        growth = learning_reward(steps.reward, balance, equity, floor)[0, :, 1].sum(dtype=np.float64)
        last = store.gather(np.array([episode]), np.array([length])).now[0]
        assert growth == pytest.approx(np.log(max(last[1], floor) / steps.now[0, 1]), abs=1e-5)
        middle = store.gather(np.array([episode]), np.array([length // 2])).now[0]
        np.testing.assert_allclose([balance[0, length // 2], equity[0, length // 2]], middle[:2], rtol=1e-5)


def test_a_large_store_is_scaled_by_a_part_of_it(world: World) -> None:
    store, weights = world.study_data.store, (0.0, 1.0, 1.0)
    whole = reward_scale(store, weights, 1.0)
    assert reward_scale(store, weights, 1.0, most=1500) == pytest.approx(whole, rel=0.1)
    episode, step = at_rows(store, np.array([0, store.length[0] - 1, store.length[0]]))
    assert episode.tolist() == [0, 0, 1]
    assert step.tolist() == [0, store.length[0] - 1, 0]


def test_account_vectors_carry_the_hour_of_their_bar(world: World) -> None:
    store = world.study_data.store
    steps = store.gather(np.array([0, 0]), np.array([0, 5]))
    vectors = account_vectors(steps, world.table.server_time, 1.0)
    seconds = world.table.server_time[steps.bar]
    assert vectors[:, 11].tolist() == pytest.approx(
        np.sin(2 * np.pi * (seconds % 86_400) / 86_400).tolist(), abs=1e-6
    )


def test_batches_of_a_seed_hold_each_origin_once(world: World) -> None:
    batches = Batches(world.study_data, SETTINGS, seed=4)
    n = len(batches._origins)
    places = np.concatenate([batches.places(k) for k in range(-(-n // SETTINGS.batch))], axis=1)
    assert len(np.unique(places[:, :n], axis=1).T) == n > 1000
    other = Batches(world.study_data, SETTINGS, seed=4)
    assert torch.equal(batches.at(3).action, other.at(3).action)


def test_weighted_batches_prefer_good_episodes(world: World) -> None:
    settings = replace(SETTINGS, sampling="return_weighted", batch=2000)
    batches = Batches(world.study_data, settings, seed=4)
    drawn = np.bincount(batches.places(0)[0], minlength=len(batches._odds))
    np.testing.assert_allclose(drawn / drawn.sum(), batches._odds, atol=0.04)
    assert not np.array_equal(batches.places(0), batches.places(1))
    assert np.array_equal(batches.places(1), batches.places(1))


STEPS = 6  # the first episode ends in ruin, the second with its span


def short_world(world: World, folder: Path, gain: float = 1.0) -> World:
    """Return the world with two episodes of six steps whose account k holds 10,000 + k."""
    store = EpisodeStore.create(folder / "store", world.study_data.store.header, world.table.bars)
    account = np.zeros((2, STEPS + 1, 7), np.float32)
    account[..., :2] = 10_000 + np.arange(STEPS + 1)[:, None]
    reward = np.zeros((2, STEPS, 3), np.float32)
    reward[..., 0] = gain * np.arange(1, STEPS + 1)
    group = Group(
        first_bar=np.full(2, TRAIN[0]), account=account, action=np.zeros((2, STEPS, 6), np.float32), reward=reward,
        mark=np.zeros((2, STEPS), np.uint8), length=np.full(2, STEPS), terminated=np.array([True, False]),
        source=("policy", "policy"), seed=np.zeros(2, np.int64), policy=("", ""), initial_balance=np.full(2, 10_000.0),
        final_equity=account[:, -1, 1].astype(np.float64), trades=np.zeros(2, np.int64),
    )  # fmt: skip
    store.write("r0-g0", group)
    return replace(world, study_data=replace(world.study_data, store=store))


@pytest.fixture
def short(world: World, tmp_path: Path) -> World:
    return short_world(world, tmp_path)


def found(world: World, settings: StudySettings) -> dict[tuple[int, int], tuple[float, int, bool, float]]:
    """Return reward sum, steps, terminated and the balance after them, by episode and step."""
    batches = Batches(world.study_data, settings, seed=1)
    batch = batches.at(0)
    keys = list(zip(*(part.tolist() for part in batches.places(0)), strict=True))
    after = torch.zeros(len(keys)) if batch.after is None else batch.after.account[:, 0, 0]
    sums = batch.reward_sum[:, 0] * batches.scale
    return {
        key: (round(s.item(), 4), int(m), bool(t), a.item())
        for key, s, m, t, a in zip(keys, sums, batch.steps, batch.terminated, after, strict=True)
    }


@pytest.mark.pitfall("T18")
def test_sums_end_with_their_episode(short: World) -> None:
    weights = {"reward_weights": (1.0, 0.0, 0.0), "discount": 0.5, "batch": 12}
    one = found(short, StudySettings(target="one_step", **weights))  # type: ignore[arg-type]
    assert len(one) == 12
    assert one[0, 5][:3] == (6.0, 1, True)
    assert one[1, 5][:3] == (6.0, 1, False)
    assert one[0, 4][:3] == (5.0, 1, False)
    plain = found(short, StudySettings(target="n_step", horizon=3, **weights))  # type: ignore[arg-type]
    # without a bootstrap: ruin may cut a sum, the end of the span may not
    assert sorted(plain) == [(0, k) for k in range(6)] + [(1, k) for k in range(4)]
    assert plain[0, 4][:3] == (5 + 0.5 * 6, 2, True)
    assert plain[1, 3][:3] == (4 + 0.5 * 5 + 0.25 * 6, 3, False)
    to_go = found(short, StudySettings(target="return_to_go", **weights))  # type: ignore[arg-type]
    assert to_go[1, 3][0] == to_go[0, 3][0] == 4 + 0.5 * 5 + 0.25 * 6
    cut = found(short, StudySettings(target="n_step", horizon=3, bootstrap=True, **weights))  # type: ignore[arg-type]
    assert len(cut) == 12
    assert cut[1, 5][:3] == (6.0, 1, False)
    assert cut[1, 4][:3] == (5 + 0.5 * 6, 2, False)
    assert cut[0, 4][:3] == (5 + 0.5 * 6, 2, True)


def test_the_state_after_the_sum_is_the_one_that_was_recorded(short: World) -> None:
    settings = StudySettings(
        target="n_step", horizon=3, bootstrap=True, batch=12, reward_weights=(1.0, 0.0, 0.0)
    )
    batches = Batches(short.study_data, settings, seed=1)
    batch = batches.at(0)
    assert batch.after is not None
    episode, step = batches.places(0)
    reached = np.minimum(step + 3, STEPS)
    store, data = short.study_data.store, short.study_data
    expected = account_vectors(store.gather(episode, reached), data.table.server_time, data.rules.floor)
    assert batch.after.account[:, 0].numpy().tobytes() == expected.tobytes()
    bars = TRAIN[0] + reached
    assert torch.equal(batch.after.context, data.contexts.at(bars))
    y = bootstrapped(
        batch.reward_sum, torch.ones(12, 3), steps=batch.steps, terminated=batch.terminated, discount=0.99
    )
    weights = 0.99 ** (reached - step) * ~((episode == 0) & (reached == STEPS))
    torch.testing.assert_close(y - batch.reward_sum, torch.from_numpy(weights).float()[:, None].expand(12, 3))


def test_a_store_without_profit_cannot_be_imitated(world: World, tmp_path: Path) -> None:
    short = short_world(world, tmp_path, gain=-1.0)
    assert Batches(short.study_data, SETTINGS, 1).warnings == (
        "no episode gained balance (2 policy): there is nothing to imitate",
    )
    assert Batches(short.study_data, replace(SETTINGS, cloning=0.0), 1).warnings == ()


def test_rewards_are_in_deviations_of_their_weighted_sum(world: World) -> None:
    batches = Batches(world.study_data, StudySettings(target="one_step", batch=10_000), seed=1)
    weighted = batches.at(0).reward_sum @ torch.tensor([0.0, 1.0, 1.0])
    assert weighted.std().item() == pytest.approx(1.0, rel=0.05)


def test_labels_follow_the_account_of_their_step(world: World) -> None:
    batch = Batches(world.study_data, StudySettings(objective="oracle", batch=500), seed=1).at(0)
    assert batch.label is not None
    bought, label = batch.now.account[:, 0], batch.label[:, 0]
    assert label.shape == (500, 6)
    assert ((label[:, 0] > 0) & (label[:, 3] > 0)).sum() == 0
    assert (label.sum(dim=1) > 0).any()
    assert bought.shape == (500, 12)
