"""Instance normalisation with an exact inverse (RevIN)."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

LEAST_VARIANCE = 1e-24
LEVEL_BOUND, VOLATILITY_BOUND = 5.0, 3.0


class InstanceStats(NamedTuple):
    """Mean and deviation of each feature over one window, ``(batch, 1, feature)``."""

    mean: Tensor
    deviation: Tensor


class RevIN(nn.Module):
    """Reversible instance normalisation (Kim et al. 2022) with a positive gain.

        mu = mean_t x      sigma = sqrt(max(var_t x, (floor s)^2, 1e-24))
        normalise(x)   = exp(g) (x - mu) / sigma + b        denormalise(y) = sigma (y - b) exp(-g) + mu
        standardise(y) = (y - mu) / sigma                   the space of targets and losses, no affine

    The gain is exp(g) > 0, so the inverse needs no guard. The floor is relative to the feature's own deviation s
    over the training span; an additive eps would swamp price differences of 1e-4.

    Args:
        features: numbers per bar.
        floor: least deviation of a window, as a fraction of the feature's deviation over the training span.
    """

    reference_mean: Tensor
    reference_std: Tensor

    def __init__(self, features: int, floor: float = 0.01) -> None:
        super().__init__()
        self.floor = floor
        self.gain = nn.Parameter(torch.zeros(features))
        self.shift = nn.Parameter(torch.zeros(features))
        self.register_buffer("reference_mean", torch.zeros(features))
        self.register_buffer("reference_std", torch.zeros(features))

    def statistics(self, x: Float[Tensor, "batch time feature"]) -> InstanceStats:
        """Return mean and floored deviation over time; nothing is learnt, nothing is remembered."""
        mean = x.mean(dim=1, keepdim=True)
        variance = (x - mean).square().mean(dim=1, keepdim=True)
        least = (self.floor * self.reference_std).square().clamp_min(LEAST_VARIANCE)
        return InstanceStats(mean, variance.maximum(least).sqrt())

    def normalise(
        self, x: Float[Tensor, "batch time feature"], stats: InstanceStats
    ) -> Float[Tensor, "batch time feature"]:
        """Return the window with its level and volatility taken out, then the learnt affine."""
        return self.gain.exp() * (x - stats.mean) / stats.deviation + self.shift

    def undo_affine(self, y: Float[Tensor, "batch time feature"]) -> Float[Tensor, "batch time feature"]:
        """Return standardised values from normalised ones."""
        return (y - self.shift) * (-self.gain).exp()

    def denormalise(
        self, y: Float[Tensor, "batch time feature"], stats: InstanceStats
    ) -> Float[Tensor, "batch time feature"]:
        """Return values in the units of the input from normalised ones."""
        return stats.deviation * self.undo_affine(y) + stats.mean

    @staticmethod
    def standardise(
        y: Float[Tensor, "batch time feature"], stats: InstanceStats
    ) -> Float[Tensor, "batch time feature"]:
        """Return ``(y - mu) / sigma``."""
        return (y - stats.mean) / stats.deviation

    def describe(self, stats: InstanceStats) -> Float[Tensor, "batch feature 2"]:
        """Return each feature's level and log volatility relative to the training span, clipped."""
        scale = self.reference_std.clamp_min(LEAST_VARIANCE)
        level = ((stats.mean[:, 0] - self.reference_mean) / scale).clamp(-LEVEL_BOUND, LEVEL_BOUND)
        volatility = (stats.deviation[:, 0] / scale).log().clamp(-VOLATILITY_BOUND, VOLATILITY_BOUND)
        return torch.stack([level, volatility], dim=-1)
