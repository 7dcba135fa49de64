"""Small configurations of every encoder, and helpers that the tests of networks share."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from halfstep.nn.build import build_encoder
from halfstep.nn.config import (
    AttentionConfig,
    EncoderConfig,
    ModelConfig,
    StackConfig,
    StnnConfig,
    TpmStatefulConfig,
)
from halfstep.nn.encoder import Encoder
from halfstep.nn.presets import preset

NAMES = ("gap", "body", "upper", "lower", "relative_volume", "rsi", "cci", "atr", "macd")

STNN_STACK = StackConfig(
    width=9, layers=2, heads=4, kv_heads=2, head_dim=5, layers_per_kv=2, mask="causal", order="feed_forward_first"
)  # fmt: skip
KINDS: dict[str, EncoderConfig] = {
    "tpm_windowed": preset("tiny").encoder,
    "tpm_stateful": TpmStatefulConfig(hidden=16, plr_segments=8, burn_in=30),
    "stnn": StnnConfig(stack=STNN_STACK),
    "attention": AttentionConfig(
        stack=StackConfig(width=16, layers=2, heads=2, kv_heads=1, head_dim=8, mask="causal")
    ),
}
"""Sizes for tests, of each kind of encoder."""
WINDOW_KINDS = [kind for kind in KINDS if kind != "tpm_stateful"]


def encoder_of(kind: str, seed: int = 0, **changes: object) -> Encoder:
    """Return a small encoder that has statistics of a training span."""
    config = ModelConfig(encoder=replace(KINDS[kind], **changes))
    names = tuple(f"feature{k}" for k in range(config.encoder.features))
    encoder = build_encoder(config, feature_names=NAMES if config.encoder.features == 9 else names, seed=seed)
    encoder.norm.reference_std.fill_(1.0)
    return encoder.eval()


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def shaken(module: nn.Module, seed: int = 0, scale: float = 0.3) -> nn.Module:
    """Return a module in float64 whose every parameter, also one that begins at 0, is a distinct random number."""
    module = module.double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for param in module.parameters():
            param.add_(scale * torch.randn(param.shape, generator=generator, dtype=torch.float64))
    return module
