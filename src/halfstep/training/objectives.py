"""What the actor learns: three objectives as functions from a batch to named terms.

Where several processes train, a batch holds a rank's rows, and means are those of the whole batch
(`halfstep.training.ranks`).

Every objective compares the squashed mean action **before netting** with an action of the data or of the oracle, both divided
by their bounds: contradictory demonstrations then average to "flat" instead of to an arbitrary side.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from halfstep.nn.gaussian import kl_to_standard_normal
from halfstep.nn.policy import Actor, Critic, CriticEnsemble, PolicyOutput, ValueNet
from halfstep.training.ranks import WHOLE, Share
from halfstep.training.samples import LEAST_SCALE, Batch, State
from halfstep.training.settings import StudySettings

LARGEST_WEIGHT = 100.0


class ActorTerms(NamedTuple):
    """A loss of the actor and its parts, unweighted.

    Attributes:
        total: what is minimised.
        cloning: squared error to actions.
        value: of the actor's actions, in units of the data's; 0 where the objective has no such term.
        kl: divergence from a standard normal; 0 where the objective has no such term.
    """

    total: Tensor
    cloning: Tensor
    value: Tensor
    kl: Tensor


def guided(
    batch: Batch,
    actor: Actor,
    critic: Critic,
    settings: StudySettings,
    *,
    noise: Float[Tensor, "batch 1 action"],
    data_value: Float[Tensor, "batch component"],
    weights: Float[Tensor, " component"],
    update: int,
) -> ActorTerms:
    """Return L = c_bc BC - c_q mean(w Q(s, pi(s))) / nu + c_kl KL, with nu = mean |w Q(s, a)|.

    pi(s) is one reparameterised, netted sample; BC counts steps of episodes that gained balance. nu is that of
    Fujimoto and Gu 2021.

    Args:
        critic: read, not trained: its parameters should take no gradient. Of two, the first.
        noise: standard normal.
        data_value: Q(s, a) of the stored actions.
        weights: of the components of Q.
        update: its parity decides which term counts where ``settings.alternating``.
    """
    output = actor(batch.now.account, actor.prepare(batch.now.context), noise)
    cloning = _mean_error(batch, output, batch.action, actor, counts=batch.is_profitable)
    kl = _mean_divergence(batch, output)
    clones, follows = not settings.alternating or update % 2 == 0, not settings.alternating or update % 2 == 1
    total, value = settings.kl * kl, torch.zeros(())
    if clones:
        total = total + settings.cloning * cloning
    if follows:
        q = critic(batch.now.account, output.action, critic.prepare(batch.now.context))[:, 0] @ weights
        scale = batch.share.mean((data_value.detach() @ weights).abs().mean())
        value = batch.share.mean(q.mean()) / scale.clamp_min(LEAST_SCALE)
        total = total - settings.guidance * value
    return ActorTerms(total, cloning, value, kl)


def awr(
    batch: Batch, actor: Actor, settings: StudySettings, *, advantage: Float[Tensor, " batch"]
) -> ActorTerms:
    """Return L = mean of min(exp(beta A / sigma_A), 100) BC + c_kl KL over all steps (Peng et al. 2019).

    Args:
        advantage: A of the stored actions; no gradient goes through it.
    """
    output = actor(batch.now.account, actor.prepare(batch.now.context))
    weight = advantage_weights(advantage.detach(), settings.sharpness, batch.share)
    cloning = _mean_error(batch, output, batch.action, actor, counts=torch.ones_like(weight), weight=weight)
    kl = _mean_divergence(batch, output)
    return ActorTerms(cloning + settings.kl * kl, cloning, torch.zeros(()), kl)


def oracle(batch: Batch, actor: Actor) -> ActorTerms:
    """Return the squared error between the squashed mean action and the oracle's labels."""
    if batch.label is None:
        raise ValueError("batch: without labels. Make it with objective oracle.")
    output = actor(batch.now.account, actor.prepare(batch.now.context))
    cloning = _mean_error(batch, output, batch.label, actor, counts=torch.ones(len(batch.label)))
    return ActorTerms(cloning, cloning, torch.zeros(()), torch.zeros(()))


def advantage(
    batch: Batch, critics: CriticEnsemble, value: ValueNet, weights: Float[Tensor, " component"]
) -> Float[Tensor, " batch"]:
    """Return A = min_j w Q_j(s, a) - V(s); give critics whose parameters take no gradient, or detach."""
    q = critics(batch.now.account, batch.action, critics.prepare(batch.now.context))
    return CriticEnsemble.min(q, weights)[:, 0] - state_value(value, batch.now)


def state_value(value: ValueNet, state: State) -> Float[Tensor, " batch"]:
    """Return V of states."""
    answer: Tensor = value(state.account, value.prepare(state.context))
    return answer[:, 0]


def expectile_loss(
    advantage: Float[Tensor, " batch"], expectile: float, share: Share = WHOLE
) -> Float[Tensor, ""]:
    """Return mean |tau - 1(A < 0)| A^2: V lies where better actions weigh tau, worse ones 1 - tau (Kostrikov et al. 2021)."""
    weight = torch.where(advantage < 0, 1 - expectile, expectile)
    return share.mean((weight * advantage.square()).mean())


def advantage_weights(
    advantage: Float[Tensor, " batch"], sharpness: float, share: Share = WHOLE
) -> Float[Tensor, " batch"]:
    """Return min(exp(beta A / sigma_A), 100), rising with A."""
    deviation = share.deviation(advantage).clamp_min(LEAST_SCALE)
    return (sharpness * advantage / deviation).exp().clamp_max(LARGEST_WEIGHT)


def cloning_error(
    squashed: Float[Tensor, "batch action"],
    action: Float[Tensor, "batch action"],
    high: Float[Tensor, " action"],
    counts: Float[Tensor, " batch"],
    weight: Float[Tensor, " batch"] | None = None,
    share: Share = WHOLE,
) -> Float[Tensor, ""]:
    """Return the mean squared error to actions, relative to their bounds.

    A level counts only where its side has a volume and the level is known (above 0).

    Args:
        squashed: of the actor, before netting.
        action: to come near to.
        high: largest value of each element.
        counts: 1 for samples that count, else 0.
        weight: of each sample's error.
        share: what the samples are of their batch.
    """
    ones = torch.ones_like(action[:, :1])
    known = (action > 0).to(action.dtype)
    buys, sells = known[:, :1], known[:, 3:4]
    mask = torch.cat([ones, buys * known[:, 1:3], ones, sells * known[:, 4:6]], dim=1) * counts[:, None]
    error = ((squashed - action) / high).square() * mask
    if weight is not None:
        error = error * weight[:, None]
    return share.sum(error.sum()) / share.sum(mask.sum()).clamp_min(1.0)


def _mean_error(
    batch: Batch,
    output: PolicyOutput,
    action: Tensor,
    actor: Actor,
    *,
    counts: Tensor,
    weight: Tensor | None = None,
) -> Tensor:
    squashed = actor.head.squash(output.mean)
    return cloning_error(squashed[:, 0], action[:, 0], actor.head.high, counts, weight, batch.share)


def _mean_divergence(batch: Batch, output: PolicyOutput) -> Tensor:
    return batch.share.mean(kl_to_standard_normal(output.mean, output.logvar).mean())
