"""Named sizes of all networks."""

from dataclasses import replace

from halfstep.nn.config import (
    CriticConfig,
    ModelConfig,
    PolicyConfig,
    StackConfig,
    TpmStatefulConfig,
    TpmWindowedConfig,
)

PRESETS = ("tiny", "default", "reference")


def preset(
    name: str, *, lot_cap: float = 1.0, level_floor: float = 0.0, context_bars: int = 0
) -> ModelConfig:
    """Return the sizes called ``"tiny"`` (for tests), ``"default"`` or ``"reference"`` (the published ones).

    Variants are made with `dataclasses.replace`.

    Args:
        lot_cap: largest volume of the actor, lots.
        level_floor: least fraction of a target or stop of the actor.
        context_bars: newest bars that contexts hold themselves.
    """
    if name not in PRESETS:
        raise ValueError(f"preset: {name!r}, must be one of {', '.join(PRESETS)}.")
    sizes = {"tiny": _tiny, "default": ModelConfig, "reference": _reference}[name]()
    return replace(
        sizes,
        encoder=replace(sizes.encoder, context_bars=context_bars),
        policy=replace(sizes.policy, lot_cap=lot_cap, level_floor=level_floor),
    )


def _tiny() -> ModelConfig:
    stack = StackConfig(width=8, layers=2, heads=2, kv_heads=1, head_dim=4, layers_per_kv=2)
    return ModelConfig(
        encoder=TpmWindowedConfig(hidden=16, channels=4, filters=2, pool=8, score=8, plr_segments=8),
        policy=PolicyConfig(hidden=16, stack=stack),
        critic=CriticConfig(hidden=16, stack=stack),
    )


def _reference() -> ModelConfig:
    stack = StackConfig(width=32, layers=9, heads=8, kv_heads=4)
    return ModelConfig(
        encoder=TpmStatefulConfig(
            hidden=256, head=("leaky_relu", "sigmoid", "tanh"), linear_skip=False, context_stats=False,
            plr_series="all", plr_threshold=0.3, plr_segments=40,
        ),
        policy=PolicyConfig(hidden=256, activation="sigmoid", stack=stack),
        critic=CriticConfig(hidden=256, activation="sigmoid", stack=stack),
    )  # fmt: skip
