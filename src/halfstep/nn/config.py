"""Sizes of the networks as frozen values. Presets: `halfstep.nn.presets`."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from halfstep.nn.activations import activation


@dataclass(frozen=True, kw_only=True, slots=True)
class StackConfig:
    """A stack of attention layers; one form serves multi-head, grouped, multi-query and multi-layer sharing."""

    width: int
    """Numbers per token."""
    layers: int
    """Attention layers."""
    heads: int
    """Query heads."""
    kv_heads: int
    """Key and value heads; divides ``heads``. Fewer save work: consecutive query heads share one."""
    head_dim: int = 32
    """Numbers per head."""
    layers_per_kv: int = 1
    """Layers that share one set of keys and values."""
    context_width: int | None = None
    """Numbers per token of the context of a cross attention; None: self attention."""
    mask: Literal["none", "causal"] = "none"
    """What a token of a self attention sees: all, or itself and older ones."""
    ff_multiple: int = 4
    """Hidden units of the feed-forward part, in widths."""
    activation: str = "leaky_relu"
    """Activation of the feed-forward part."""
    norm_affine: bool = False
    """Whether the layer normalisations learn a gain and a shift."""
    order: Literal["attention_first", "feed_forward_first"] = "attention_first"
    """Which part of a layer comes first."""

    def __post_init__(self) -> None:
        _at_least_one(
            self, ("width", "layers", "heads", "kv_heads", "head_dim", "layers_per_kv", "ff_multiple")
        )
        if self.context_width is not None:
            _at_least_one(self, ("context_width",))
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads: {self.kv_heads}, must divide heads {self.heads}.")
        _one_of("mask", self.mask, ("none", "causal"))
        _one_of("order", self.order, ("attention_first", "feed_forward_first"))
        activation(self.activation)


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """What all encoders have; the kinds of encoder below add their own sizes."""

    bars: int = 120
    """Bars of a window."""
    features: int = 9
    """Numbers per bar."""
    horizon: int = 24
    """Bars to forecast."""
    norm: Literal["revin", "running", "running_per_position"] = "revin"
    """Statistics of the window itself, or running ones, for all bars alike or bar by bar (published)."""
    linear_skip: bool = True
    """Whether a linear map of each feature's own window is added to the forecast; halves the gap to good forecasts."""
    context_stats: bool = True
    """Whether a context holds level and volatility, which normalisation takes out and stop distances need."""
    context_bars: int = 0
    """Newest bars that one more token of the context holds themselves: what a bar shows is not all forecast."""

    def __post_init__(self) -> None:
        _at_least_one(self, ("bars", "features", "horizon"))
        if not 0 <= self.context_bars <= self.bars:
            raise ValueError(f"context_bars: {self.context_bars}, must lie between 0 and bars {self.bars}.")
        _one_of("norm", self.norm, ("revin", "running", "running_per_position"))

    @property
    def context_width(self) -> int:
        """Numbers per token of the context: the forecast of one feature, its level and volatility; the newest bars."""
        return self.horizon + 2 * self.context_stats + self.context_bars * self.features

    @property
    def skip_bars(self) -> int | None:
        """Bars that the linear skip reads, None without one."""
        return self.bars if self.linear_skip else None


@dataclass(frozen=True, kw_only=True, slots=True)
class TpmConfig(EncoderConfig):
    """What both recurrent encoders have."""

    hidden: int = 64
    """Units of the recurrent cells and of the head."""
    head: tuple[str, str, str] = ("silu", "silu", "none")
    """Activations of the head's layers. The series' last one is tanh, which caps forecasts at one deviation."""
    plr_series: Literal["path", "all"] = "path"
    """Series whose segments the encoder sees: the price path of the window, or every feature by itself."""
    plr_threshold: float = 0.5
    """Least move of a segment, in deviations."""
    plr_segments: int = 24
    """Slots for segments, per series."""
    path_features: tuple[str, ...] | None = None
    """Features whose running sum is the price path; None: gap and body, or close_open, whichever there are."""

    def __post_init__(self) -> None:
        EncoderConfig.__post_init__(self)
        _at_least_one(self, ("hidden", "plr_segments"))
        if self.bars < 2:
            raise ValueError(f"bars: {self.bars}, must be at least 2.")
        for name in self.head:
            activation(name)
        _one_of("plr_series", self.plr_series, ("path", "all"))
        if not self.plr_threshold > 0:
            raise ValueError(f"plr_threshold: {self.plr_threshold}, must be above 0.")


@dataclass(frozen=True, kw_only=True, slots=True)
class TpmWindowedConfig(TpmConfig):
    """Dual attention inside one window."""

    channels: int = 16
    """Channels between which the input attention chooses."""
    filters: int = 4
    """Filters of each feature over time."""
    pool: int = 4
    """Bars joined into one recurrent step, at most ``bars``."""
    score: int = 32
    """Size of the attentions' scores."""
    decoder_steps: int = 1
    """Steps of the temporal attention."""

    def __post_init__(self) -> None:
        TpmConfig.__post_init__(self)
        _at_least_one(self, ("channels", "filters", "pool", "score", "decoder_steps"))
        if self.pool > self.bars:
            raise ValueError(f"pool: {self.pool}, must be at most bars {self.bars}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class TpmStatefulConfig(TpmConfig):
    """One recurrent step per bar, the state carried from bar to bar: the form of the series."""

    burn_in: int = 240
    """Bars after a reset that are neither trained on nor traded."""

    def __post_init__(self) -> None:
        TpmConfig.__post_init__(self)
        if self.burn_in < 0:
            raise ValueError(f"burn_in: {self.burn_in}, must be 0 or above.")


@dataclass(frozen=True, kw_only=True, slots=True)
class StnnConfig(EncoderConfig):
    """Spatial encoder and temporal decoder, both attention."""

    columns: tuple[int, ...] | None = (0, 1, 2, 3)
    """Features to forecast, by position; None: all. Default: the prices of robust9."""
    stack: StackConfig = field(
        default_factory=lambda: StackConfig(
            width=9, layers=4, heads=8, kv_heads=4, layers_per_kv=2, mask="causal", order="feed_forward_first"
        )
    )
    """The stack of encoder and decoder; the cross attention has the same sizes, without a mask."""

    def __post_init__(self) -> None:
        EncoderConfig.__post_init__(self)
        if self.columns is not None and not (
            self.columns and all(0 <= column < self.features for column in self.columns)
        ):
            raise ValueError(f"columns: {self.columns}, must lie between 0 and {self.features - 1}.")
        if self.horizon > self.bars:
            raise ValueError(f"horizon: {self.horizon}, must be at most bars {self.bars}.")
        _no_context(self.stack)


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionConfig(EncoderConfig):
    """Causal attention over the bars of a window."""

    head: tuple[str, str, str] = ("silu", "silu", "none")
    """Activations of the head's layers."""
    stack: StackConfig = field(
        default_factory=lambda: StackConfig(
            width=32, layers=2, heads=4, kv_heads=2, head_dim=16, mask="causal"
        )
    )
    """The attention over bars."""

    def __post_init__(self) -> None:
        EncoderConfig.__post_init__(self)
        for name in self.head:
            activation(name)
        _no_context(self.stack)


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyConfig:
    """The actor."""

    account: int = 12
    """Numbers that describe the account."""
    action: int = 6
    """Numbers of an action: volume, target and stop of each side."""
    hidden: int = 64
    """Units of the dense layers."""
    activation: str = "silu"
    """Activation of the dense layers."""
    lot_cap: float = 1.0
    """Largest volume an action can ask for, lots."""
    level_floor: float = 0.0
    """Least fraction of a target or stop. A broker refuses levels too near to the price, and trajectories hold hardly
    any such order: a critic knows nothing of them, and an actor that follows it must not go there."""
    stack: StackConfig = field(
        default_factory=lambda: StackConfig(
            width=32, layers=3, heads=4, kv_heads=2, head_dim=16, layers_per_kv=3
        )
    )
    """The attention of the account over the context; the builder fills in the context's width."""

    def __post_init__(self) -> None:
        _at_least_one(self, ("account", "hidden"))
        if self.action != 6:
            raise ValueError(
                f"action: {self.action}, must be 6: volume, target and stop of buying, then of selling."
            )
        if not self.lot_cap > 0:
            raise ValueError(f"lot_cap: {self.lot_cap}, must be above 0.")
        if not 0 <= self.level_floor < 1:
            raise ValueError(f"level_floor: {self.level_floor}, must lie in [0, 1).")
        activation(self.activation)


@dataclass(frozen=True, kw_only=True, slots=True)
class CriticConfig:
    """Critic and value network."""

    account: int = 12
    """Numbers that describe the account."""
    action: int = 6
    """Numbers of an action."""
    reward: int = 3
    """Components of the reward, one value each."""
    hidden: int = 64
    """Units of the dense layers."""
    activation: str = "silu"
    """Activation of the dense layers."""
    use_account: bool = True
    """Whether the critic sees the account, on which every reward depends. The published one does not."""
    stack: StackConfig = field(
        default_factory=lambda: StackConfig(
            width=32, layers=3, heads=4, kv_heads=2, head_dim=16, layers_per_kv=3
        )
    )
    """The attention over the context; the builder fills in the context's width."""

    def __post_init__(self) -> None:
        _at_least_one(self, ("account", "action", "reward", "hidden"))
        activation(self.activation)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """All networks of a run."""

    encoder: EncoderConfig = field(default_factory=TpmWindowedConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)


def _at_least_one(config: object, names: Iterable[str]) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{name}: {getattr(config, name)}, must be at least 1.")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: {value!r}, must be one of {', '.join(allowed)}.")


def _no_context(stack: StackConfig) -> None:
    if stack.context_width is not None:
        raise ValueError(f"context_width: {stack.context_width}, must be None in a stack of self attention.")
