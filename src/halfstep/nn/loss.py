"""The loss of a forecast, in time and in frequency."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from halfstep.nn.precision import raised


class LossTerms(NamedTuple):
    """Named terms of a loss, scalars."""

    total: Tensor
    mse: Tensor
    frequency: Tensor


def fredf_loss(
    forecast: Float[Tensor, "batch horizon feature"],
    target: Float[Tensor, "batch horizon feature"],
    alpha: float = 0.7,
    weights: Float[Tensor, " feature"] | None = None,
    fft_norm: Literal["backward", "ortho"] = "backward",
) -> LossTerms:
    """Return the frequency-enhanced direct forecast loss (FreDF, Wang et al. 2024).

        E = rfft(forecast) - rfft(target) over the horizon;   frequency = mean over batch, bins, features of w_f |E|
        mse = mean of w_f (forecast - target)^2;              total = alpha frequency + (1 - alpha) mse

    |E| has gradient 0 at 0. Forecast and target are standardised, so that features weigh the same.

    Args:
        forecast, target: standardised.
        alpha: share of the frequency term.
        weights: of the features, scaled here to a sum of as many as there are; None: all 1.
        fft_norm: ``"backward"``: plain transform, as in the paper; ``"ortho"`` makes alpha's meaning independent of
            the horizon.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: {alpha}, must lie in [0, 1].")
    error = raised(forecast) - raised(target)
    shares = error.new_ones(error.shape[2]) if weights is None else weights * (len(weights) / weights.sum())
    mse = (shares * error.square()).mean()
    # the transform is linear, so that of the difference is the difference of the transforms
    frequency = (shares * torch.fft.rfft(error, dim=1, norm=fft_norm).abs()).mean()
    return LossTerms(alpha * frequency + (1 - alpha) * mse, mse, frequency)
