"""The encoder: forecasts the next bars of every feature; its forecast is the context of actor and critic."""

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # the name torch's own documentation uses
from jaxtyping import Float
from torch import Tensor, nn

from halfstep.nn.attention import AttentionStack
from halfstep.nn.config import EncoderConfig
from halfstep.nn.normalise import InstanceStats, RevIN


class EncoderOutput(NamedTuple):
    """A forecast.

    Attributes:
        latent: ``(batch, horizon, feature)``, in units of the input window's deviation from its mean; row h is the
            bar h + 1 ahead.
        stats: mean and deviation of the input window.
    """

    latent: Tensor
    stats: InstanceStats


class ForecastHead(nn.Module):
    """Three dense layers from a state to ``(horizon, feature)``, plus a linear map of each feature's own window.

    The linear skip y[h, f] += sum_t L[f, h, t] x[t, f] starts at 0. Its output is not bounded: a forecast may
    exceed one deviation.
    """

    def __init__(self, width: int, config: EncoderConfig) -> None:
        super().__init__()
        self.horizon = config.horizon
        self.dense1 = nn.Linear(width, config.hidden)
        self.dense2 = nn.Linear(config.hidden, config.hidden)
        self.out = nn.Linear(config.hidden, config.horizon * config.features)
        self.skip = nn.Parameter(torch.zeros(config.features, config.horizon, config.bars))

    def forward(
        self, state: Float[Tensor, "batch width"], x: Float[Tensor, "batch time feature"]
    ) -> Float[Tensor, "batch horizon feature"]:
        """Return the normalised forecast from the state and the normalised window."""
        y = self.out(F.silu(self.dense2(F.silu(self.dense1(state)))))
        linear = torch.bmm(self.skip, x.permute(2, 1, 0))  # (feature, horizon, batch)
        nonlinear: Tensor = y.unflatten(-1, (self.horizon, -1))
        return nonlinear + linear.permute(2, 1, 0)


class AttentionEncoder(nn.Module):
    """Causal attention over patches of bars inside one window; the newest token makes the forecast.

    A context is a pure function of the window, so each bar is encoded once, in any order, and research, study and
    test agree by construction.

    Args:
        config: sizes.
        feature_names: names of the columns it reads, in order; carried with the weights.
    """

    def __init__(self, config: EncoderConfig, feature_names: tuple[str, ...]) -> None:
        super().__init__()
        if len(feature_names) != config.features:
            raise ValueError(f"feature_names: {len(feature_names)} names, must be {config.features}.")
        self.config, self.feature_names = config, feature_names
        width, tokens = config.stack.width, config.bars // config.patch
        self.norm = RevIN(config.features)
        self.embed = nn.Linear(config.patch * config.features, width)
        self.position = nn.Parameter(torch.zeros(tokens, width))
        self.stack = AttentionStack(config.stack)
        self.head = ForecastHead(width, config)

    def forward(self, x: Float[Tensor, "batch time feature"]) -> EncoderOutput:
        """Return the forecast of windows, oldest bar first."""
        stats = self.norm.statistics(x)
        normalised = self.norm.normalise(x, stats)
        tokens = self.embed(normalised.unflatten(1, (-1, self.config.patch)).flatten(2)) + self.position
        state = self.stack(tokens)[:, -1]
        return EncoderOutput(self.norm.undo_affine(self.head(state, normalised)), stats)

    def forecast(self, x: Float[Tensor, "batch time feature"]) -> Float[Tensor, "batch horizon feature"]:
        """Return the forecast in the units of the features."""
        latent, stats = self(x)
        forecast: Tensor = stats.deviation * latent + stats.mean
        return forecast

    def context(self, x: Float[Tensor, "batch time feature"]) -> Float[Tensor, "batch token width"]:
        """Return one token per feature: its forecast over the horizon, then its level and volatility."""
        latent, stats = self(x)
        return torch.cat([latent.transpose(1, 2), self.norm.describe(stats)], dim=-1)

    @torch.no_grad()
    def encode_table(
        self, features: Float[Tensor, "bar feature"], first: int, last: int, chunk: int = 512
    ) -> Float[Tensor, "row token width"]:
        """Return the context of bars ``first`` to ``last - 1``, each encoded once; windows are views of the table."""
        if not bool((self.norm.reference_std > 0).all()):
            raise ValueError(
                "the encoder has no statistics of its training span: train it, or load trained weights."
            )
        windows = features.unfold(0, self.config.bars, 1).transpose(1, 2)  # (bar - bars + 1, time, feature)
        start = first - self.config.bars + 1
        if start < 0:
            raise ValueError(f"first: {first}, must be at least {self.config.bars - 1}, one window of bars.")
        rows = [
            self.context(windows[k : min(k + chunk, last - self.config.bars + 1)])
            for k in range(start, last - self.config.bars + 1, chunk)
        ]
        return torch.cat(rows)
