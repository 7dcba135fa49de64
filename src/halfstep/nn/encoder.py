"""What every encoder is: windows of bars in, a forecast out, and the forecast is the context of actor and critic."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from halfstep.nn.config import EncoderConfig
from halfstep.nn.normalise import ALL, Columns, InstanceStats, Normaliser, RevIN, RunningNorm


class EncoderOutput(NamedTuple):
    """A forecast.

    Attributes:
        latent: ``(*batch, horizon, column)``, in units of the input window's deviation from its mean; row h is the bar
            h + 1 ahead. Columns are the features, or those that the encoder forecasts.
        stats: mean and deviation of the input window, of all features.
    """

    latent: Tensor
    stats: InstanceStats


class Encoder(nn.Module, ABC):
    """What training, research and export need of an encoder.

    Args:
        config: sizes.
        feature_names: names of the columns it reads, in order; carried with the weights.
    """

    columns: Columns = ALL
    """Features that the encoder forecasts."""

    def __init__(self, config: EncoderConfig, feature_names: tuple[str, ...]) -> None:
        super().__init__()
        if len(feature_names) != config.features:
            raise ValueError(f"feature_names: {len(feature_names)} names, must be {config.features}.")
        self.config, self.feature_names = config, feature_names
        self.norm: Normaliser = RevIN(config.features)
        if config.norm != "revin":
            positions = config.bars if config.norm == "running_per_position" else None
            self.norm = RunningNorm(config.features, positions=positions)

    @property
    @abstractmethod
    def first_row(self) -> int:
        """First row of a table that has a context."""

    @abstractmethod
    def encode_table(
        self, features: Float[Tensor, "bar feature"], first: int, last: int, chunk: int = 512
    ) -> Float[Tensor, "row token width"]:
        """Return the context of bars ``first`` to ``last - 1``, each encoded once; windows are views of the table.

        Raises:
            ValueError: bars before `first_row`, or no statistics of the training span.
        """

    def static(self, x: Float[Tensor, "batch time feature"]) -> Float[Tensor, "batch static"] | None:  # noqa: ARG002
        """Return what the encoder reads of windows besides their bars and without parameters, None if nothing.

        Training computes it once per bar and gives it to `forward`.
        """
        return None

    def to_context(self, output: EncoderOutput) -> Float[Tensor, "*batch token width"]:
        """Return one token per forecast feature: its forecast over the horizon, then its level and volatility."""
        tokens = output.latent.transpose(-1, -2)
        if not self.config.context_stats:
            return tokens
        described = self.norm.describe(output.stats)[..., self.columns, :]
        return torch.cat([tokens, described.to(tokens.dtype)], dim=-1)

    def to_units(self, output: EncoderOutput) -> Float[Tensor, "*batch horizon column"]:
        """Return the forecast in the units of the features."""
        mean, deviation = (part[..., self.columns] for part in output.stats)
        units: Tensor = deviation * output.latent + mean
        return units

    def windows(
        self, features: Float[Tensor, "bar feature"], first: int, last: int
    ) -> Float[Tensor, "row time feature"]:
        """Return the windows that end at bars ``first`` to ``last - 1``, as a view of the table."""
        if not bool((self.norm.reference_std > 0).all()):
            raise ValueError(
                "the encoder has no statistics of its training span: train it, or load trained weights."
            )
        if first < self.first_row:
            raise ValueError(
                f"first: {first}, must be at least {self.first_row}, the first bar with a context."
            )
        if not first <= last <= len(features):
            raise ValueError(f"last: {last}, must lie between first {first} and the {len(features)} bars.")
        before = self.config.bars - 1
        return features[first - before : last].unfold(0, self.config.bars, 1).transpose(1, 2)


class WindowEncoder(Encoder, ABC):
    """An encoder whose context is a pure function of the last T bars.

    Each bar is encoded once, in any order, and research, training and test agree by construction.
    """

    def forward(
        self, x: Float[Tensor, "batch time feature"], static: Float[Tensor, "batch static"] | None = None
    ) -> EncoderOutput:
        """Return the forecast of windows, oldest bar first; ``static`` if it was computed before."""
        normalised, stats = self.norm.normalise(x)
        if static is None:
            static = self.static(x)
        return EncoderOutput(self.norm.undo_affine(self.predict(normalised, static), self.columns), stats)

    @abstractmethod
    def predict(
        self, x: Float[Tensor, "batch time feature"], static: Float[Tensor, "batch static"] | None
    ) -> Float[Tensor, "batch horizon column"]:
        """Return the forecast of normalised windows, in normalised values."""

    @property
    def first_row(self) -> int:
        """First row of a table that ends a whole window."""
        return self.config.bars - 1

    def forecast(self, x: Float[Tensor, "batch time feature"]) -> Float[Tensor, "batch horizon column"]:
        """Return the forecast in the units of the features."""
        return self.to_units(self(x))

    def context(self, x: Float[Tensor, "batch time feature"]) -> Float[Tensor, "batch token width"]:
        """Return the context of windows."""
        return self.to_context(self(x))

    @torch.no_grad()
    def encode_table(
        self, features: Float[Tensor, "bar feature"], first: int, last: int, chunk: int = 512
    ) -> Float[Tensor, "row token width"]:
        """Return the context of bars ``first`` to ``last - 1``."""
        return torch.cat([self.context(part) for part in self.windows(features, first, last).split(chunk)])
