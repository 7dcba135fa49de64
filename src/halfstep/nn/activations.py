"""Activations by name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812  # the name torch's own documentation uses
from torch import Tensor

ActivationName = Literal[
    "none", "tanh", "sigmoid", "relu", "leaky_relu", "softplus", "elu", "gelu", "silu"
]  # fmt: skip


def identity(x: Tensor) -> Tensor:
    """Return the argument."""
    return x


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "none": identity, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": F.relu, "leaky_relu": F.leaky_relu,
        "softplus": F.softplus, "elu": F.elu, "gelu": F.gelu, "silu": F.silu,
    }
)  # fmt: skip
"""leaky_relu has slope 0.01 below 0; softplus is log(1 + exp(x)), which is x for large x."""


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """Return an activation by name.

    Raises:
        ValueError: no activation has that name; the message lists them.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation: {name!r}, must be one of {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]
