"""A trained actor as a policy: contexts by bar, one form for one account and many."""

import numpy as np
import pytest
import torch

from halfstep.experience.policy import Policy
from halfstep.experience.research import ResearchTask, play
from halfstep.experience.rollout import trade
from halfstep.experience.settings import ResearchSettings
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


def test_an_action_does_not_depend_on_the_paths_beside_it(world: World) -> None:
    policy, random = policy_of(world), np.random.default_rng(0)
    account = random.standard_normal((200, 12)).astype(np.float32)
    noise = random.standard_normal((200, 6)).astype(np.float32)
    chunk = policy.prepare(TEST[0], TEST[0] + 10)
    whole = policy.act(account, chunk, 3, noise)
    for first, last in ((0, 1), (5, 8), (17, 83), (60, 200)):
        part = policy.act(account[first:last], chunk, 3, noise[first:last])
        assert part.tobytes() == whole[first:last].tobytes()


def test_the_policy_is_the_actor(world: World) -> None:
    policy, random = policy_of(world), np.random.default_rng(1)
    account = random.standard_normal((5, 12)).astype(np.float32)
    noise = random.standard_normal((5, 6)).astype(np.float32)
    actor = policy._actor
    with torch.no_grad():
        prepared = actor.prepare(world.contexts.at(np.array([TEST[0] + 3])))
        drawn = actor(torch.from_numpy(account)[None], prepared, torch.from_numpy(noise)[None]).action[0]
        still = actor(torch.from_numpy(account)[None], prepared).action[0]
    chunk = policy.prepare(TEST[0], TEST[0] + 10)
    np.testing.assert_allclose(policy.act(account, chunk, 3, noise), drawn, atol=1e-6)
    np.testing.assert_allclose(policy.act(account, chunk, 3, None), still, atol=1e-6)


def test_threads_and_grouping_leave_no_trace_in_episodes(world: World) -> None:
    def episodes(threads: int, group: int) -> bytes:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        task = ResearchTask(
            table=world.table, rules=RULES, policy=policy_of(world), round_number=0, span=(TEST[0] - 60, TEST[0]),
            settings=ResearchSettings(passes=70, group=group), seed=1,
        )  # fmt: skip
        groups = [play(task, k)[0] for k in range(len(task.groups))]
        torch.set_num_threads(before)
        return b"".join(
            np.concatenate([getattr(g, name) for g in groups]).tobytes() for name in ("account", "action")
        )

    assert episodes(1, 70) == episodes(2, 70) == episodes(1, 33)


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
