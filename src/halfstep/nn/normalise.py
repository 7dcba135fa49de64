"""Normalisation of windows with an exact inverse: RevIN, and running statistics as the option."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from halfstep.errors import ConfigError
from halfstep.nn.precision import raised

LEAST_VARIANCE = 1e-24
LEVEL_BOUND, VOLATILITY_BOUND = 5.0, 3.0

Columns = slice | list[int]
"""Which features a forecast holds."""
ALL = slice(None)


class InstanceStats(NamedTuple):
    """Mean and deviation of each feature over one window, ``(*batch, 1, feature)``, at least float32."""

    mean: Tensor
    deviation: Tensor


class Normaliser(nn.Module, ABC):
    """Normalisation (x - mu) / sigma with a learnt positive gain exp(g) and shift b per feature, both from 0.

        normalise(x)      = exp(g) (x - mu) / sigma + b, and the statistics
        denormalise(y)    = sigma (y - b) exp(-g) + mu
        standardise(y)    = (y - mu) / sigma                      the space of targets and losses, no affine
        describe(stats)   = (mu - m) / s within ±5, log(sigma / s) within ±3

    m and s are the feature's mean and deviation over the training span; training sets them. The gain is positive, so
    the inverse needs no guard.

    Args:
        features: numbers per bar.
        floor: least deviation, as a fraction of s. Relative, because an additive eps under the root would swamp price
            differences of 1e-4.
    """

    reference_mean: Tensor
    reference_std: Tensor

    def __init__(self, features: int, floor: float = 0.01) -> None:
        super().__init__()
        if floor < 0:
            raise ValueError(f"floor: {floor}, must be 0 or above.")
        self.floor = floor
        self.gain = nn.Parameter(torch.zeros(features))
        self.shift = nn.Parameter(torch.zeros(features))
        self.register_buffer("reference_mean", torch.zeros(features))
        self.register_buffer("reference_std", torch.zeros(features))

    @abstractmethod
    def moments(
        self, x: Float[Tensor, "*batch time feature"]
    ) -> tuple[Float[Tensor, "*batch #time feature"], Float[Tensor, "*batch #time feature"]]:
        """Return mean and variance by which each bar of a window is normalised, at least float32."""

    def normalise(
        self, x: Float[Tensor, "*batch time feature"]
    ) -> tuple[Float[Tensor, "*batch time feature"], InstanceStats]:
        """Return the window with level and volatility taken out, and the statistics of its newest bar."""
        mean, deviation = self._mean_and_deviation(x)
        normalised = self.gain.exp() * (raised(x) - mean) / deviation + self.shift
        return normalised.to(x.dtype), InstanceStats(mean[..., -1:, :], deviation[..., -1:, :])

    def statistics(self, x: Float[Tensor, "*batch time feature"]) -> InstanceStats:
        """Return the statistics alone."""
        mean, deviation = self._mean_and_deviation(x)
        return InstanceStats(mean[..., -1:, :], deviation[..., -1:, :])

    def undo_affine(
        self, y: Float[Tensor, "*batch time column"], columns: Columns = ALL
    ) -> Float[Tensor, "*batch time column"]:
        """Return standardised values from normalised ones; ``columns`` are the features that y holds."""
        return (y - self.shift[columns]) * (-self.gain[columns]).exp()

    def denormalise(
        self, y: Float[Tensor, "*batch time feature"], stats: InstanceStats
    ) -> Float[Tensor, "*batch time feature"]:
        """Return values in the units of the input from normalised ones."""
        return stats.deviation * self.undo_affine(y) + stats.mean

    @staticmethod
    def standardise(
        y: Float[Tensor, "*batch time feature"], stats: InstanceStats
    ) -> Float[Tensor, "*batch time feature"]:
        """Return ``(y - mu) / sigma``."""
        return (y - stats.mean) / stats.deviation

    def describe(self, stats: InstanceStats) -> Float[Tensor, "*batch feature 2"]:
        """Return each feature's level and log volatility relative to the training span, clipped."""
        scale = raised(self.reference_std).clamp_min(LEAST_VARIANCE)
        level = ((stats.mean[..., 0, :] - self.reference_mean) / scale).clamp(-LEVEL_BOUND, LEVEL_BOUND)
        ratio = (stats.deviation[..., 0, :] / scale).log()
        return torch.stack([level, ratio.clamp(-VOLATILITY_BOUND, VOLATILITY_BOUND)], dim=-1)

    def _mean_and_deviation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = self.moments(x)
        least = (self.floor * raised(self.reference_std)).square().clamp_min(LEAST_VARIANCE)
        return mean, variance.maximum(least).sqrt()


class RevIN(Normaliser):
    """Reversible instance normalisation (Kim et al. 2022): statistics of the window itself, over time.

    mu = mean_t x      sigma = sqrt(max(var_t x, (floor s)^2, 1e-24))

    Nothing is remembered, nothing changes in evaluation, and a window's result does not depend on other windows.
    """

    def moments(
        self, x: Float[Tensor, "*batch time feature"]
    ) -> tuple[Float[Tensor, "*batch #time feature"], Float[Tensor, "*batch #time feature"]]:
        """Return mean and biased variance over time."""
        x = raised(x)
        mean = x.mean(dim=-2, keepdim=True)
        return mean, (x - mean).square().mean(dim=-2, keepdim=True)


class RunningNorm(Normaliser):
    """Running statistics of all windows seen in training, the published layout; frozen in evaluation.

        n += 1;   w = 1 / min(n, window);   mu += w (x - mu);   var += w ((x - mu)^2 - var)      for each sample

    x is the sample's mean over time (of x and of (x - mu)^2), or with ``per_position`` each bar of the window by
    itself. One process only.

    Args:
        features: numbers per bar.
        window: samples over which the statistics run.
        positions: bars of a window, for own statistics of each bar; None: one for all bars.
        floor: as in `Normaliser`.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(
        self, features: int, window: int = 10_000, positions: int | None = None, floor: float = 0.01
    ) -> None:
        super().__init__(features, floor)
        if window < 1:
            raise ValueError(f"window: {window}, must be at least 1.")
        self.window, self.per_position = window, positions is not None
        self.register_buffer("mean", torch.zeros(positions or 1, features))
        self.register_buffer("variance", torch.ones(positions or 1, features))
        self.register_buffer("count", torch.zeros(()))

    def moments(
        self, x: Float[Tensor, "*batch time feature"]
    ) -> tuple[Float[Tensor, "*batch #time feature"], Float[Tensor, "*batch #time feature"]]:
        """Return the running statistics; in training, after they have seen these windows."""
        if self.training:
            self._see(raised(x.detach()).flatten(0, -3))
        # copies, so that a later window changes no statistics that were given out
        mean, variance = self.mean.clone(), self.variance.clone()
        return mean.expand(*x.shape[:-2], -1, -1), variance.expand(*x.shape[:-2], -1, -1)

    @torch.no_grad()
    def _see(self, windows: Float[Tensor, "sample time feature"]) -> None:
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            raise ConfigError(
                f"norm: running statistics with {dist.get_world_size()} processes, must be one process. "
                "Use norm='revin'."
            )
        for x in windows:
            self.count += 1
            weight = 1 / self.count.clamp_max(self.window)
            self.mean += weight * (self._over_time(x) - self.mean)
            self.variance += weight * (self._over_time((x - self.mean).square()) - self.variance)

    def _over_time(self, x: Tensor) -> Tensor:
        return x if self.per_position else x.mean(dim=0, keepdim=True)
