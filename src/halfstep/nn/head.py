"""From a state to a forecast: dense layers, and a linear map of each feature's own window."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from halfstep.nn.dense import Dense

DEFAULT_ACTIVATIONS = ("silu", "silu", "none")


def linear_skip(
    weight: Float[Tensor, "feature horizon time"], x: Float[Tensor, "*batch time feature"]
) -> Float[Tensor, "*batch horizon feature"]:
    """Return y[h, f] = sum_t weight[f, h, t] x[t, f]."""
    y = torch.bmm(weight, x.flatten(0, -3).permute(2, 1, 0))  # (feature, horizon, batch)
    forecast: Tensor = y.permute(2, 1, 0).unflatten(0, x.shape[:-2])
    return forecast


class ForecastHead(nn.Module):
    """Three dense layers to ``(horizon, feature)``, plus a `linear_skip`, which begins at 0.

    The forecast is of normalised values. A linear output can exceed one deviation; the series' tanh cannot.

    Args:
        hidden: size of the state and of the inner layers.
        horizon, features: shape of the forecast.
        activations: of the three layers.
        skip_bars: bars of the window that the skip reads; None: no skip.
    """

    def __init__(
        self,
        hidden: int,
        horizon: int,
        features: int,
        activations: tuple[str, str, str] = DEFAULT_ACTIVATIONS,
        skip_bars: int | None = None,
    ) -> None:
        super().__init__()
        self.horizon = horizon
        self.dense1 = Dense(hidden, hidden, activations[0])
        self.dense2 = Dense(hidden, hidden, activations[1])
        self.out = Dense(hidden, horizon * features, activations[2])
        self.skip = None if skip_bars is None else nn.Parameter(torch.zeros(features, horizon, skip_bars))

    def forward(
        self, state: Float[Tensor, "*batch hidden"], x: Float[Tensor, "*batch time feature"]
    ) -> Float[Tensor, "*batch horizon feature"]:
        """Return the forecast from the state and the normalised window."""
        y: Tensor = self.out(self.dense2(self.dense1(state))).unflatten(-1, (self.horizon, -1))
        return y if self.skip is None else y + linear_skip(self.skip, x)
