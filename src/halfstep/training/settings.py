"""Settings of training."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerSettings:
    """Hyper-parameters; Adam, AdamW and Adam-mini share them, so that a comparison changes the optimizer alone."""

    lr: float = 1e-3
    """Learning rate of the Adam family."""
    sgd_lr: float = 0.05
    """Learning rate of SGD with momentum 0.9."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.999
    """Decay of the second moment."""
    weight_decay: float = 0.01
    """Decoupled decay of matrices; vectors have none."""
    warmup_steps: int = 100
    """Updates over which the learning rate rises linearly; then it falls along a cosine to a tenth."""
    max_norm: float = 1.0
    """Limit of the gradients' global norm."""

    def __post_init__(self) -> None:
        for name in ("lr", "sgd_lr", "max_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: {getattr(self, name)}, must be above 0.")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}, must lie in [0, 1).")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderTraining:
    """Training of the encoder."""

    epochs: int = 5
    """Most passes over the training span."""
    patience: int = 3
    """Epochs without a better validation loss before training stops; the best weights are kept."""
    batch: int = 128
    """Windows per update."""
    streams: int = 4
    """Recurrent encoders: consecutive parts of the span that are passed over side by side."""
    block_bars: int = 32
    """Recurrent encoders: bars of each stream per update, and how far the gradient goes back. Streams times bars are
    the samples of an update: 32 streams of 100 bars would be two updates per epoch of ten months of hours."""
    alpha: float = 0.7
    """Share of the frequency term in the loss."""

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch", "streams", "block_bars"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}, must be at least 1.")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha: {self.alpha}, must lie in [0, 1].")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudySettings:
    """Training of critic and actor on stored trajectories."""

    updates: int = 600
    """Updates of critic and actor."""
    batch: int = 256
    """Steps per update."""
    sampling: Literal["uniform", "return_weighted"] = "uniform"
    """How steps are drawn: each once per epoch, or episodes with greater returns more often (published)."""
    horizon: int = 24
    """Bars whose rewards a critic's target sums, so that the outcome of a stop reaches the action that set it."""
    discount: float = 0.99
    """Weight of the next bar's reward."""
    reward_weights: tuple[float, float, float] = (0.0, 1.0, 1.0)
    """Weights of the reward's components: balance, log growth of equity, idle charge."""
    cloning: float = 0.1
    """Weight of imitating the actions of profitable episodes."""
    guidance: float = 1.0
    """Weight of the critic's value."""
    kl: float = 0.001
    """Weight of the divergence from a standard normal."""
    eval_every: int = 200
    """Updates between trades of the validation span; the weights with the greatest log growth are kept."""

    def __post_init__(self) -> None:
        for name in ("updates", "batch", "horizon", "eval_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}, must be at least 1.")
        if not 0 < self.discount <= 1:
            raise ValueError(f"discount: {self.discount}, must lie in (0, 1].")
