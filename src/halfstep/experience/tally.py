"""Counts of what a group of passes did: decisions by outcome, actions in bins, trades and results by side.

One JSON file per shard holds its counts, so that a round is described without reading its steps again.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from halfstep import files
from halfstep.broker.outcomes import Outcome

ELEMENTS = ("buy lots", "buy TP", "buy SL", "sell lots", "sell TP", "sell SL")
BINS = 10
SIDES = ("long", "short")
DEGENERATE_SHARE = 0.99
HINTS = {
    Outcome.BELOW_MIN_LOT: "the policy asks for less than the least lot; train the actor longer, or raise broker.lot_cap",
    Outcome.TP_TOO_CLOSE: "targets are nearer than the broker takes; raise the targets, or set broker.zero_level = none",
    Outcome.SL_TOO_CLOSE: "stops are nearer than the spread; raise the stops, or set broker.zero_level = none",
    Outcome.NO_MONEY: "the margin never suffices; lower broker.lot_cap, or raise broker.leverage",
    Outcome.NONFINITE: "the policy returns NaN; its networks are broken, train them again",
    Outcome.STOPPED_OUT: "every position is liquidated; lower broker.lot_cap",
    Outcome.FILLED: "the policy trades on every bar and mostly pays the spread; give larger research.rho",
    Outcome.HELD: "the policy hardly ever changes its position; it may have learnt to, else train the actor longer",
}


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Tally:
    """Counts that add up over groups.

    Attributes:
        episodes, terminated: passes, and those that ended in ruin.
        outcomes: decisions by `Outcome`, ``(8,)``; their sum is the number of decisions.
        held: decisions after which a position was held.
        histograms: decisions by tenth of the range of each action element, ``(6, 10)``; the last tenth is closed.
        trades: deals that took volume off a long and off a short position, ``(2,)``.
        results: profit, swap and commissions of all deals of each side, account currency, ``(2,)``.
    """

    episodes: int
    terminated: int
    outcomes: npt.NDArray[np.int64]
    held: int
    histograms: npt.NDArray[np.int64]
    trades: npt.NDArray[np.int64]
    results: npt.NDArray[np.float64]

    @classmethod
    def empty(cls) -> "Tally":
        """Return a tally of nothing."""
        return cls(
            episodes=0, terminated=0, outcomes=np.zeros(len(Outcome), np.int64), held=0,
            histograms=np.zeros((len(ELEMENTS), BINS), np.int64), trades=np.zeros(2, np.int64), results=np.zeros(2),
        )  # fmt: skip

    @classmethod
    def total(cls, parts: Iterable["Tally"]) -> "Tally":
        """Return the sum of tallies."""
        whole = cls.empty()
        for part in parts:
            whole = cls(**{name: getattr(whole, name) + getattr(part, name) for name in cls.__slots__})
        return whole

    @property
    def decisions(self) -> int:
        """Number of decisions."""
        return int(self.outcomes.sum())

    @property
    def in_position(self) -> float:
        """Share of decisions after which a position was held; 0 without decisions."""
        return self.held / max(self.decisions, 1)

    def as_json(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {
            "episodes": self.episodes,
            "terminated": self.terminated,
            "decisions": self.decisions,
            "outcomes": {outcome.name: int(self.outcomes[outcome]) for outcome in Outcome},
            "held": self.held,
            "in_position": self.in_position,
            "histograms": {name: row.tolist() for name, row in zip(ELEMENTS, self.histograms, strict=True)},
            "trades": dict(zip(SIDES, self.trades.tolist(), strict=True)),
            "results": dict(zip(SIDES, self.results.tolist(), strict=True)),
        }

    def write(self, path: Path) -> None:
        """Write the counts, atomically."""
        files.write_json(path, self.as_json())

    @classmethod
    def read(cls, path: Path) -> "Tally":
        """Return the counts of a file that `write` wrote."""
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            episodes=values["episodes"],
            terminated=values["terminated"],
            outcomes=np.array([values["outcomes"][outcome.name] for outcome in Outcome], np.int64),
            held=values["held"],
            histograms=np.array([values["histograms"][name] for name in ELEMENTS], np.int64),
            trades=np.array([values["trades"][side] for side in SIDES], np.int64),
            results=np.array([values["results"][side] for side in SIDES]),
        )

    def warnings(self) -> tuple[str, ...]:
        """Return a sentence, with a hint, for every outcome and every bin that holds more than 99 % of the decisions."""
        n = self.decisions
        if n == 0:
            return ("no decision was made: every pass ended before its first bar",)
        found = [
            f"{self.outcomes[outcome] / n:.1%} of decisions ended as {outcome.name}: {HINTS[outcome]}."
            for outcome in Outcome
            if self.outcomes[outcome] > DEGENERATE_SHARE * n
        ]
        found += [
            f"{row.max() / n:.1%} of actions have {name} in {10 * row.argmax()}-{10 * row.argmax() + 10} % of its range: "
            "the policy is constant there; train the actor longer, or raise the exploration."
            for name, row in zip(ELEMENTS, self.histograms, strict=True)
            if row.max() > DEGENERATE_SHARE * n
        ]
        return tuple(found)


def histogram(
    action: npt.NDArray[np.floating], counted: npt.NDArray[np.bool_], lot_cap: float
) -> npt.NDArray[np.int64]:
    """Return the counts of each action element by tenth of its range, ``(6, 10)``.

    Args:
        action: ``(..., 6)``.
        counted: which of them, ``(...)``.
    """
    bounds = np.array([lot_cap, 1, 1, lot_cap, 1, 1], action.dtype)
    bins = np.clip((action[counted] * (BINS / bounds)).astype(np.int8), 0, BINS - 1)
    return np.stack([np.bincount(bins[:, k], minlength=BINS) for k in range(len(ELEMENTS))])
