"""A trained actor as a policy: contexts by bar, one form for one account and many."""

import numpy as np
import pytest
import torch

from halfstep.experience.policy import Policy
from halfstep.experience.rollout import trade
from halfstep.nn.build import build_actor
from halfstep.nn.presets import preset
from halfstep.training.policy import NeuralPolicy, weights_hash

from .conftest import RULES, TEST, World


def policy_of(world: World) -> NeuralPolicy:
    actor = build_actor(preset("tiny"), seed=0)
    with torch.no_grad():
        actor.out.weight.mul_(100)  # not nearly flat
    return NeuralPolicy(actor, world.contexts)


def test_research_and_test_see_the_same_context(world: World) -> None:
    policy = policy_of(world)
    account = np.random.default_rng(0).standard_normal((3, 12)).astype(np.float32)
    chunk = policy.prepare(TEST[0], TEST[0] + 10)
    single = policy.prepare(TEST[0] + 7, TEST[0] + 8)
    np.testing.assert_allclose(
        policy.act(account, chunk, 7, None), policy.act(account, single, 0, None), atol=1e-6
    )
    assert not np.allclose(policy.act(account, chunk, 7, None), policy.act(account, chunk, 6, None))
    assert isinstance(policy, Policy)


def test_contexts_are_found_by_bar(world: World) -> None:
    bars = np.array([world.contexts.first, world.contexts.first + 12])
    assert torch.equal(world.contexts.at(bars), world.contexts.rows[[0, 12]])


@pytest.mark.pitfall("R13", "U7")
def test_evaluation_is_deterministic(world: World) -> None:
    runs = [
        trade(policy_of(world), world.table, RULES, first=TEST[0] - 1, stop=TEST[1] - 1) for _ in range(2)
    ]
    assert runs[0][0].tobytes() == runs[1][0].tobytes()
    assert runs[0][1].equity.tobytes() == runs[1][1].equity.tobytes()
    assert len(runs[0][0]) == TEST[1] - TEST[0]


def test_hash_tells_weights_apart() -> None:
    a, b = build_actor(preset("tiny"), seed=0), build_actor(preset("tiny"), seed=1)
    assert weights_hash(a) == weights_hash(build_actor(preset("tiny"), seed=0)) != weights_hash(b)
