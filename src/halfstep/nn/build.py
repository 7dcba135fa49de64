"""Networks from configurations and a seed; the global random generator is left as it was."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from halfstep.nn.config import ModelConfig
from halfstep.nn.encoder import AttentionEncoder
from halfstep.nn.policy import Actor, Critic

Module = TypeVar("Module", bound=nn.Module)


def build_encoder(config: ModelConfig, *, feature_names: tuple[str, ...], seed: int) -> AttentionEncoder:
    """Return an encoder with seeded weights."""
    return _seeded(lambda: AttentionEncoder(config.encoder, feature_names), seed)


def build_actor(config: ModelConfig, *, seed: int) -> Actor:
    """Return an actor with seeded weights."""
    return _seeded(lambda: Actor(config.policy, config.encoder.context_width), seed)


def build_critic(config: ModelConfig, *, seed: int) -> Critic:
    """Return a critic with seeded weights."""
    return _seeded(lambda: Critic(config.policy, config.encoder.context_width), seed)


def _seeded(make: Callable[[], Module], seed: int) -> Module:
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(seed)  # of the forked generator
        return make()
