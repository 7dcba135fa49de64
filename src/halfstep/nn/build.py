"""Networks from configurations and a seed; the global random generator is left as it was."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from halfstep.nn.attention_encoder import AttentionEncoder
from halfstep.nn.config import (
    AttentionConfig,
    ModelConfig,
    StnnConfig,
    TpmStatefulConfig,
    TpmWindowedConfig,
)
from halfstep.nn.encoder import Encoder
from halfstep.nn.policy import Actor, Critic, CriticEnsemble, ValueNet
from halfstep.nn.stnn import Stnn
from halfstep.nn.tpm_stateful import TpmStateful
from halfstep.nn.tpm_windowed import TpmWindowed

Module = TypeVar("Module", bound=nn.Module)


def build_encoder(config: ModelConfig, *, feature_names: tuple[str, ...], seed: int) -> Encoder:
    """Return the encoder of the kind that ``config.encoder`` describes, with seeded weights."""

    def make() -> Encoder:
        match config.encoder:
            case TpmWindowedConfig():
                return TpmWindowed(config.encoder, feature_names)
            case TpmStatefulConfig():
                return TpmStateful(config.encoder, feature_names)
            case StnnConfig():
                return Stnn(config.encoder, feature_names)
            case AttentionConfig():
                return AttentionEncoder(config.encoder, feature_names)
            case _:
                raise TypeError(
                    f"encoder: {type(config.encoder).__name__}, must be TpmWindowedConfig, TpmStatefulConfig, "
                    "StnnConfig or AttentionConfig."
                )

    return _seeded(make, seed)


def build_actor(config: ModelConfig, *, seed: int) -> Actor:
    """Return an actor with seeded weights."""
    return _seeded(lambda: Actor(config.policy, config.encoder.context_width), seed)


def build_critic(config: ModelConfig, *, seed: int) -> Critic:
    """Return a critic with seeded weights."""
    return _seeded(lambda: Critic(config.critic, config.encoder.context_width), seed)


def build_critics(config: ModelConfig, *, seed: int, n: int = 2) -> CriticEnsemble:
    """Return independent critics with seeded weights."""
    return _seeded(lambda: CriticEnsemble(config.critic, config.encoder.context_width, n), seed)


def build_value(config: ModelConfig, *, seed: int) -> ValueNet:
    """Return a value network with seeded weights."""
    return _seeded(lambda: ValueNet(config.critic, config.encoder.context_width), seed)


def _seeded(make: Callable[[], Module], seed: int) -> Module:
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(seed)  # of the forked generator
        return make()
