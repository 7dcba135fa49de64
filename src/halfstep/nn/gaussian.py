"""Gaussian policy squashed into bounds, and the netting of its two sides."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # the name torch's own documentation uses
from jaxtyping import Float
from torch import Tensor, nn

from halfstep.nn.precision import raised

EDGE = 1e-4  # least distance of a fraction from 0 and 1 where the squash is inverted


class GaussianOutput(NamedTuple):
    """A squashed Gaussian and a draw of it, each ``(*batch, action)``.

    Attributes:
        mean, logvar: before squashing.
        raw: the draw before squashing.
        squashed: the draw within its bounds.
    """

    mean: Tensor
    logvar: Tensor
    raw: Tensor
    squashed: Tensor


class GaussianHead(nn.Module):
    """raw = mean + exp(clamp(logvar, 2 log_std) / 2) noise;   a = low + (high - low) sigmoid(raw).

    Bounds ±1 give tanh(raw / 2).

    Args:
        low, high: bounds of each element.
        log_std: least and greatest log of the deviation.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self, low: Sequence[float], high: Sequence[float], log_std: tuple[float, float] = (-5.0, 2.0)
    ) -> None:
        super().__init__()
        if len(low) != len(high) or not all(a < b for a, b in zip(low, high, strict=False)):
            raise ValueError(f"low, high: {low}, {high}, must be as many, each low below its high.")
        self.log_std = log_std
        self.register_buffer("low", torch.tensor(low, dtype=torch.float32), persistent=False)
        self.register_buffer("high", torch.tensor(high, dtype=torch.float32), persistent=False)

    def forward(
        self, x: Float[Tensor, "*batch moment"], noise: Float[Tensor, "*batch action"] | None = None
    ) -> GaussianOutput:
        """Return the policy for (mean, logvar) in this order; without noise raw is the mean."""
        mean, logvar = x.chunk(2, dim=-1)
        raw = mean if noise is None else mean + self.std(logvar) * noise
        return GaussianOutput(mean, logvar, raw, self.squash(raw))

    def std(self, logvar: Float[Tensor, "*batch action"]) -> Float[Tensor, "*batch action"]:
        """Return the deviation, within its bounds."""
        return (logvar.clamp(2 * self.log_std[0], 2 * self.log_std[1]) / 2).exp()

    def squash(self, raw: Float[Tensor, "*batch action"]) -> Float[Tensor, "*batch action"]:
        """Return low + (high - low) sigmoid(raw)."""
        low, high = self.low.to(raw.dtype), self.high.to(raw.dtype)
        return low + (high - low) * raw.sigmoid()

    def inverse(self, action: Float[Tensor, "*batch action"]) -> Float[Tensor, "*batch action"]:
        """Return the raw value of an action; at its bounds, that of a fraction 1e-4 inside."""
        fraction = (raised(action) - self.low) / (self.high - self.low)
        return fraction.clamp(EDGE, 1 - EDGE).logit()

    def log_prob(self, output: GaussianOutput) -> Float[Tensor, "*batch"]:
        """Return log pi(a) = sum log N(raw) - log(high - low) + softplus(raw) + softplus(-raw)."""
        mean, logvar, raw = raised(output.mean), raised(output.logvar), raised(output.raw)
        std = self.std(logvar)
        normal = -0.5 * ((raw - mean) / std).square() - std.log() - 0.5 * math.log(2 * math.pi)
        squash = F.softplus(raw) + F.softplus(-raw) - (self.high - self.low).log()
        return (normal + squash).sum(dim=-1)


def kl_to_standard_normal(
    mean: Float[Tensor, "*shape"], logvar: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Return (mean^2 + exp(logvar) - 1 - logvar) / 2 per element, on the unclamped logvar, so that it pulls back."""
    mean, logvar = raised(mean), raised(logvar)
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar)


def net_sides(action: Float[Tensor, "*batch action"]) -> Float[Tensor, "*batch action"]:
    """Return the action with opposite volumes subtracted: buy' = relu(buy - sell), sell' = relu(sell - buy).

    Elements 0 and 3 are the volumes; levels are unchanged. Differentiable. Critic and broker see only netted actions.
    """
    difference = action[..., 0] - action[..., 3]
    buy, sell = F.relu(difference), F.relu(-difference)
    return torch.stack([buy, action[..., 1], action[..., 2], sell, action[..., 4], action[..., 5]], dim=-1)
