"""Settings of training."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal


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
    """Most updates of critic and actor."""
    batch: int = 256
    """Steps per update."""
    sampling: Literal["uniform", "return_weighted"] = "uniform"
    """How steps are drawn: each once per epoch, or episodes with greater returns more often (published)."""
    target: Literal["one_step", "n_step", "td", "return_to_go", "value"] = "one_step"
    """What the critic learns: the next reward (published), the rewards of ``horizon`` bars, the next reward and the
    value of what the actor does then, all rewards to the episode's end, or the next reward and the state's value
    (only for, and needed by, objective awr)."""
    objective: Literal["guided", "awr", "oracle"] = "guided"
    """What the actor learns: actions that the critic values and profitable episodes took, stored actions that were
    better than the state's value, or labels from the true next bars."""
    horizon: int = 24
    """Target n_step: bars whose rewards are summed, so that the outcome of a stop reaches the action that set it.
    Objective oracle: bars a label looks ahead."""
    bootstrap: bool = False
    """Target n_step: whether the value of what the actor does after the horizon is added."""
    discount: float = 0.99
    """Weight of the next bar's reward."""
    reward_weights: tuple[float, float, float] = (0.0, 1.0, 1.0)
    """Weights of the reward's components: balance, log growth of equity, idle charge. The published (1, 1, 1) count a
    closed profit twice."""
    target_rate: float = 0.005
    """Share by which target copies of networks move toward them in each update (tau)."""
    cloning: float = 0.1
    """Objective guided: weight of imitating the actions of profitable episodes."""
    guidance: float = 1.0
    """Objective guided: weight of the critic's value."""
    alternating: bool = False
    """Objective guided: whether updates imitate and follow the critic in turn (published) instead of at once."""
    expectile: float = 0.7
    """Objective awr: how far the state's value lies toward the better actions; 0.5 is their mean."""
    sharpness: float = 3.0
    """Objective awr: weight of the advantage, in its deviations, in the exponent of an action's weight (beta)."""
    min_edge_points: float | None = None
    """Objective oracle: least profit of a label after costs, points. Default: the spread of its bar."""
    kl: float = 0.05
    """Objectives guided and awr: weight of the divergence from a standard normal, which is what the first trajectories
    are drawn from: a critic knows nothing of actions far from it. With 0.001 actors move stops to where no broker takes
    them, because refused orders are stored as none, and end in half of their orders refused."""
    eval_every: int = 500
    """Updates between trades of the validation span; the weights with the greatest log growth are kept."""
    patience: int = 5
    """Trades of the validation span without a greater growth before training stops."""

    def __post_init__(self) -> None:
        for name in ("updates", "batch", "horizon", "eval_every", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}, must be at least 1.")
        for name in ("cloning", "guidance", "kl", "sharpness"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: {getattr(self, name)}, must be 0 or more.")
        for name in ("discount", "target_rate"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)}, must lie in (0, 1].")
        if not 0 < self.expectile < 1:
            raise ValueError(f"expectile: {self.expectile}, must lie between 0 and 1.")
        if not any(self.reward_weights):
            raise ValueError(f"reward_weights: {self.reward_weights}, must not all be 0.")
        if self.bootstrap and self.target != "n_step":
            raise ValueError(f"bootstrap: true, but target is {self.target}. It belongs to target n_step.")
        if (self.target == "value") != (self.objective == "awr"):
            raise ValueError(
                f"target: {self.target!r}, with objective {self.objective!r}. Objective awr needs target value, and "
                "no other objective has one."
            )

    @property
    def bootstraps(self) -> bool:
        """Whether targets need the state after their last reward."""
        return self.bootstrap or self.target in ("td", "value")

    @property
    def is_pessimistic(self) -> bool:
        """Whether two critics are trained, the lesser of which counts."""
        return self.target in ("td", "value")


PUBLISHED_STUDY: Mapping[str, Any] = MappingProxyType(
    {
        "target": "one_step",
        "objective": "guided",
        "reward_weights": (1.0, 1.0, 1.0),
        "sampling": "return_weighted",
        "alternating": True,
        "cloning": 1.0,
        "guidance": 1.0,
        "kl": 0.01,
    }
)
"""The algorithm of the article series, as settings of `StudySettings`, without its defects: equity counts with its right
sign, the critic judges the executed action, the actor follows the critic's gradient instead of a hundredth more of its
value, steps of a drawn episode are uniform, losing passes are stored."""
