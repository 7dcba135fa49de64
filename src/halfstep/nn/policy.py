"""Actor and critic: the account attends to the context of its bar."""

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # the name torch's own documentation uses
from jaxtyping import Float
from torch import Tensor, nn

from halfstep.nn.attention import CrossAttentionStack, Prepared
from halfstep.nn.config import PolicyConfig

LOG_STD = (-5.0, 2.0)


class PolicyOutput(NamedTuple):
    """What an actor says.

    Attributes:
        mean, logvar: of the Gaussian before squashing, ``(batch, path, action)``.
        squashed: the bounded action before netting; behaviour cloning compares this.
        action: after netting; the critic and the broker see only this.
    """

    mean: Tensor
    logvar: Tensor
    squashed: Tensor
    action: Tensor


def net_sides(action: Float[Tensor, "*batch action"]) -> Float[Tensor, "*batch action"]:
    """Return the action with opposite volumes subtracted: buy' = relu(buy - sell), sell' = relu(sell - buy).

    Elements 0 and 3 are the volumes; levels are unchanged. Differentiable.
    """
    difference = action[..., 0] - action[..., 3]
    buy, sell = F.relu(difference), F.relu(-difference)
    return torch.stack([buy, action[..., 1], action[..., 2], sell, action[..., 4], action[..., 5]], dim=-1)


def kl_to_standard_normal(mean: Tensor, logvar: Tensor) -> Tensor:
    """Return the divergence of N(mean, exp(logvar)) from N(0, 1), per element."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar)


class GaussianHead(nn.Module):
    """Gaussian policy squashed into bounds: a = high * sigmoid(mean + exp(logvar / 2) noise).

    ``logvar`` is clamped so that the deviation lies in [e^-5, e^2]; the KL uses it unclamped, so that it pulls back.

    Args:
        lot_cap: bound of the two volumes; the four levels are bounded by 1.
    """

    high: Tensor

    def __init__(self, lot_cap: float) -> None:
        super().__init__()
        self.register_buffer(
            "high", torch.tensor([lot_cap, 1, 1, lot_cap, 1, 1], dtype=torch.float32), persistent=False
        )

    def forward(self, x: Float[Tensor, "batch path moment"], noise: Tensor | None) -> PolicyOutput:
        """Return the policy's output; without noise it is deterministic."""
        mean, logvar = x.chunk(2, dim=-1)
        raw = mean
        if noise is not None:
            raw = mean + (logvar.clamp(2 * LOG_STD[0], 2 * LOG_STD[1]) / 2).exp() * noise
        squashed = self.high * raw.sigmoid()
        return PolicyOutput(mean, logvar, squashed, net_sides(squashed))


class _Trunk(nn.Module):
    """Embedding, attention over the context, two dense layers."""

    def __init__(self, inputs: int, outputs: int, config: PolicyConfig, context_width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, config.stack.width)
        self.stack = CrossAttentionStack(config.stack, context_width)
        self.dense1 = nn.Linear(config.stack.width, config.hidden)
        self.dense2 = nn.Linear(config.hidden, config.hidden)
        self.out = nn.Linear(config.hidden, outputs)

    def forward(self, x: Tensor, prepared: Prepared) -> Tensor:
        e = self.stack(F.silu(self.embed(x)), prepared)
        y: Tensor = self.out(F.silu(self.dense2(F.silu(self.dense1(e)))))
        return y


class Actor(nn.Module):
    """Account and context to an action: buy lots, buy TP, buy SL, sell lots, sell TP, sell SL.

    The last layer starts near 0: an untrained deterministic actor is flat, an untrained sampled one trades both
    sides.
    """

    def __init__(self, config: PolicyConfig, context_width: int) -> None:
        super().__init__()
        self.config = config
        self.trunk = _Trunk(config.account, 2 * config.action, config, context_width)
        self.head = GaussianHead(config.lot_cap)
        with torch.no_grad():
            self.trunk.out.weight.mul_(0.01)
            self.trunk.out.bias.zero_()

    def prepare(self, context: Float[Tensor, "batch token width"]) -> Prepared:
        """Return what depends on the context only."""
        return self.trunk.stack.prepare(context)

    def forward(
        self, account: Float[Tensor, "batch path account"], prepared: Prepared, noise: Tensor | None = None
    ) -> PolicyOutput:
        """Return the action of each path."""
        output: PolicyOutput = self.head(self.trunk(account, prepared), noise)
        return output


class Critic(nn.Module):
    """Account, context and netted action to one value per reward component."""

    def __init__(self, config: PolicyConfig, context_width: int) -> None:
        super().__init__()
        self.config = config
        self.trunk = _Trunk(config.account + config.action, config.reward, config, context_width)

    def forward(
        self,
        account: Float[Tensor, "batch path account"],
        context: Float[Tensor, "batch token width"],
        action: Float[Tensor, "batch path action"],
    ) -> Float[Tensor, "batch path reward"]:
        """Return the values of actions."""
        values: Tensor = self.trunk(torch.cat([account, action], dim=-1), self.trunk.stack.prepare(context))
        return values
