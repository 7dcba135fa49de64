"""Actor, critic and value network: the account attends to the context of its bar.

    e = act(Dense(inputs -> E));   e = CrossAttentionStack(E; context)(e)       accounts are the query tokens
    outputs = Dense(... act(Dense(e)))

Many accounts at one bar are paths of one sample: `prepare` computes what depends on the context once for all of them.
"""

from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from halfstep.nn.attention import CrossAttentionStack, Folded, Prepared
from halfstep.nn.config import CriticConfig, PolicyConfig, StackConfig
from halfstep.nn.dense import Dense
from halfstep.nn.gaussian import GaussianHead, net_sides


class PolicyOutput(NamedTuple):
    """What an actor says, each ``(batch, path, action)``.

    Attributes:
        mean, logvar: of the Gaussian before squashing.
        raw: the draw before squashing.
        squashed: the bounded action before netting; behaviour cloning compares this.
        action: after netting; the critic and the broker see only this.
    """

    mean: Tensor
    logvar: Tensor
    raw: Tensor
    squashed: Tensor
    action: Tensor


class ContextNetwork(nn.Module):
    """Embedding, attention over the context, dense layers; the part that actor, critic and value network share."""

    def __init__(
        self, inputs: int, outputs: int, *, stack: StackConfig, context_width: int, hidden: int, depth: int,
        activation: str,
    ) -> None:  # fmt: skip
        super().__init__()
        self.context_width = context_width
        self.embed = Dense(inputs, stack.width, activation)
        self.stack = CrossAttentionStack(replace(stack, context_width=context_width))
        widths = [stack.width] + depth * [hidden]
        self.trunk = nn.Sequential(*(Dense(a, b, activation) for a, b in pairwise(widths)))
        self.out = Dense(hidden, outputs)

    def prepare(self, context: Float[Tensor, "batch token width"]) -> Prepared:
        """Return what depends on the context only; a context of batch 1 serves any batch."""
        return self.stack.prepare(context)

    def answer(
        self, x: Float[Tensor, "batch path input"], prepared: Prepared
    ) -> Float[Tensor, "batch path output"]:
        """Return the outputs of each path."""
        y: Tensor = self.out(self.trunk(self.stack(self.embed(x), prepared)))
        return y

    def fold(self, context: Float[Tensor, "context token width"]) -> Folded:
        """Return the attention of many paths over each context, see `CrossAttentionStack.fold`."""
        return self.stack.fold(context)

    def answer_folded(
        self, x: Float[Tensor, "path input"], folded: Folded, context: int
    ) -> Float[Tensor, "path output"]:
        """Return the outputs of paths that share one context of those that were folded."""
        y: Tensor = self.out(self.trunk(self.stack.forward_folded(self.embed(x), folded, context)))
        return y


class Actor(ContextNetwork):
    """Account and context to an action: buy lots, buy TP, buy SL, sell lots, sell TP, sell SL.

    The last layer starts near 0: an untrained deterministic actor is flat (its net volume is under one lot step), an
    untrained sampled one trades both sides.
    """

    def __init__(self, config: PolicyConfig, context_width: int) -> None:
        super().__init__(
            config.account, 2 * config.action, stack=config.stack, context_width=context_width,
            hidden=config.hidden, depth=2, activation=config.activation,
        )  # fmt: skip
        self.config = config
        low = 2 * (0.0, config.level_floor, config.level_floor)
        self.head = GaussianHead(low, 2 * (config.lot_cap, 1.0, 1.0))
        with torch.no_grad():
            self.out.weight.mul_(0.01)

    def forward(
        self,
        account: Float[Tensor, "batch path account"],
        prepared: Prepared,
        noise: Float[Tensor, "batch path action"] | None = None,
    ) -> PolicyOutput:
        """Return the action of each path; without noise the deterministic one."""
        mean, logvar, raw, squashed = self.head(self.answer(account, prepared), noise)
        return PolicyOutput(mean, logvar, raw, squashed, net_sides(squashed))

    def act_folded(
        self,
        account: Float[Tensor, "path account"],
        folded: Folded,
        context: int,
        noise: Float[Tensor, "path action"] | None = None,
    ) -> Float[Tensor, "path action"]:
        """Return the netted action of paths that share one context of those that were folded."""
        return net_sides(self.head(self.answer_folded(account, folded, context), noise).squashed)


class Critic(ContextNetwork):
    """Account, context and netted action to one value per reward component."""

    def __init__(self, config: CriticConfig, context_width: int) -> None:
        super().__init__(
            config.action + (config.account if config.use_account else 0), config.reward, stack=config.stack,
            context_width=context_width, hidden=config.hidden, depth=3, activation=config.activation,
        )  # fmt: skip
        self.config = config

    def forward(
        self,
        account: Float[Tensor, "batch path account"],
        action: Float[Tensor, "batch path action"],
        prepared: Prepared,
    ) -> Float[Tensor, "batch path reward"]:
        """Return the values of actions."""
        return self.answer(
            torch.cat([account, action], dim=-1) if self.config.use_account else action, prepared
        )


class CriticEnsemble(nn.Module):
    """Independent critics.

    Args:
        config, context_width: of each critic.
        n: critics.
    """

    def __init__(self, config: CriticConfig, context_width: int, n: int = 2) -> None:
        super().__init__()
        if n < 1:
            raise ValueError(f"n: {n}, must be at least 1.")
        self.config, self.context_width = config, context_width
        self.critics = nn.ModuleList(Critic(config, context_width) for _ in range(n))

    def prepare(self, context: Float[Tensor, "batch token width"]) -> list[Prepared]:
        """Return what depends on the context only, of each critic."""
        return [critic.prepare(context) for critic in self._critics()]

    def forward(
        self,
        account: Float[Tensor, "batch path account"],
        action: Float[Tensor, "batch path action"],
        prepared: list[Prepared],
    ) -> Float[Tensor, "critic batch path reward"]:
        """Return the values of each critic."""
        return torch.stack(
            [critic(account, action, kv) for critic, kv in zip(self._critics(), prepared, strict=True)]
        )

    @staticmethod
    def min(
        values: Float[Tensor, "critic batch path reward"], weights: Float[Tensor, " reward"]
    ) -> Float[Tensor, "batch path"]:
        """Return the least weighted value: min over critics of values · weights."""
        return (values @ weights).amin(dim=0)

    def _critics(self) -> list[Critic]:
        return [critic for critic in self.critics if isinstance(critic, Critic)]


class ValueNet(ContextNetwork):
    """Account and context to one value."""

    def __init__(self, config: CriticConfig, context_width: int) -> None:
        super().__init__(
            config.account, 1, stack=config.stack, context_width=context_width, hidden=config.hidden, depth=3,
            activation=config.activation,
        )  # fmt: skip
        self.config = config

    def forward(
        self, account: Float[Tensor, "batch path account"], prepared: Prepared
    ) -> Float[Tensor, "batch path"]:
        """Return the value of each path."""
        return self.answer(account, prepared).squeeze(-1)
