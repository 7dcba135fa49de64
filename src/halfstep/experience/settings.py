"""Settings of trajectory collection."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class ResearchSettings:
    """How a round of trajectories is collected."""

    passes: int = 64
    """Passes over the training span per round; each is one episode."""
    group: int = 250
    """Passes moved in lockstep and written as one shard; 65 bytes of memory for each of their decisions. Has no
    influence on the actions of passes that start at the first bar."""
    start: Literal["first", "random"] = "first"
    """Bar of the first decision: the span's first, or a uniformly drawn one that leaves room for length bars; the
    passes of a group share it."""
    length: int | None = None
    """Decisions of a pass. Default: to the end of the span; start = random needs a number."""
    rho: tuple[float, ...] = (0.0, 0.9, 0.99)
    """Correlations of the exploration noise from bar to bar, drawn per pass. Correlated noise holds positions for
    hours; white noise flips sides each bar and mostly pays spread."""
    scripted_share: float = 0.1
    """Share of passes that follow a script: flat, always long, always short, random entries. The critic must have
    seen what doing nothing is worth."""
    discount: float = 0.99
    """Discount per bar of the returns that are stored with an episode."""
    keep: Literal["all", "published"] = "all"
    """Episodes that stay after a round: all, losing ones too, or what the published programs keep, which is 500 winners."""
    max_episodes: int = 5000
    """Most episodes kept under keep = all; beyond it the oldest go, recorded signals never. 0.4 MB for a year of hours."""

    def __post_init__(self) -> None:
        for name in ("passes", "group", "max_episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}, must be at least 1.")
        if self.keep not in ("all", "published"):
            raise ValueError(f"keep: {self.keep!r}, must be all or published.")
        if self.start not in ("first", "random"):
            raise ValueError(f"start: {self.start!r}, must be first or random.")
        if self.length is not None and self.length < 1:
            raise ValueError(f"length: {self.length}, must be at least 1 decision.")
        if self.start == "random" and self.length is None:
            raise ValueError("length: not given, must be the decisions of a pass where start is random.")
        if not self.rho or not all(0 <= rho < 1 for rho in self.rho):
            raise ValueError(f"rho: {self.rho}, must be numbers in [0, 1).")
        if not 0 <= self.scripted_share <= 1:
            raise ValueError(f"scripted_share: {self.scripted_share}, must lie in [0, 1].")
        if not 0 < self.discount <= 1:
            raise ValueError(f"discount: {self.discount}, must lie in (0, 1].")
