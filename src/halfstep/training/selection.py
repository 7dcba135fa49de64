"""Which weights are kept: those whose mean action earned most on the validation span, and signs that nothing was learnt."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int64
from torch import nn

from halfstep.broker.outcomes import Outcome
from halfstep.experience.rollout import trade
from halfstep.experience.seeds import generator
from halfstep.experience.store import EpisodeStore
from halfstep.nn.policy import Actor
from halfstep.training.policy import NeuralPolicy
from halfstep.training.samples import StudyData, at_rows

BINS = 10
REFERENCES = 1000  # stored actions that stand for the data
NEAR_QUANTILE = 0.99
DEGENERATE_SHARE = 0.99

ValidationPoint = dict[str, Any]
"""Figures of one trade of the validation span: update, log_growth, deals, in_position, outcomes, histogram, outside."""


class Validation:
    """Trades the validation span with mean actions.

    Args:
        data: market, span and the stored actions that others are compared with.
        lot_cap: largest volume of the actor, lots.
        seed: of the choice of stored actions.
    """

    def __init__(self, data: StudyData, lot_cap: float, seed: int) -> None:
        self._data = data
        self._high = np.array([lot_cap, 1, 1, lot_cap, 1, 1])
        self._references = (
            stored_actions(data.store, REFERENCES, generator(seed, "stored actions")) / self._high
        )
        own = nearest_distances(self._references, self._references, without_itself=True)
        self._near = float(np.quantile(own, NEAR_QUANTILE))

    def trade(self, actor: Actor, update: int) -> ValidationPoint:
        """Return the figures of an actor; everything begins with the deposit and ends with the span."""
        data = self._data
        first, stop = data.validation
        policy = NeuralPolicy(actor, data.contexts)
        asked, run = trade(policy, data.table, data.rules, first=first, stop=stop - 1)
        outcomes = np.bincount(run.outcome, minlength=len(Outcome))
        distances = nearest_distances(comparable(run.executed) / self._high, self._references)
        return {
            "update": update,
            "log_growth": float(run.reward.sum()),
            "deals": int(run.log.counts[0]),
            "in_position": float((run.lots != 0).mean()),
            "outcomes": {outcome.name: int(outcomes[outcome]) for outcome in Outcome},
            "histogram": histogram(asked / self._high).tolist(),
            "outside": float((distances > self._near).mean()),
        }


def best_of(points: list[ValidationPoint]) -> int:
    """Return the position of the greatest growth; the first of equals."""
    return int(np.argmax([point["log_growth"] for point in points]))


def is_exhausted(points: list[ValidationPoint], patience: int) -> bool:
    """Return whether the last ``patience`` trades brought no greater growth."""
    return bool(points) and len(points) - 1 - best_of(points) >= patience


def histogram(fractions: Float[np.ndarray, "bar action"]) -> Int64[np.ndarray, "action 10"]:
    """Return ten equal bins from 0 to 1 of each element; what lies outside counts in the outermost."""
    bins = np.clip((fractions * BINS).astype(np.int64), 0, BINS - 1)
    return np.stack([np.bincount(column, minlength=BINS) for column in bins.T])


def comparable(action: Float[np.ndarray, "step action"]) -> Float[np.ndarray, "step action"]:
    """Return actions whose levels are 0 on a side without volume, where they mean nothing."""
    volume = action[:, [0, 0, 0, 3, 3, 3]]
    return np.where(volume > 0, action, 0.0)


def stored_actions(
    store: EpisodeStore, n: int, random: np.random.Generator
) -> Float[np.ndarray, "step action"]:
    """Return up to ``n`` actions of a store, drawn uniformly without replacement, as `comparable` shows them."""
    total = int(store.length.sum())
    rows = np.sort(random.choice(total, min(n, total), replace=False))
    return comparable(store.gather(*at_rows(store, rows)).action.astype(np.float64))


def nearest_distances(
    actions: Float[np.ndarray, "step action"],
    references: Float[np.ndarray, "reference action"],
    *,
    without_itself: bool = False,
) -> Float[np.ndarray, " step"]:
    """Return the Euclidean distance of each action to its nearest reference.

    Args:
        without_itself: action k is reference k, and looks for another one.
    """
    squares = (
        (actions**2).sum(axis=1)[:, None] + (references**2).sum(axis=1) - 2 * actions @ references.T
    )  # (step, reference)
    if without_itself:
        np.fill_diagonal(squares, np.inf)
    return np.asarray(np.sqrt(np.maximum(squares.min(axis=1), 0.0)), np.float64)


def unmoved(module: nn.Module, before: Mapping[str, Any]) -> list[str]:
    """Return the parameters that are bit-equal to what they were.

    The bias of an attention's keys is left out: it adds the same to every score of a query, so it has no gradient.
    """
    return [
        name
        for name, param in module.named_parameters()
        if bool((param == before[name]).all()) and not name.endswith("k_proj.bias")
    ]


def kept_warning(point: ValidationPoint, *, is_fresh: bool) -> list[str]:
    """Return what is odd about the point that was kept: a fresh actor, or one that does the same always.

    Args:
        is_fresh: the weights before training were not those of an earlier round.
    """
    if point["update"] == 0 and is_fresh:
        return [
            "no weights earned more on the validation span than those before training: they are kept, and a fresh actor "
            "does nothing"
        ]
    return sameness_warning(point)


def sameness_warning(point: ValidationPoint) -> list[str]:
    """Return a sentence if the actor asks for the same volumes on nearly all bars."""
    counts = np.array(point["histogram"])
    volumes = counts[[0, 3]]
    shares = volumes.max(axis=1) / np.maximum(volumes.sum(axis=1), 1)
    if shares.min() <= DEGENERATE_SHARE:
        return []
    buy, sell = (f"{k / BINS:.1f}-{(k + 1) / BINS:.1f}" for k in volumes.argmax(axis=1))
    return [
        f"the actor does the same on {shares.min():.1%} of the validation bars: it buys {buy} and sells {sell} of the "
        "largest volume"
    ]
