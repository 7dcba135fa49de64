"""Slowly moving copies of networks."""

import torch
from torch import nn


@torch.no_grad()
def polyak_(target: nn.Module, source: nn.Module, tau: float) -> None:
    """Move a copy: target += tau (source - target), for every parameter; buffers are copied."""
    if not 0 <= tau <= 1:
        raise ValueError(f"tau: {tau}, must lie in [0, 1].")
    for moving, param in zip(target.parameters(), source.parameters(), strict=True):
        moving.lerp_(param, tau)
    for copied, buffer in zip(target.buffers(), source.buffers(), strict=True):
        copied.copy_(buffer)
