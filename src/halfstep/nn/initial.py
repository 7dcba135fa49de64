"""First weights: uniform between ±1/sqrt(fan_in)."""

import math

import torch
from torch import Tensor


def uniform_(weight: Tensor, fan_in: int) -> None:
    """Fill a tensor in place with numbers between -1/sqrt(fan_in) and 1/sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    with torch.no_grad():
        weight.uniform_(-bound, bound)
