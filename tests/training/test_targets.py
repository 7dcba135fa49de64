"""What a critic learns, by hand: one episode of six steps under every target, and where its sums end."""

import numpy as np
import pytest
import torch

from halfstep.training.settings import StudySettings
from halfstep.training.targets import bootstrapped, discounted_sum, least, reward_bars

# One component, gamma = 0.9. Rewards of the six steps, and the value V' = 100 of every state:
REWARDS = [1.0, 2.0, -1.0, 0.5, 0.0, 3.0]
AFTER = 100.0
GAMMA = 0.9


def target(start: int, horizon: int, *, terminated: bool, bootstrap: bool) -> float:
    """Return y of step ``start`` of the episode, put together as a batch of one."""
    count = min(horizon, len(REWARDS) - start)
    padded = [*REWARDS[start : start + count], *[0.0] * (horizon - count)]
    sum_ = discounted_sum(torch.tensor(padded, dtype=torch.float64).reshape(1, -1, 1), GAMMA)
    if not bootstrap:
        return sum_.item()
    return bootstrapped(
        sum_, torch.full((1, 1), AFTER, dtype=torch.float64), steps=torch.tensor([count]),
        terminated=torch.tensor([terminated and start + count == len(REWARDS)]), discount=GAMMA,
    ).item()  # fmt: skip


def test_critic_targets_by_hand() -> None:
    # one_step: the reward itself, at the first and at the last step
    assert target(0, 1, terminated=False, bootstrap=False) == 1.0
    assert target(5, 1, terminated=True, bootstrap=False) == 3.0
    # n_step, n = 3: 1 + 0.9 * 2 + 0.81 * -1 = 1.99
    assert target(0, 3, terminated=False, bootstrap=False) == pytest.approx(1.99)
    # ... with bootstrap: + 0.729 * 100 = 74.89
    assert target(0, 3, terminated=False, bootstrap=True) == pytest.approx(74.89)
    # ... from step 4 on: 0 + 0.9 * 3 = 2.7; ruin ends the sum and what follows
    assert target(4, 3, terminated=True, bootstrap=False) == pytest.approx(2.7)
    assert target(4, 3, terminated=True, bootstrap=True) == pytest.approx(2.7)
    # ... truncated there: the sum has m = 2 rewards, so the value counts 0.81 * 100: 83.7
    assert target(4, 3, terminated=False, bootstrap=True) == pytest.approx(83.7)
    # td and value: r + 0.9 * 100, ruin: r
    assert target(2, 1, terminated=True, bootstrap=True) == pytest.approx(89.0)  # not the last step
    assert target(5, 1, terminated=True, bootstrap=True) == 3.0
    assert target(5, 1, terminated=False, bootstrap=True) == pytest.approx(93.0)
    # return_to_go: 1 + 1.8 - 0.81 + 0.3645 + 0 + 0.59049 * 3 = 4.12597, whatever ended it
    assert target(0, 6, terminated=True, bootstrap=False) == pytest.approx(4.12597)
    assert target(0, 6, terminated=False, bootstrap=False) == pytest.approx(4.12597)


@pytest.mark.pitfall("R3")
def test_returns_by_hand() -> None:
    reward = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1).repeat(1, 1, 3)
    assert discounted_sum(reward, 0.99)[0].tolist() == pytest.approx([5.9203] * 3)
    assert discounted_sum(reward[:, 1:], 0.99)[0, 0].item() == pytest.approx(4.97)
    assert discounted_sum(reward[:, :1], 0.99)[0, 0].item() == 1.0


@pytest.mark.pitfall("R3")
def test_delayed_outcome_reaches_its_action() -> None:
    reward = torch.zeros(1, 24, 3)
    reward[0, 10] = 1.0
    assert discounted_sum(reward, 0.99)[0, 0].item() == pytest.approx(0.904382, rel=1e-5)


@pytest.mark.pitfall("T18")
def test_bootstrap_is_cut_only_by_termination() -> None:
    y = bootstrapped(
        torch.ones(2, 1), torch.full((2, 1), 10.0), steps=torch.ones(2, dtype=torch.int64),
        terminated=torch.tensor([True, False]), discount=0.99,
    )  # fmt: skip
    assert y[:, 0].tolist() == pytest.approx([1.0, 10.9])
    endless = bootstrapped(
        torch.ones(1, 1), torch.full((1, 1), float("nan")), steps=torch.ones(1, dtype=torch.int64),
        terminated=torch.tensor([True]), discount=0.99,
    )  # fmt: skip
    assert endless.item() == 1.0  # what comes after ruin is not even looked at


def test_the_lesser_critic_counts_as_a_whole() -> None:
    values = torch.tensor([[[1.0, 5.0], [4.0, 0.0]], [[3.0, 1.0], [1.0, 1.0]]])  # (critic, batch, component)
    # weights (1, 1): sample 0: 6 against 4, sample 1: 4 against 2
    assert least(values, torch.ones(2)).tolist() == [[3.0, 1.0], [1.0, 1.0]]
    # weights (1, 0): sample 0: 1 against 3
    assert least(values, torch.tensor([1.0, 0.0])).tolist() == [[1.0, 5.0], [1.0, 1.0]]


def test_how_far_targets_look() -> None:
    assert reward_bars(StudySettings(target="one_step"), 500) == 1
    assert reward_bars(StudySettings(target="td"), 500) == 1
    assert reward_bars(StudySettings(target="n_step", horizon=7), 500) == 7
    assert reward_bars(StudySettings(target="return_to_go"), 500) == 500
    bars = reward_bars(StudySettings(target="return_to_go"), 6200)
    assert bars < 6200
    assert 0.99**bars <= np.finfo(np.float32).eps / 2 < 0.99 ** (bars - 1)
    assert reward_bars(StudySettings(target="return_to_go", discount=1.0), 6200) == 6200
