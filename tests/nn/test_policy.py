"""Actor and critic: bounds, netting, divergence, who sees what."""

import math

import pytest
import torch

from halfstep.nn.build import build_actor, build_critic
from halfstep.nn.config import preset
from halfstep.nn.policy import GaussianHead, kl_to_standard_normal, net_sides

CONFIG = preset("tiny", lot_cap=0.5)


def inputs(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 4, 12, generator=generator), torch.randn(3, 9, 26, generator=generator)


def test_net_sides_by_hand() -> None:
    asked = torch.tensor(
        [[0.3, 0.1, 0.2, 0.1, 0.4, 0.5], [0.1, 0.1, 0.2, 0.3, 0.4, 0.5], [0.2, 0, 0, 0.2, 0, 0]]
    )
    torch.testing.assert_close(
        net_sides(asked)[:, [0, 3]], torch.tensor([[0.2, 0.0], [0.0, 0.2], [0.0, 0.0]])
    )
    assert torch.equal(net_sides(asked)[:, [1, 2, 4, 5]], asked[:, [1, 2, 4, 5]])


@pytest.mark.pitfall("R10")
def test_critic_sees_the_executed_action() -> None:
    critic = build_critic(CONFIG, seed=0)
    account, context = inputs()
    raw = torch.zeros(3, 4, 6)
    raw[..., 0], raw[..., 3] = 0.30, 0.10
    netted = torch.zeros(3, 4, 6)
    netted[..., 0] = 0.20
    torch.testing.assert_close(critic(account, context, net_sides(raw)), critic(account, context, netted))


def test_an_untrained_actor_is_nearly_flat_and_its_samples_trade_both_sides() -> None:
    actor = build_actor(CONFIG, seed=0)
    account, context = inputs()
    prepared = actor.prepare(context)
    assert actor(account, prepared).action[..., [0, 3]].max() < 0.02
    noise = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(1))
    action = actor(account, prepared, noise).action
    assert (action[..., 0] > 0).any()
    assert (action[..., 3] > 0).any()
    assert not ((action[..., 0] > 0) & (action[..., 3] > 0)).any()


def test_actions_stay_inside_their_bounds() -> None:
    head = GaussianHead(0.5)
    output = head(torch.full((1, 1, 12), 50.0), torch.full((1, 1, 6), 50.0))
    assert output.squashed.flatten().tolist() == [0.5, 1.0, 1.0, 0.5, 1.0, 1.0]


def test_divergence_equals_torch() -> None:
    mean, logvar = torch.randn(7), torch.randn(7)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (logvar / 2).exp()), torch.distributions.Normal(0.0, 1.0)
    )
    torch.testing.assert_close(kl_to_standard_normal(mean, logvar), expected)
    assert kl_to_standard_normal(torch.zeros(1), torch.zeros(1)).item() == 0
    assert math.isclose(kl_to_standard_normal(torch.ones(1), torch.zeros(1)).item(), 0.5)


def test_account_context_and_action_all_matter() -> None:
    actor, critic = build_actor(CONFIG, seed=0), build_critic(CONFIG, seed=1)
    account, context = inputs(0)
    other_account, other_context = inputs(1)
    action = torch.rand(3, 4, 6)
    base = critic(account, context, action)
    assert base.shape == (3, 4, 3)
    for changed in (
        critic(other_account, context, action),
        critic(account, other_context, action),
        critic(account, context, 1 - action),
    ):
        assert not torch.allclose(base, changed)
    mean = actor(account, actor.prepare(context)).mean
    assert not torch.allclose(mean, actor(other_account, actor.prepare(context)).mean)
    assert not torch.allclose(mean, actor(account, actor.prepare(other_context)).mean)


def test_keys_and_values_of_one_bar_serve_many_accounts() -> None:
    actor = build_actor(CONFIG, seed=0)
    _, context = inputs()
    account = torch.randn(1, 50, 12)
    shared = actor(account, actor.prepare(context[:1])).mean
    each = actor(account.transpose(0, 1), actor.prepare(context[:1].expand(50, -1, -1))).mean
    torch.testing.assert_close(shared[0], each[:, 0], rtol=1e-5, atol=1e-6)
