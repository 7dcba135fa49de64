"""The actor's objectives: what counts in imitation, which way values push, how advantages weigh."""

from dataclasses import replace

import pytest
import torch

from halfstep.nn.attention import Prepared
from halfstep.nn.build import build_actor, build_critic
from halfstep.nn.gaussian import net_sides
from halfstep.nn.policy import Critic
from halfstep.nn.presets import preset
from halfstep.training import objectives
from halfstep.training.objectives import advantage_weights, cloning_error, expectile_loss
from halfstep.training.samples import Batch, Batches
from halfstep.training.settings import StudySettings

from .conftest import World

WEIGHTS = torch.tensor([0.0, 1.0, 1.0])


def test_cloning_rules() -> None:
    high = torch.tensor([0.5, 1, 1, 0.5, 1, 1])
    action = torch.tensor([[0.5, 0.2, 0.3, 0.0, 0.9, 0.9], [0.0, 0.0, 0.0, 0.5, 0.1, 0.1]])
    mean = torch.tensor([[0.25, 0.4, 0.3, 0.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.5, 0.1, 0.1]])
    # row 0 bought: volumes (0.5/0.5)^2 … ((0.25-0.5)/0.5)^2 = 0.25, TP 0.04, SL 0, sell volume 0; sell levels unknown
    assert cloning_error(mean, action, high, torch.tensor([1.0, 0.0])).item() == pytest.approx(0.29 / 4)
    # row 1 sold: the buy levels do not count
    assert cloning_error(mean, action, high, torch.tensor([0.0, 1.0])).item() == pytest.approx(0.0)
    assert cloning_error(mean, action, high, torch.zeros(2)).item() == 0.0  # no profitable episode
    # an unknown level (0) does not count although the side was bought: (0.25 + 0 + 0) / 3
    unknown = torch.tensor([[0.5, 0.0, 0.3, 0.0, 0.9, 0.9]])
    assert cloning_error(mean[:1], unknown, high, torch.ones(1)).item() == pytest.approx(0.25 / 3)
    # a weight multiplies a sample's error, not its share of the mean
    weighted = cloning_error(mean[:1], action[:1], high, torch.ones(1), torch.tensor([3.0]))
    assert weighted.item() == pytest.approx(3 * 0.29 / 4)


def test_opposite_demonstrations_average_to_flat() -> None:
    actor = build_actor(preset("tiny"), seed=0)
    actions = torch.tensor([[1.0, 0, 0, 0, 0, 0], [0, 0, 0, 1.0, 0, 0]])
    raw = torch.zeros(6, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        squashed = (actor.head.high * raw.sigmoid()).expand(2, 6)
        cloning_error(squashed, actions, actor.head.high, torch.ones(2)).backward()
        optimizer.step()
    output = actor.head(torch.cat([raw.detach(), torch.zeros(6)]).reshape(1, 1, 12), None)
    assert net_sides(output.squashed)[..., [0, 3]].abs().max() < 0.01


def linear_critic(slope: torch.Tensor) -> Critic:
    """Return a critic whose value of an action is ``slope`` times it, in every component."""
    critic = build_critic(preset("tiny"), seed=2)

    def value(account: torch.Tensor, action: torch.Tensor, _: object) -> torch.Tensor:
        return ((action * slope).sum(dim=-1, keepdim=True)).expand(*action.shape[:2], 3)

    critic.forward = value  # type: ignore[method-assign]
    return critic


def batch_of(world: World, **changes: object) -> Batch:
    return Batches(world.study_data, replace(StudySettings(batch=64), **changes), 1).at(0)  # type: ignore[arg-type]


@pytest.mark.pitfall("R11")
def test_actor_is_pushed_at_zero_value(world: World) -> None:
    """The published targets, Q x 1.01 and Q x 0.99, say nothing where Q is 0; ours is the gradient of Q itself."""
    batch, actor = batch_of(world), build_actor(preset("tiny"), seed=1)
    settings = StudySettings(cloning=0.0, kl=0.0)
    values = torch.zeros(64, 3, requires_grad=True)
    critic = linear_critic(torch.zeros(6))
    critic.forward = lambda account, action, _: values[:, None]  # type: ignore[method-assign]
    terms = objectives.guided(
        batch, actor, critic, settings, noise=torch.zeros(64, 1, 6), data_value=torch.ones(64, 3),
        weights=WEIGHTS, update=0,
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(terms.total, values)
    # nu = mean |w Q(s, a)| = 2, so dL / dQ = -w / (2 n)
    torch.testing.assert_close(gradient, -WEIGHTS.expand(64, 3) / (2 * 64))


def test_the_actor_follows_the_critic(world: World) -> None:
    batch, config = batch_of(world), preset("tiny")
    for side in (0, 3):
        actor = build_actor(config, seed=1)
        critic = linear_critic(torch.eye(6)[side])
        optimizer = torch.optim.Adam(actor.parameters(), lr=0.01)
        for step in range(30):
            noise = torch.randn(64, 1, 6, generator=torch.Generator().manual_seed(step))
            terms = objectives.guided(
                batch, actor, critic, StudySettings(cloning=0.0), noise=noise, data_value=torch.ones(64, 3),
                weights=WEIGHTS, update=0,
            )  # fmt: skip
            optimizer.zero_grad()
            terms.total.backward()
            optimizer.step()
        action = actor(batch.now.account, actor.prepare(batch.now.context)).action
        assert action[..., side].min() > 0.3
        assert action[..., 3 - side].max() == 0


@pytest.mark.pitfall("R10")
def test_critic_sees_the_executed_action(world: World) -> None:
    """Raw (buy 0.30, sell 0.10) and (0.20, 0) are one action to the critic, in its own step and in the actor's."""
    critic, batch = build_critic(preset("tiny"), seed=2), batch_of(world)
    raw = torch.tensor([[0.30, 0.5, 0.5, 0.10, 0.5, 0.5], [0.20, 0.5, 0.5, 0.0, 0.5, 0.5]])
    prepared = critic.prepare(batch.now.context[:1])
    values = [
        critic(batch.now.account[:1], action.reshape(1, 1, 6), prepared)[0, 0] for action in net_sides(raw)
    ]
    torch.testing.assert_close(*values)
    assert ((batch.action[..., 0] > 0) & (batch.action[..., 3] > 0)).sum() == 0  # what it is trained on
    seen: list[torch.Tensor] = []
    forward = critic.forward

    def watched(account: torch.Tensor, action: torch.Tensor, kv: Prepared) -> torch.Tensor:
        seen.append(action)
        return forward(account, action, kv)

    critic.forward = watched  # type: ignore[method-assign]
    actor = build_actor(preset("tiny"), seed=1)
    objectives.guided(
        batch, actor, critic, StudySettings(), noise=torch.randn(64, 1, 6), data_value=torch.ones(64, 3),
        weights=WEIGHTS, update=0,
    )  # fmt: skip
    assert (torch.minimum(seen[0][..., 0], seen[0][..., 3]) == 0).all()  # what it judges


def test_alternating_updates_take_turns(world: World) -> None:
    batch, actor = batch_of(world), build_actor(preset("tiny"), seed=1)
    terms = [
        objectives.guided(
            batch, actor, linear_critic(torch.eye(6)[0]), settings, noise=torch.zeros(64, 1, 6),
            data_value=torch.ones(64, 3), weights=WEIGHTS, update=update,
        )
        for settings, update in (
            (StudySettings(), 0), (StudySettings(alternating=True), 0), (StudySettings(alternating=True), 1),
        )
    ]  # fmt: skip
    both, clones, follows = terms
    c = StudySettings()
    assert both.total.item() == pytest.approx(
        (c.cloning * both.cloning - c.guidance * both.value + c.kl * both.kl).item()
    )
    assert clones.total.item() == pytest.approx((c.cloning * both.cloning + c.kl * both.kl).item())
    assert follows.total.item() == pytest.approx((-c.guidance * both.value + c.kl * both.kl).item())


def test_expectile_by_hand() -> None:
    # tau = 0.7: 0.7 * 4 for A = 2, 0.3 * 1 for A = -1
    assert expectile_loss(torch.tensor([2.0, -1.0]), 0.7).item() == pytest.approx((2.8 + 0.3) / 2)
    # the minimiser over V of a fair coin between 0 and 1 is tau
    grid = torch.linspace(0, 1, 1001)
    losses = [expectile_loss(torch.tensor([0.0, 1.0]) - v, 0.7).item() for v in grid]
    assert grid[losses.index(min(losses))].item() == pytest.approx(0.7)


def test_awr_weights_rise_with_the_advantage_and_are_capped() -> None:
    advantage = torch.linspace(-2, 2, 101)
    weights = advantage_weights(advantage, 3.0)
    assert (weights.diff() >= 0).all()
    assert weights[50].item() == pytest.approx(1.0)
    assert weights[51].item() == pytest.approx(
        torch.exp(3 * advantage[51] / advantage.std(correction=0)).item()
    )
    assert advantage_weights(torch.tensor([0.0] * 99 + [50.0]), 3.0).max() == 100.0
    assert advantage_weights(torch.zeros(5), 3.0).tolist() == [1.0] * 5


def test_oracle_needs_its_labels(world: World) -> None:
    actor = build_actor(preset("tiny"), seed=1)
    with pytest.raises(ValueError, match="batch: without labels"):
        objectives.oracle(batch_of(world), actor)
    labelled = batch_of(world, objective="oracle")
    assert objectives.oracle(labelled, actor).total.item() > 0
