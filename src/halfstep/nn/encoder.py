"""What every encoder is: windows of bars in, a forecast out, and the forecast is the context of actor and critic."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # the name torch's own documentation uses
from jaxtyping import Float
from torch import Tensor, nn

from halfstep.nn.config import EncoderConfig
from halfstep.nn.normalise import ALL, Columns, InstanceStats, Normaliser, RevIN, RunningNorm

LEAST_CONTEXT_DEVIATION = (
    1e-3  # forecasts that differ less from bar to bar say nothing: they are not blown up
)
NEWEST_BOUND = 5.0  # deviations of the newest bars from their window's mean
SIGNATURE_KEY = 20240616


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
        columns: features that it forecasts.
    """

    context_scale: Tensor
    context_shift: Tensor

    def __init__(self, config: EncoderConfig, feature_names: tuple[str, ...], columns: Columns = ALL) -> None:
        super().__init__()
        if len(feature_names) != config.features:
            raise ValueError(f"feature_names: {len(feature_names)} names, must be {config.features}.")
        self.config, self.feature_names, self.columns = config, feature_names, columns
        self.norm: Normaliser = RevIN(config.features)
        if config.norm != "revin":
            positions = config.bars if config.norm == "running_per_position" else None
            self.norm = RunningNorm(config.features, positions=positions)
        tokens = len(torch.zeros(config.features)[columns]) + (config.context_bars > 0)
        shape = (tokens, config.context_width)
        self.register_buffer("context_scale", torch.ones(shape))
        self.register_buffer("context_shift", torch.zeros(shape))

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

    def to_context(
        self, output: EncoderOutput, x: Float[Tensor, "*batch time feature"] | None = None
    ) -> Float[Tensor, "*batch token width"]:
        """Return one token per forecast feature: its forecast over the horizon, then its level and volatility.

        With ``context_bars`` one more token holds the newest bars themselves, in columns of its own: attention that
        knows nothing yet adds all tokens up, and finds these numbers unmixed. Elsewhere those columns are 0.

        Each number is brought to the scale that `fit_context` found, and marked with its token's signature; before
        that it is as it is.

        Args:
            output: of windows.
            x: the windows, needed for ``context_bars``: deviations of so many newest bars from the window's mean, bar
                by bar, oldest first, within ±5.
        """
        tokens = output.latent.transpose(-1, -2)
        if self.config.context_stats:
            described = self.norm.describe(output.stats)[..., self.columns, :]
            tokens = torch.cat([tokens, described.to(tokens.dtype)], dim=-1)
        if bars := self.config.context_bars:
            if x is None:
                raise ValueError(f"x: not given, but context_bars is {bars}. Give the windows as well.")
            newest = self.norm.standardise(x[..., -bars:, :], output.stats).clamp(-NEWEST_BOUND, NEWEST_BOUND)
            newest = newest.to(tokens.dtype).flatten(-2)[..., None, :]
            tokens = torch.cat(
                [F.pad(tokens, (0, newest.shape[-1])), F.pad(newest, (tokens.shape[-1], 0))], dim=-2
            )
        return tokens * self.context_scale.to(tokens.dtype) + self.context_shift.to(tokens.dtype)

    @torch.no_grad()
    def fit_context(self, rows: Float[Tensor, "row token width"]) -> None:
        """Set the scale of contexts from those of the training span, made before this was called.

            c = (context - mean) / deviation + signature

        Mean and deviation over the rows, for each number of each token; the signature is +1 or -1, fixed for each.
        Forecasts of what can hardly be forecast are small numbers: without this, actor and critic learn from them
        slowly. Attention does not know one token from another: the signature says which feature a token is.
        """
        mean, deviation = rows.mean(dim=0), rows.std(dim=0, correction=0)
        self.context_scale.copy_(1 / deviation.clamp_min(LEAST_CONTEXT_DEVIATION))
        self.context_shift.copy_(signatures(*rows.shape[1:]) - mean * self.context_scale)

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
        return self.to_context(self(x), x)

    @torch.no_grad()
    def encode_table(
        self, features: Float[Tensor, "bar feature"], first: int, last: int, chunk: int = 512
    ) -> Float[Tensor, "row token width"]:
        """Return the context of bars ``first`` to ``last - 1``."""
        return torch.cat([self.context(part) for part in self.windows(features, first, last).split(chunk)])


def signatures(tokens: int, width: int) -> Float[Tensor, "token width"]:
    """Return a fixed pattern of +1 and -1 for each token, the same on every machine."""
    draws = np.random.Generator(np.random.Philox(SIGNATURE_KEY)).integers(0, 2, (tokens, width))
    return torch.from_numpy(2.0 * draws - 1).float()
