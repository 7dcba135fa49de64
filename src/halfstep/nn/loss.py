"""The loss of the forecast, in time and in frequency."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class LossTerms(NamedTuple):
    """Named terms of a loss, scalars."""

    total: Tensor
    mse: Tensor
    frequency: Tensor


def fredf_loss(
    forecast: Float[Tensor, "batch horizon feature"],
    target: Float[Tensor, "batch horizon feature"],
    alpha: float = 0.7,
) -> LossTerms:
    """Return the frequency-enhanced direct forecast loss (Wang et al. 2024).

    E = rfft(forecast) - rfft(target) over the horizon;   frequency = mean |E|
    mse = mean (forecast - target)^2;                     total = alpha frequency + (1 - alpha) mse
    """
    error = forecast - target
    mse = error.square().mean()
    frequency = torch.fft.rfft(error, dim=1).abs().mean()
    return LossTerms(alpha * frequency + (1 - alpha) * mse, mse, frequency)
