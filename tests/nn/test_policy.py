"""Actor, critics and value network: bounds, netting, who sees what."""

from dataclasses import replace

import pytest
import torch

from halfstep.nn.build import build_actor, build_critic, build_critics, build_value
from halfstep.nn.config import CriticConfig, PolicyConfig
from halfstep.nn.gaussian import net_sides
from halfstep.nn.policy import Actor, Critic, CriticEnsemble
from halfstep.nn.polyak import polyak_
from halfstep.nn.presets import PRESETS, preset

from .cases import noise

CONFIG = preset("tiny", lot_cap=0.5)
LOT_STEP = 0.01


def inputs(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return noise(3, 4, 12, seed=seed), noise(3, 9, 26, seed=seed + 100)


@pytest.mark.parametrize("name", PRESETS)
def test_actor_and_critic_interface(name: str) -> None:
    config = preset(name)
    actor = build_actor(config, seed=0)
    context = noise(1, 9, config.encoder.context_width)
    prepared, account = actor.prepare(context), noise(1, 10_000, 12)
    with torch.no_grad():
        still = actor(account, prepared)
        drawn = actor(account, prepared, noise(1, 10_000, 6, seed=1))
    assert torch.equal(still.raw, still.mean)
    assert still.action[..., [0, 3]].abs().max() < LOT_STEP  # flat: below the least volume
    assert drawn.squashed.min() >= 0
    assert drawn.squashed.max() <= 1
    buys, sells = drawn.action[..., 0] > 0, drawn.action[..., 3] > 0
    assert buys.float().mean() > 0.4
    assert sells.float().mean() > 0.4
    assert not bool((buys & sells).any())
    torch.testing.assert_close(drawn.action, net_sides(drawn.squashed))

    blind = Critic(replace(config.critic, use_account=False), config.encoder.context_width)
    critic = build_critic(config, seed=0)
    few = account[:, :5]
    for module, sees in ((blind, False), (critic, True)):
        kv = module.prepare(context)
        values = module(few, drawn.action[:, :5], kv)
        assert values.shape == (1, 5, 3)
        assert torch.equal(module(few + 1, drawn.action[:, :5], kv), values) != sees
    value = build_value(config, seed=0)
    assert value(few, value.prepare(context)).shape == (1, 5)


@pytest.mark.pitfall("R10")
def test_critic_sees_the_executed_action() -> None:
    critic = build_critic(CONFIG, seed=0)
    account, context = inputs()
    raw = torch.zeros(3, 4, 6)
    raw[..., 0], raw[..., 3] = 0.30, 0.10
    netted = torch.zeros(3, 4, 6)
    netted[..., 0] = 0.20
    prepared = critic.prepare(context)
    torch.testing.assert_close(critic(account, net_sides(raw), prepared), critic(account, netted, prepared))


def test_actions_stay_inside_their_bounds() -> None:
    head = build_actor(CONFIG, seed=0).head
    output = head(torch.full((1, 1, 12), 50.0), torch.full((1, 1, 6), 50.0))
    assert output.squashed.flatten().tolist() == [0.5, 1.0, 1.0, 0.5, 1.0, 1.0]


def test_account_context_and_action_all_matter() -> None:
    actor, critic = build_actor(CONFIG, seed=0), build_critic(CONFIG, seed=1)
    (account, context), (other_account, other_context) = inputs(0), inputs(1)
    action = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0))
    base = critic(account, action, critic.prepare(context))
    assert base.shape == (3, 4, 3)
    for changed in (
        critic(other_account, action, critic.prepare(context)),
        critic(account, action, critic.prepare(other_context)),
        critic(account, 1 - action, critic.prepare(context)),
    ):
        assert not torch.allclose(base, changed)
    mean = actor(account, actor.prepare(context)).mean
    assert not torch.allclose(mean, actor(other_account, actor.prepare(context)).mean)
    assert not torch.allclose(mean, actor(account, actor.prepare(other_context)).mean)


def test_keys_and_values_of_one_bar_serve_many_accounts() -> None:
    actor = build_actor(CONFIG, seed=0)
    _, context = inputs()
    account = noise(1, 50, 12)
    shared = actor(account, actor.prepare(context[:1])).mean
    each = actor(account.transpose(0, 1), actor.prepare(context[:1].expand(50, -1, -1))).mean
    torch.testing.assert_close(shared[0], each[:, 0], rtol=1e-5, atol=1e-6)


def test_the_least_of_several_critics_is_taken_after_weighting() -> None:
    values = torch.tensor([[[[1.0, 5.0, 0.0]]], [[[4.0, 1.0, 0.0]]]])
    assert CriticEnsemble.min(values, torch.tensor([1.0, 2.0, 1.0])).item() == 6.0  # min(11, 6); not 1 + 2
    ensemble = build_critics(CONFIG, seed=0, n=3)
    account, context = inputs()
    action = torch.zeros(3, 4, 6)
    together = ensemble(account, action, ensemble.prepare(context))
    assert together.shape == (3, 3, 4, 3)
    for values, critic in zip(together, ensemble.critics, strict=True):
        assert torch.equal(values, critic(account, action, critic.prepare(context)))
    assert not torch.equal(together[0], together[1])  # independent
    with pytest.raises(ValueError, match="n: 0, must be at least 1"):
        build_critics(CONFIG, seed=0, n=0)


def test_a_copy_follows_slowly() -> None:
    target, source = Actor(CONFIG.policy, 26), Actor(CONFIG.policy, 26)
    before = [p.detach().clone() for p in target.parameters()]
    polyak_(target, source, 0.25)
    for old, slow, fast in zip(before, target.parameters(), source.parameters(), strict=True):
        torch.testing.assert_close(slow, 0.75 * old + 0.25 * fast)
    polyak_(target, source, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(target.parameters(), source.parameters(), strict=True))
    with pytest.raises(ValueError, match=r"tau: 1.5, must lie in \[0, 1\]"):
        polyak_(target, source, 1.5)


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(ValueError, match="action: 5, must be 6"):
        PolicyConfig(action=5)
    with pytest.raises(ValueError, match=r"lot_cap: 0\.0, must be above 0"):
        PolicyConfig(lot_cap=0.0)
    with pytest.raises(ValueError, match="reward: 0, must be at least 1"):
        CriticConfig(reward=0)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("order", ["attention_first", "feed_forward_first"])
def test_folded_contexts_give_the_same_actions(name: str, order: str) -> None:
    config = preset(name, lot_cap=0.5)
    stack = replace(config.policy.stack, order=order)
    actor = Actor(replace(config.policy, stack=stack), config.encoder.context_width).double()
    with torch.no_grad():
        for number, param in enumerate(actor.parameters()):
            param.add_(0.3 * noise(*param.shape, seed=number).double())  # also biases, and the last layer
    account, contexts = noise(6, 12).double(), noise(4, 9, config.encoder.context_width, seed=1).double()
    drawn = noise(6, 6, seed=2).double()
    with torch.no_grad():
        folded = actor.fold(contexts)
        for k in range(4):
            plain = actor(account[None], actor.prepare(contexts[k : k + 1]), drawn[None]).action[0]
            torch.testing.assert_close(
                actor.act_folded(account, folded, k, drawn), plain, atol=1e-12, rtol=1e-9
            )
    assert not torch.allclose(actor.act_folded(account, folded, 0), actor.act_folded(account, folded, 1))


def test_levels_have_a_floor() -> None:
    """However far the raw action goes, targets and stops stay at or above the floor, volumes reach 0."""
    config = preset("tiny", level_floor=0.05)
    actor = build_actor(config, seed=1)
    squashed = actor.head.squash(torch.full((6,), -40.0))
    assert squashed.tolist() == pytest.approx([0, 0.05, 0.05, 0, 0.05, 0.05])
    assert actor.head.squash(torch.full((6,), 40.0)).tolist() == pytest.approx([1, 1, 1, 1, 1, 1])
