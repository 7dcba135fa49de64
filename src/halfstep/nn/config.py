"""Sizes of the networks as frozen values, with named presets."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class StackConfig:
    """One stack of attention layers."""

    width: int
    """Numbers per token."""
    layers: int
    """Attention layers."""
    heads: int
    """Query heads."""
    kv_heads: int
    """Key and value heads; divides ``heads``. Fewer save work: consecutive query heads share one."""
    head_dim: int
    """Numbers per head."""
    layers_per_kv: int = 1
    """Layers that share one set of keys and values."""
    ff_multiple: int = 4
    """Hidden units of the feed-forward part, in widths."""

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "kv_heads", "head_dim", "layers_per_kv", "ff_multiple"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}, must be at least 1.")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads: {self.kv_heads}, must divide heads {self.heads}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """The attention encoder."""

    bars: int = 120
    """Bars of a window."""
    features: int = 9
    """Numbers per bar."""
    horizon: int = 24
    """Bars to forecast."""
    hidden: int = 64
    """Hidden units of the forecast head."""
    patch: int = 4
    """Consecutive bars joined into one token; divides ``bars``."""
    stack: StackConfig = field(
        default_factory=lambda: StackConfig(width=32, layers=2, heads=4, kv_heads=2, head_dim=16)
    )
    """The attention over tokens."""

    def __post_init__(self) -> None:
        for name in ("bars", "features", "horizon", "hidden", "patch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}, must be at least 1.")
        if self.bars % self.patch:
            raise ValueError(f"patch: {self.patch}, must divide bars {self.bars}.")

    @property
    def context_width(self) -> int:
        """Numbers per token of the context: the forecast of one feature, its level and its volatility."""
        return self.horizon + 2


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyConfig:
    """Actor and critic."""

    account: int = 12
    """Numbers that describe the account."""
    action: int = 6
    """Numbers of an action."""
    reward: int = 3
    """Components of the reward, one value each."""
    hidden: int = 64
    """Units of the dense layers."""
    lot_cap: float = 1.0
    """Largest volume an action can ask for, lots."""
    stack: StackConfig = field(
        default_factory=lambda: StackConfig(
            width=32, layers=3, heads=4, kv_heads=2, head_dim=16, layers_per_kv=3
        )
    )
    """The attention of the account over the context."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """All networks of a run."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)


def preset(name: str, *, lot_cap: float = 1.0) -> ModelConfig:
    """Return the sizes called ``"tiny"`` (for tests) or ``"default"``."""
    if name == "default":
        return ModelConfig(policy=PolicyConfig(lot_cap=lot_cap))
    if name == "tiny":
        small = StackConfig(width=8, layers=2, heads=2, kv_heads=1, head_dim=4, layers_per_kv=2)
        return ModelConfig(
            encoder=EncoderConfig(hidden=16, patch=8, stack=small),
            policy=PolicyConfig(hidden=16, stack=small, lot_cap=lot_cap),
        )
    raise ValueError(f"preset: {name!r}, must be one of tiny, default.")
